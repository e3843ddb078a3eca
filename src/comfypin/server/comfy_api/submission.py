"""A job as Comfy API v2 submits it: read, its assets found, its workflow checked, then into the queue of all jobs."""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfypin.digest import JsonValue
from comfypin.jobs.job_input import MAX_INPUTS
from comfypin.jobs.secret_fields import holds_secret
from comfypin.queue.job_notes import ComfyNote, JobNotes
from comfypin.server.comfy_api.api import ComfyApi
from comfypin.server.comfy_api.errors import ApiFailure, invalid_request, not_ready
from comfypin.server.comfy_api.records import Asset
from comfypin.server.comfy_api.references import AssetInput, find_references, missing_asset, name_files, with_names
from comfypin.server.comfy_api.workflow_check import check_workflow, require_graph
from comfypin.server.errors import NotReady
from comfypin.server.request_bodies import parse_json_body
from comfypin.small_work import run_by_size

_RESERVED = ("webhook_url", "inputs")
_API_KEY = "api_key_comfy_org"
# Labels are searched and shown, never used to keep data.
MOST_LABELS = 16
_LABEL_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
# One line.
_LONGEST_LABEL = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmission:
    """What a client submits, in a body of `size_bytes`. The key for API nodes goes to the engine and nowhere else."""

    workflow: Mapping[str, JsonValue]
    labels: Mapping[str, str]
    size_bytes: int = 0
    api_key: str | None = field(default=None, repr=False)


def read_submission(request_body: bytes) -> JobSubmission:
    """Read a body of POST /jobs; slow for a large one. Raises `ApiFailure`, `RequestInvalid`, `RequestTooComplex`."""
    document = parse_json_body(request_body)
    if not isinstance(document, dict):
        raise invalid_request("its body must be an object with `workflow`")
    if reserved := [field_name for field_name in _RESERVED if field_name in document]:
        raise invalid_request(f"`{reserved[0]}` is reserved and cannot be used yet")
    workflow = document.get("workflow")
    if not isinstance(workflow, dict):
        raise ApiFailure(422, "invalid_workflow", "`workflow` must be an object: nodes by their ids, in API format.")
    return JobSubmission(
        workflow=workflow,
        labels=read_labels(document.get("metadata")),
        size_bytes=len(request_body),
        api_key=_api_key(document.get("extra_data")),
    )


def _api_key(extra_data: object) -> str | None:
    if extra_data is None:
        return None
    if not isinstance(extra_data, dict) or (set(extra_data) - {_API_KEY}):
        raise invalid_request(f"`extra_data` must be an object with `{_API_KEY}` and nothing else")
    key = extra_data.get(_API_KEY)
    if key is not None and not (isinstance(key, str) and key.isprintable()):
        raise invalid_request(f"`extra_data.{_API_KEY}` must be a text")
    return key or None


def read_labels(metadata: object) -> dict[str, str]:
    """Read the labels of a job. Raises `ApiFailure` (metadata_invalid)."""
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise ApiFailure(422, "metadata_invalid", "`metadata` must be an object of texts.")
    if len(metadata) > MOST_LABELS:
        message = f"`metadata` has {len(metadata)} labels; {MOST_LABELS} are the most."
        raise ApiFailure(422, "metadata_invalid", message)
    for label_name, value in metadata.items():
        if not _LABEL_NAME.fullmatch(label_name):
            allowed = "1 to 64 letters, digits, dots, dashes or underscores"
            message = f"`metadata`: the name {label_name[:80]!r} must be {allowed}."
            raise ApiFailure(422, "metadata_invalid", message)
        if not isinstance(value, str) or len(value) > _LONGEST_LABEL or not value.isprintable():
            message = f"`metadata.{label_name}` must be a text of at most {_LONGEST_LABEL} characters."
            raise ApiFailure(422, "metadata_invalid", message)
    return dict(metadata)


async def submit(api: ComfyApi, submission: JobSubmission, key: str | None) -> str:
    """Check a submission and take its job; it is on the disk when this returns, with its key and its assets' uses.

    Raises `ApiFailure`, `QueueFull`, `JobsNotStored`.
    """
    require_graph(submission.workflow)
    references = find_references(submission.workflow)
    assets = await _assets(api, references)
    # Until the job is written no record says that these bytes are needed, and a sweep would take them.
    with api.assets.holding(asset.hash for asset in assets.values()):
        names = name_files(assets)
        workflow = with_names(submission.workflow, references, names)
        await _check(api, workflow, references, size_bytes=submission.size_bytes)
        inputs: list[JsonValue] = [{"name": names[asset_id], "asset": asset.hash} for asset_id, asset in assets.items()]
        job_input = {"workflow": workflow, **({"inputs": inputs} if inputs else {})}
        job_id = str(uuid.uuid4())
        note = await run_by_size(submission.size_bytes, _note_of, submission)
        notes = JobNotes(comfy=note, assets=tuple(asset.hash for asset in assets.values()), key=key)
        # Only now: a submission that is refused must not use up its key.
        async with api.keys.claim(key, job_id):
            with api.secrets.lending(job_id, submission.api_key) as lent:
                return await api.queue.accept_job(
                    {**job_input, **lent},
                    webhook=None,
                    timeout_s=None,
                    ttl_s=None,
                    api="comfy",
                    job_id=job_id,
                    notes=notes,
                )


async def _assets(api: ComfyApi, references: tuple[AssetInput, ...]) -> dict[str, Asset]:
    """Find every asset that is named. Raises `ApiFailure` (missing_asset)."""
    assets_by_id: dict[str, Asset] = {}
    for reference in references:
        if reference.asset_id in assets_by_id:
            continue
        if len(assets_by_id) == MAX_INPUTS:
            raise ApiFailure(422, "invalid_workflow", f"The workflow names more than {MAX_INPUTS} assets.")
        try:
            assets_by_id[reference.asset_id] = await api.assets.get(reference.asset_id)
        except ApiFailure as exc:
            raise missing_asset(reference) from exc
    return assets_by_id


async def _check(
    api: ComfyApi, workflow: Mapping[str, object], references: tuple[AssetInput, ...], *, size_bytes: int
) -> None:
    try:
        service = api.site.require_service()
    except NotReady as exc:
        raise not_ready(exc) from exc
    catalogue = await service.engine.catalogue()
    brought_models = service.models.brought_names if service.models is not None else frozenset()
    await run_by_size(
        size_bytes,
        check_workflow,
        workflow,
        references,
        catalogue=catalogue,
        lock=service.lock,
        brought_models=brought_models,
    )


def _note_of(submission: JobSubmission) -> ComfyNote:
    """Return what is kept of a job; a workflow that may hold a secret is not kept longer than its job runs."""
    workflow = None if holds_secret(submission.workflow) else json.dumps(submission.workflow)
    return ComfyNote(workflow=workflow, labels=submission.labels, had_key=submission.api_key is not None)
