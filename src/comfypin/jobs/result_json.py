"""The JSON of a job's result: one document for `comfypin run --json`, one for the worker and HTTP. Pure.

The second is a superset of worker-comfyui's (`images[] {filename, type, data}`, `errors`, `details`). Both are API:
what they share is made by the same functions, so that a field means the same in both.
"""

from collections.abc import Mapping, Sequence

from comfypin.digest import JsonValue
from comfypin.engine.errors import NodeFailed
from comfypin.errors import ComfypinError
from comfypin.jobs.errors import JobInvalid
from comfypin.jobs.interface import JobOutcome
from comfypin.jobs.job import JobResult
from comfypin.jobs.node_traceback import hide_folders, show_traceback
from comfypin.models.job_models import BroughtModel
from comfypin.outputs.interface import Delivery
from comfypin.storage.registry import SCHEMES
from comfypin.workflow.errors import WorkflowInvalid

_LIST_OF_KIND = {"image": "images", "video": "videos", "audio": "audio"}


def report_to_json(job_result: JobResult) -> dict[str, JsonValue]:
    """Return what `comfypin run --json` prints: all outputs in one list."""
    return {
        **_shared_fields(job_result),
        "prompt_id": job_result.prompt_id,
        "outputs": [_report_delivery(delivery) for delivery in job_result.deliveries],
        "warnings": list(job_result.warnings),
        "held_back": job_result.held_back,
    }


def result_to_json(
    job_result: JobResult, *, warnings: Sequence[str] = (), start_s: Mapping[str, float] | None = None
) -> dict[str, JsonValue]:
    """Return a job's output as the worker and HTTP send it, with `warnings` about the request before the job's own.

    `start_s` are the seconds of the start that came before the job; only the first result has them.
    A file's `type` is `base64`, `s3_url` (as worker-comfyui says), another store's `..._url`, or `file`.
    """
    files_by_list: dict[str, list[JsonValue]] = {"images": [], "videos": [], "audio": [], "files": []}
    for delivery in job_result.deliveries:
        listed_file = _file_to_json(delivery)
        files_by_list[_LIST_OF_KIND.get(delivery.output.kind, "files")].append(listed_file)
        # There, `images` holds whatever a node reports among its images, in their order.
        if delivery.output.is_also_image:
            files_by_list["images"].append(listed_file)
    document: dict[str, JsonValue] = {
        **files_by_list,
        **_shared_fields(job_result),
        "warnings": [*warnings, *job_result.warnings],
    }
    if start_s:
        document["seconds"] = {**_seconds(job_result), "start": _rounded(start_s)}
    # Clients take the key itself for the sign that something went wrong.
    if job_result.errors:
        document["errors"] = list(job_result.errors)
    # worker-comfyui's word for it, which its clients look for.
    if not any(files_by_list.values()):
        document["status"] = "success_no_images"
    return document


def failure_to_json(
    failure: ComfypinError, *, warnings: Sequence[str] = (), own_values: Mapping[str, JsonValue] | None = None
) -> dict[str, JsonValue]:
    """Return the output of a job that failed. Runpod takes `failure` out of it and makes the job FAILED."""
    message = hide_folders(failure.message) if isinstance(failure, NodeFailed) else failure.message
    document: dict[str, JsonValue] = {
        "error": message,
        "error_type": type(failure).__name__,
        "error_family": failure.family,
        "details": list(_failure_details(failure, message)),
        "errors": [message],
        "warnings": list(warnings),
    }
    # Facts may hold objects that only our own code understands.
    facts = {fact_name: fact_value for fact_name, fact_value in failure.facts.items() if _is_json_value(fact_value)}
    if isinstance(failure, NodeFailed) and failure.traceback:
        document["error_traceback"] = show_traceback(failure.traceback)
    if own_values:
        document["values"] = dict(own_values)
    if facts:
        document["error_facts"] = facts  # type: ignore[assignment]  # checked just above
    return document


def _failure_details(failure: ComfypinError, message: str) -> Sequence[str]:
    """Return a sentence for each problem of a failure, or the failure's message if it lists none."""
    if isinstance(failure, WorkflowInvalid):
        return failure.problems
    return failure.findings if isinstance(failure, JobInvalid) else (message,)


def failed_outcome(
    failure: ComfypinError,
    *,
    warnings: Sequence[str] = (),
    replace_worker: bool = False,
    own_values: Mapping[str, JsonValue] | None = None,
) -> JobOutcome:
    """Return the outcome of a job with this failure."""
    output = failure_to_json(failure, warnings=warnings, own_values=own_values)
    return JobOutcome(output=output, failure=failure, replace_worker=replace_worker)


def _shared_fields(job_result: JobResult) -> dict[str, JsonValue]:
    return {
        "job_id": job_result.job_id,
        "release": job_result.release.name,
        "release_digest": job_result.release.digest_text,
        "texts": {node_id: list(texts) for node_id, texts in job_result.texts.items()},
        **({"models": [model_to_json(model) for model in job_result.models]} if job_result.models else {}),
        **({"values": dict(job_result.own_values)} if job_result.own_values else {}),
        "seconds": _seconds(job_result),
    }


def _seconds(job_result: JobResult) -> dict[str, JsonValue]:
    return {"phases": _rounded(job_result.phase_s), "nodes": _rounded(job_result.node_s)}


def model_to_json(model: BroughtModel) -> dict[str, JsonValue]:
    """Return what a result says about a model that its job brought."""
    return {
        "folder": model.folder,
        "filename": model.filename,
        "sha256": model.sha256.hex,
        "size_bytes": model.size_bytes,
        "fetched": model.fetched,
        **({} if model.source is None else {"source": model.source}),
    }


def _rounded(seconds: Mapping[str, float]) -> dict[str, JsonValue]:
    return {phase_name: round(fact_value, 4) for phase_name, fact_value in seconds.items()}


def _report_delivery(delivery: Delivery) -> dict[str, JsonValue]:
    inline_data: dict[str, JsonValue] = {} if delivery.data_base64 is None else {"data": delivery.data_base64}
    return {**_delivery_to_json(delivery), "temporary": delivery.output.temporary, **inline_data}


def _file_to_json(delivery: Delivery) -> dict[str, JsonValue]:
    output_place = delivery.data_base64 or delivery.url or delivery.uri
    return {**_delivery_to_json(delivery), "type": _result_type(delivery), "data": output_place}


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
        **{field_name: fact_value for field_name, fact_value in optional.items() if fact_value is not None},
    }


def _result_type(delivery: Delivery) -> str:
    if delivery.data_base64 is not None:
        return "base64"
    scheme = (delivery.uri or "").partition("://")[0]
    return SCHEMES[scheme].result_type if scheme in SCHEMES else "file"


def _is_json_value(fact_value: object) -> bool:
    if isinstance(fact_value, str | int | float | bool) or fact_value is None:
        return True
    if isinstance(fact_value, list | tuple):
        return all(map(_is_json_value, fact_value))
    return isinstance(fact_value, Mapping) and all(
        isinstance(key, str) and _is_json_value(item) for key, item in fact_value.items()
    )
