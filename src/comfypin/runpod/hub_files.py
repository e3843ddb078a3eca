"""The two files by which a repository is published in Runpod's Hub, as frozen values: hub.json and tests.json.

Fields and values are those of https://docs.runpod.io/hub/publishing-guide (August 2026).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass as checked

from comfypin.runpod.errors import HubInvalid
from comfypin.validation_words import describe_problem

# The Hub ignores a field that it does not know, so a misspelled one would be missed by nobody but users.
_STRICT = ConfigDict(extra="forbid")
Category = Literal["audio", "embedding", "language", "video", "image"]
CATEGORIES: tuple[Category, ...] = ("audio", "embedding", "language", "video", "image")
Text = Annotated[str, Field(min_length=1)]
_CUDA_VERSION, _VARIABLE, _WEB_ADDRESS = r"^\d+\.\d+$", r"^[A-Za-z_][A-Za-z0-9_]*$", r"^https?://"
# What a text must be, in words, where a pattern says it to machines.
_PATTERN_WORDS: Mapping[str, str] = {
    _CUDA_VERSION: "a CUDA version such as 12.8",
    _VARIABLE: "the name of a variable: letters, digits and '_', no digit first",
    _WEB_ADDRESS: "an address that begins with https:// or http://",
}
CudaVersion = Annotated[str, Field(pattern=_CUDA_VERSION)]
VariableName = Annotated[str, Field(pattern=_VARIABLE)]


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class InputOption:
    """One choice of an option input."""

    label: Text
    value: str


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class VariableInput:
    """A field in which whoever deploys the listing gives a variable's value."""

    name: Text
    type: Literal["string", "number", "boolean", "huggingface"]
    description: str = ""
    default: str | float | bool | None = None
    required: bool | None = None
    advanced: bool | None = None
    options: tuple[InputOption, ...] | None = None
    min: float | None = None
    max: float | None = None
    trueValue: str | None = None
    falseValue: str | None = None


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class HubVariable:
    """A variable of the listing: a value, or an input that asks for one."""

    key: VariableName
    value: str | None = None
    input: VariableInput | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.value is None) == (self.input is None):
            raise ValueError("a variable has a value or an input, and not both")
        return self


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Preset:
    """A group of defaults that is offered in a menu."""

    name: Text
    defaults: Mapping[VariableName, str | float | bool]


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class HubConfig:
    """What the listing runs on, and its variables."""

    runsOn: Literal["GPU", "CPU"]
    containerDiskInGb: Annotated[int, Field(ge=1)]
    endpointType: Literal["LB"] | None = None
    cpuFlavor: str | None = None
    gpuCount: Annotated[int, Field(ge=1)] | None = None
    gpuIds: str | None = None
    allowedCudaVersions: tuple[CudaVersion, ...] | None = None
    env: tuple[HubVariable, ...] | None = None
    presets: tuple[Preset, ...] | None = None

    @model_validator(mode="after")
    def _names_its_machine(self) -> Self:
        if self.runsOn == "GPU" and (self.gpuCount is None or not self.gpuIds):
            raise ValueError("a listing that runs on GPUs needs gpuCount and gpuIds")
        if self.runsOn == "CPU" and not self.cpuFlavor:
            raise ValueError("a listing that runs on CPUs needs cpuFlavor")
        return self


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class HubListing:
    """hub.json: how a listing looks and what it is deployed on."""

    title: Text
    description: Text
    type: Literal["serverless"]
    category: Category
    config: HubConfig
    iconUrl: Annotated[str, Field(pattern=_WEB_ADDRESS)] | None = None


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class HubTest:
    """A job that a release of the repository must do; `timeout` is in milliseconds."""

    name: Text
    input: Mapping[str, JsonValue]
    timeout: Annotated[int, Field(ge=1)] | None = None


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class WorkerVariable:
    """A variable of the tests' worker."""

    key: VariableName
    value: str


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class TestbedConfig:
    """What the tests run on."""

    gpuTypeId: str | None = None
    gpuCount: Annotated[int, Field(ge=1)] | None = None
    cpuFlavor: str | None = None
    env: tuple[WorkerVariable, ...] | None = None
    allowedCudaVersions: tuple[CudaVersion, ...] | None = None

    @model_validator(mode="after")
    def _names_its_machine(self) -> Self:
        if bool(self.gpuTypeId) == bool(self.cpuFlavor):
            raise ValueError("tests run on a gpuTypeId or on a cpuFlavor, and not on both")
        return self


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class HubTests:
    """tests.json: the jobs that the Hub runs before it publishes a release."""

    tests: Annotated[tuple[HubTest, ...], Field(min_length=1)]
    config: TestbedConfig


_FILES: Mapping[str, TypeAdapter[Any]] = {
    "hub.json": TypeAdapter(HubListing),
    "tests.json": TypeAdapter(HubTests),
}


def check_hub_file(path: Path, content: bytes) -> None:
    """Check one of the two files by the documented fields. Raises `HubInvalid` with every finding at once."""
    try:
        document = json.loads(content)
        _FILES[path.name].validate_python(document)
    except ValidationError as exc:
        raise HubInvalid(path=str(path), findings=[_finding_sentence(error) for error in exc.errors()]) from exc
    except ValueError as exc:
        raise HubInvalid(path=str(path), findings=[f"it is not JSON: {exc}"]) from exc


def _finding_sentence(error: Any) -> str:
    field_path = ".".join(str(part) for part in error["loc"])
    unknown = error["type"] in ("unexpected_keyword_argument", "extra_forbidden")
    message = "the Hub does not know this field" if unknown else describe_problem(error, _PATTERN_WORDS)
    return f"{field_path}: {message}" if field_path else message
