"""The JSON of a job's result: one document for `comfypin run --json`, one for the worker and HTTP. Pure.

The second is a superset of worker-comfyui's (`images[] {filename, type, data}`, `errors`). Both are API: what they
share is made by the same functions, so that a field means the same in both.
"""

from collections.abc import Mapping, Sequence

from comfypin.digest import JsonValue
from comfypin.errors import ComfypinError
from comfypin.jobs.interface import JobOutcome
from comfypin.jobs.job import JobResult
from comfypin.outputs.interface import Delivery
from comfypin.storage.registry import SCHEMES

_LIST_OF_KIND = {"image": "images", "video": "videos", "audio": "audio"}


def report_to_json(result: JobResult) -> dict[str, JsonValue]:
    """Return what `comfypin run --json` prints: all outputs in one list."""
    return {
        **_shared_fields(result),
        "prompt_id": result.prompt_id,
        "outputs": [_report_delivery(delivery) for delivery in result.deliveries],
        "warnings": list(result.warnings),
        "held_back": result.held_back,
    }


def result_to_json(result: JobResult, *, warnings: Sequence[str] = ()) -> dict[str, JsonValue]:
    """Return a job's output as the worker and HTTP send it, with `warnings` about the request before the job's own.

    A file's `type` is `base64`, `s3_url` (as worker-comfyui says), another store's `..._url`, or `file`.
    """
    files_by_list: dict[str, list[JsonValue]] = {"images": [], "videos": [], "audio": [], "files": []}
    for delivery in result.deliveries:
        files_by_list[_LIST_OF_KIND.get(delivery.output.kind, "files")].append(_file_to_json(delivery))
    document: dict[str, JsonValue] = {
        **files_by_list,
        **_shared_fields(result),
        "warnings": [*warnings, *result.warnings],
        "errors": [],
    }
    if not any(files_by_list.values()):
        document["status"] = "success_no_images"
    return document


def failure_to_json(error: ComfypinError, *, warnings: Sequence[str] = ()) -> dict[str, JsonValue]:
    """Return the output of a job that failed. RunPod takes `error` out of it and makes the job FAILED."""
    document: dict[str, JsonValue] = {
        "error": error.message,
        "error_type": type(error).__name__,
        "error_family": error.family,
        "errors": [error.message],
        "warnings": list(warnings),
    }
    facts = {name: value for name, value in error.facts.items() if _is_json_value(value)}
    if facts:
        document["error_facts"] = facts  # type: ignore[assignment]  # checked just above
    return document


def failed_outcome(error: ComfypinError, *, warnings: Sequence[str] = (), replace_worker: bool = False) -> JobOutcome:
    """Return the outcome of a job that failed so."""
    output = failure_to_json(error, warnings=warnings)
    return JobOutcome(output=output, failure=error, replace_worker=replace_worker)


def _shared_fields(result: JobResult) -> dict[str, JsonValue]:
    return {
        "job_id": result.job_id,
        "release": result.release.name,
        "release_digest": str(result.release.digest),
        "texts": {node_id: list(texts) for node_id, texts in result.texts.items()},
        "seconds": {"phases": _rounded(result.phase_s), "nodes": _rounded(result.node_s)},
    }


def _rounded(seconds: Mapping[str, float]) -> dict[str, JsonValue]:
    return {name: round(value, 4) for name, value in seconds.items()}


def _report_delivery(delivery: Delivery) -> dict[str, JsonValue]:
    data: dict[str, JsonValue] = {} if delivery.data_base64 is None else {"data": delivery.data_base64}
    return {**_delivery_to_json(delivery), "temporary": delivery.output.temporary, **data}


def _file_to_json(delivery: Delivery) -> dict[str, JsonValue]:
    data = delivery.data_base64 or delivery.url or delivery.uri
    return {**_delivery_to_json(delivery), "type": _result_type(delivery), "data": data}


def _delivery_to_json(delivery: Delivery) -> dict[str, JsonValue]:
    """Return what both documents say of a delivered file; a size or an address that there is not is left out."""
    output = delivery.output
    optional: Mapping[str, JsonValue] = {
        "width": output.width,
        "height": output.height,
        "uri": delivery.uri,
        "url": delivery.url,
    }
    return {
        "filename": output.filename,
        "subfolder": output.subfolder,
        "node": output.node_id,
        "kind": output.kind,
        "media_type": output.media_type,
        "size_bytes": output.size_bytes,
        "sha256": output.sha256.hex,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _result_type(delivery: Delivery) -> str:
    if delivery.data_base64 is not None:
        return "base64"
    scheme = (delivery.uri or "").partition("://")[0]
    return SCHEMES[scheme].result_type if scheme in SCHEMES else "file"


def _is_json_value(value: object) -> bool:
    if isinstance(value, str | int | float | bool) or value is None:
        return True
    if isinstance(value, list | tuple):
        return all(map(_is_json_value, value))
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and _is_json_value(item) for key, item in value.items()
    )
