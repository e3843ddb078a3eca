"""A result as JSON: a superset of worker-comfyui's (`images[] {filename, type, data}`, `errors`). Pure."""

from collections.abc import Mapping, Sequence

from comfypin.digest import JsonValue
from comfypin.errors import ComfypinError
from comfypin.jobs.job import JobResult
from comfypin.outputs.interface import Delivery
from comfypin.storage.registry import SCHEMES

_LIST_OF_KIND = {"image": "images", "video": "videos", "audio": "audio"}


def result_to_json(result: JobResult, *, warnings: Sequence[str] = ()) -> dict[str, JsonValue]:
    """A job's output. `type` of a file is `base64`, `s3_url` (as worker-comfyui says), `gcs_url`,
    another store's `..._url`, or `file`."""
    lists: dict[str, list[JsonValue]] = {"images": [], "videos": [], "audio": [], "files": []}
    for delivery in result.deliveries:
        lists[_LIST_OF_KIND.get(delivery.output.kind, "files")].append(_file_to_json(delivery))
    document: dict[str, JsonValue] = {
        **lists,
        "texts": {node: list(texts) for node, texts in result.texts.items()},
        "warnings": [*warnings, *result.warnings],
        "errors": [],
        "job_id": result.job_id,
        "release": result.release.name,
        "release_digest": str(result.release.digest),
        "seconds": {
            "phases": {name: round(seconds, 4) for name, seconds in result.phase_s.items()},
            "nodes": {node: round(seconds, 4) for node, seconds in result.node_s.items()},
        },
    }
    if not any(lists.values()):
        document["status"] = "success_no_images"
    return document


def failure_to_json(error: ComfypinError, *, warnings: Sequence[str] = ()) -> dict[str, JsonValue]:
    """A job that failed: RunPod takes `error` out of it and makes the job FAILED, the rest stays as its output."""
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


def _file_to_json(delivery: Delivery) -> dict[str, JsonValue]:
    output = delivery.output
    entry: dict[str, JsonValue] = {
        "filename": output.filename,
        "subfolder": output.subfolder,
        "type": _result_type(delivery),
        "data": delivery.data_base64 or delivery.url or delivery.uri,
        "node": output.node_id,
        "kind": output.kind,
        "media_type": output.media_type,
        "size_bytes": output.size_bytes,
        "sha256": output.sha256.hex,
    }
    optional: Mapping[str, JsonValue] = {
        "width": output.width,
        "height": output.height,
        "uri": delivery.uri,
        "url": delivery.url,
    }
    return {**entry, **{name: value for name, value in optional.items() if value is not None}}


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
