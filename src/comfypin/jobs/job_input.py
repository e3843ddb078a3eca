"""The JSON input of a job: one model and one JSON Schema for the worker and for HTTP.

A superset of worker-comfyui's input (`workflow`, `images`), so that what its users send today works unchanged.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from comfypin.jobs.errors import JobInvalid
from comfypin.outputs.modes import OUTPUT_MODES, OutputMode
from comfypin.storage.registry import SCHEMES
from comfypin.validation_words import describe_problem

# Far above what workflows read; each may be a request to somebody's server.
MAX_INPUTS = 64
_ELSEWHERE = {
    "webhook_events": "webhook_events was ignored: it stands beside `input` and `webhook` in a job for comfypin serve; "
    "Runpod's own webhook is told of a job's end only, and its progress is at /stream and /status."
}
# Each may be gigabytes; a workflow with more LoRAs than this belongs into the lock.
MAX_MODELS = 16
_FILE_NAME = r"^[^\x00-\x1f\\]{1,200}$"

_BUCKET_SCHEMES = "|".join(SCHEMES)
_INPUT_ADDRESS = rf"^(https?|{_BUCKET_SCHEMES})://"
_ASSET_HASH = r"^blake3:[0-9a-f]{64}$"
_MODEL_SOURCE = r"^[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\x00-\x20]+$"
_SHA256 = r"^[0-9a-fA-F]{64}$"
_WORKFLOW_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_MODE = f"^({'|'.join(OUTPUT_MODES)})$"
_Mode = Annotated[OutputMode, Field(pattern=_MODE, json_schema_extra={"enum": list(OUTPUT_MODES)})]
# What a text must be, in words, where a pattern says it to machines.
_PATTERN_WORDS: Mapping[str, str] = {
    _FILE_NAME: "a file name of 1 to 200 characters without backslashes or control characters",
    _INPUT_ADDRESS: f"an address that begins with https://, http://, {', '.join(f'{scheme}://' for scheme in SCHEMES)}",
    _ASSET_HASH: "the hash of an asset: blake3: and 64 hex digits",
    _MODEL_SOURCE: "an address without spaces, such as https://..., hf://org/repo/path or s3://bucket/key",
    _SHA256: "64 hex digits",
    _WORKFLOW_NAME: "the name of a workflow: 1 to 100 letters, digits, '.', '_' or '-', of which the first is a letter "
    "or a digit",
    _MODE: f"one of {', '.join(OUTPUT_MODES)}",
}


class _JobModel(BaseModel):
    # Unknown fields are only warned of, so that a newer client can use an older worker.
    model_config = ConfigDict(extra="allow", frozen=True)


class ImageInput(_JobModel):
    """An input file as worker-comfyui takes it: the name that a load node says, and its bytes."""

    name: Annotated[str, Field(pattern=_FILE_NAME, description="The file name that a load node of the workflow names.")]
    image: Annotated[str, Field(min_length=1, description="Base64, a data URI, or an address as in inputs[].url.")]


class MediaInput(_JobModel):
    """An input file of any kind: its bytes as base64 or a data URI, or an address to fetch it from."""

    name: Annotated[str, Field(pattern=_FILE_NAME, description="The file name that a load node of the workflow names.")]
    data: Annotated[str | None, Field(description="Base64, a data URI, or an address as in url.")] = None
    url: Annotated[
        str | None,
        Field(
            pattern=_INPUT_ADDRESS,
            description="https://, or an object's address like s3://bucket/key.",
        ),
    ] = None
    asset: Annotated[
        str | None,
        Field(
            pattern=_ASSET_HASH,
            description="The hash of an asset that was uploaded to the same comfypin serve (/api/v2/assets).",
        ),
    ] = None
    node: Annotated[
        str | None, Field(description="Point this load node (id, title or class) at the file, whatever it names.")
    ] = None


class ModelWish(_JobModel):
    """A model that the job brings, if this server lets jobs do that: its source, its sha256, or both."""

    source: Annotated[
        str | None,
        Field(
            pattern=_MODEL_SOURCE,
            max_length=4000,
            description="https://, hf://org/repo@revision/path, civitai://version, or an object's: s3://bucket/key.",
        ),
    ] = None
    sha256: Annotated[
        str | None,
        Field(
            pattern=_SHA256,
            description="What the file must have. Without `source`, the server's store must hold it.",
        ),
    ] = None
    folder: Annotated[
        str, Field(min_length=1, max_length=500, description="ComfyUI's folder: loras, checkpoints, vae, ...")
    ]
    filename: Annotated[
        str | None,
        Field(min_length=1, max_length=200, description="The name in that folder; by default the source's own."),
    ] = None


class OutputWish(_JobModel):
    """Where the job's outputs go and how they are named."""

    mode: Annotated[_Mode | None, Field(description="file: the disk of comfypin serve.")] = None
    template: Annotated[
        str | None, Field(max_length=500, description="The key template, as OUTPUT_KEY_TEMPLATE (docs/storage.md).")
    ] = None
    format: Literal["png", "jpeg", "webp"] | None = None
    quality: Annotated[int | None, Field(ge=1, le=100)] = None
    keep_workflow: bool | None = None
    previews: Annotated[bool, Field(description="Deliver temporary outputs (PreviewImage) too.")] = False


class S3Wish(_JobModel):
    """A bucket of the job's own, as Runpod's `s3Config` names it."""

    accessId: Annotated[str, Field(min_length=1)]
    accessSecret: Annotated[str, Field(min_length=1)]
    bucketName: Annotated[str, Field(min_length=1)]
    endpointUrl: Annotated[str, Field(min_length=1)]


class JobInput(_JobModel):
    """One request for a workflow to run. Fields that are not named here are ignored, with a warning in the result."""

    workflow: Annotated[
        dict[str, Any] | None,
        Field(description="The workflow, as ComfyUI saves it or in API format; {} is the smoke test."),
    ] = None
    workflow_name: Annotated[str | None, Field(pattern=_WORKFLOW_NAME, description="A workflow of the image.")] = None
    title: Annotated[
        str | None, Field(max_length=200, description="How lists call a job whose workflow is not one of the image.")
    ] = None
    images: Annotated[tuple[ImageInput, ...], Field(max_length=MAX_INPUTS)] = ()
    inputs: Annotated[tuple[MediaInput, ...], Field(max_length=MAX_INPUTS)] = ()
    models: Annotated[tuple[ModelWish, ...], Field(max_length=MAX_MODELS)] = ()
    set: Annotated[
        dict[str, Any],
        Field(description='Inputs to change: {"6.text": "a cat", "KSampler.seed": "random"}.'),
    ] = {}
    randomize_seeds: bool = False
    release: Annotated[str | None, Field(description="Refuse the job unless the worker runs this release.")] = None
    output: OutputWish = OutputWish()
    timeout_s: Annotated[float | None, Field(gt=0, le=604_800)] = None
    s3_config: Annotated[S3Wish | None, Field(validation_alias=AliasChoices("s3Config", "s3_config"))] = None
    comfy_org_api_key: Annotated[str | None, Field(description="For ComfyUI's API nodes; in no log and no result.")] = (
        None
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, job_document: Any) -> Any:
        """Clients write `"images": null` for what they do not send, as worker-comfyui lets them."""
        if not isinstance(job_document, dict):
            return job_document
        return {field_name: field_value for field_name, field_value in job_document.items() if field_value is not None}


def parse_job_input(job_document: object) -> tuple[JobInput, list[str]]:
    """Read a job's input; returns it with a warning for every field that is not known.

    Raises `JobInvalid` with every finding at once; no value of the input is repeated in it.
    """
    if isinstance(job_document, str):
        job_document = _parse_text(job_document)
    if not isinstance(job_document, dict):
        raise JobInvalid(
            findings=[f"input: it is {_describe_type(job_document)}; it must be an object with a workflow"]
        )
    try:
        job = JobInput.model_validate(job_document)
    except ValidationError as exc:
        # Without the input in it: that may hold secrets and megabytes.
        raise JobInvalid(
            findings=[_finding_sentence(validation_error) for validation_error in exc.errors(include_input=False)]
        ) from exc
    # Only of an input that is sound in itself: conflicts of unreadable fields would be noise.
    findings = [*_find_conflicts(job)]
    if findings:
        raise JobInvalid(findings=findings)
    return job, list(_warn_of_unknown(job, ""))


def parse_model_wish(document: object) -> ModelWish:
    """Read one model as POST /models takes it. Raises `JobInvalid` with every finding at once."""
    if not isinstance(document, dict):
        raise JobInvalid(findings=[f"it is {_describe_type(document)}, and must be an object with a model's `source`"])
    try:
        model = ModelWish.model_validate(
            {field_name: value for field_name, value in document.items() if value is not None}
        )
    except ValidationError as exc:
        raise JobInvalid(findings=[_finding_sentence(error) for error in exc.errors(include_input=False)]) from exc
    findings = _find_model_conflicts(model, "")
    if findings:
        raise JobInvalid(findings=findings)
    return model


def input_of_platform_job(platform_job: Mapping[str, Any]) -> object:
    """Return the input of a platform's job, with the `s3Config` that Runpod puts beside it."""
    job_document = platform_job.get("input")
    if isinstance(job_document, dict) and "s3Config" in platform_job and "s3Config" not in job_document:
        return {**job_document, "s3Config": platform_job["s3Config"]}
    return job_document


def job_input_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job's input; docs/job.schema.json is these bytes."""
    schema = JobInput.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A job's input", **schema}


def _parse_text(json_text: str) -> object:
    import json

    try:
        return json.loads(json_text)
    except (ValueError, RecursionError):
        # From None: the cause would quote the text, which may hold secrets.
        raise JobInvalid(findings=["input: it is a text that is not JSON"]) from None


def _find_conflicts(job: JobInput) -> list[str]:
    findings = []
    # True if neither is given, and if both are.
    if (job.workflow is None) == (job.workflow_name is None):
        findings.append("workflow: give either `workflow` or `workflow_name`")
    for index, media_input in enumerate(job.inputs):
        if sum(source is not None for source in (media_input.data, media_input.url, media_input.asset)) != 1:
            findings.append(f"inputs.{index}: give one of `data`, `url` and `asset`")
    for index, model in enumerate(job.models):
        findings += _find_model_conflicts(model, f"models.{index}.")
    # Both lists end in one folder, so a name must be unique over both.
    names = [*(image.name for image in job.images), *(media_input.name for media_input in job.inputs)]
    findings += [
        f"inputs: the name {repeated!r} is used twice; name each file differently"
        for repeated in sorted({given_name for given_name in names if names.count(given_name) > 1})
    ]
    return findings


def _find_model_conflicts(model: ModelWish, prefix: str) -> list[str]:
    if model.source is None and model.sha256 is None:
        return [f"{prefix}source: give a `source`, a `sha256`, or both"]
    if model.source is None and model.filename is None:
        return [f"{prefix}filename: it must be given if there is no `source`"]
    return []


def _warn_of_unknown(job_model: BaseModel, prefix: str) -> list[str]:
    warnings = [
        _ELSEWHERE.get(f"{prefix}{field_name}", f"The field {prefix}{field_name} is unknown and was ignored.")
        for field_name in job_model.model_extra or {}
    ]
    for field_name in type(job_model).model_fields:
        field_value = getattr(job_model, field_name)
        if isinstance(field_value, BaseModel):
            warnings += _warn_of_unknown(field_value, f"{prefix}{field_name}.")
        elif isinstance(field_value, tuple):
            for index, media_input in enumerate(field_value):
                if isinstance(media_input, BaseModel):
                    warnings += _warn_of_unknown(media_input, f"{prefix}{field_name}.{index}.")
    return warnings


def _finding_sentence(validation_error: Any) -> str:
    prefix = ".".join(str(step) for step in validation_error["loc"]) or "input"
    return f"{prefix}: {describe_problem(validation_error, _PATTERN_WORDS)}"


def _describe_type(field_value: object) -> str:
    return {type(None): "nothing", list: "a list", str: "a text", bool: "a boolean"}.get(type(field_value), "a number")
