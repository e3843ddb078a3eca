"""Reads runpod.toml into frozen values: what should exist on Runpod for one release.

docs/runpod.schema.json is made from these.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from comfypin.runpod.errors import DeploymentInvalid
from comfypin.text_encoding import decode_text
from comfypin.validation_words import describe_problem

# A misspelled key that was ignored would cost money before anybody noticed.
_STRICT = ConfigDict(extra="forbid")
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_CUDA_VERSION = r"^\d+\.\d+$"
_MOUNT = r"^/[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$"
# What a text must be, in words, where a pattern says it to machines.
_PATTERN_WORDS: Mapping[str, str] = {
    _NAME: "letters, digits, '.', '_' and '-', of which the first is a letter or a digit",
    _CUDA_VERSION: "a CUDA version such as 12.8, in quotes",
    _MOUNT: "the path of a folder, such as /workspace, without spaces and not / alone",
}
Name = Annotated[str, Field(min_length=1, max_length=60, pattern=_NAME)]
Environment = Mapping[str, str]
CudaVersion = Annotated[str, Field(pattern=_CUDA_VERSION)]
# Fields of Runpod's API that this file has no word for, as JSON; they go along with the request as they are.
ApiFields = Mapping[str, Any]
DEFAULT_POD_MOUNT = "/workspace"


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class RegistryConfig:
    """Credentials of a private image registry; the variables that hold them are named here, never the values."""

    name: Name
    username_env: str
    password_env: str


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class VolumeConfig:
    """A network volume of `size` GB in one data centre. `existing` uses one that is there and never changes it."""

    name: Name
    data_center: str
    size: Annotated[int, Field(ge=10, le=4096)] = 50
    type: str | None = None
    existing: bool = False


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class TemplateConfig:
    """Container settings that endpoints (`kind = "serverless"`) or pods start from. `disk` is in GB.

    `args` is a command line that Runpod splits; `cmd` and `entrypoint` are lists that nobody splits.
    """

    name: Name
    kind: Literal["serverless", "pod"] = "serverless"
    image: str | None = None
    args: str = ""
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    disk: Annotated[int, Field(ge=1)] | None = None
    ports: tuple[str, ...] | None = None
    env: Environment = field(default_factory=dict)
    registry: Name | None = None
    volume_disk: Annotated[int, Field(ge=10)] | None = None
    api_fields: ApiFields = field(default_factory=dict)


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class WorkersConfig:
    """How many workers an endpoint may have, and how long an idle one stays (seconds)."""

    min: Annotated[int, Field(ge=0)] = 0
    max: Annotated[int, Field(ge=0)] = 3
    idle_timeout: Annotated[int, Field(ge=1, le=3600)] = 10


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class ScalingConfig:
    """When another worker starts: a job waits `queue_delay` seconds, or `request_count` jobs a worker are waiting."""

    queue_delay: Annotated[float, Field(ge=0.5)] | None = None
    request_count: Annotated[int, Field(ge=1)] | None = None


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class CpuChoice:
    """A CPU flavor by its id in the CPU catalog, such as `cpu5c`, with a number of vCPUs."""

    id: Annotated[str, Field(min_length=1)]
    vcpus: Annotated[int, Field(ge=2)]


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class EndpointConfig:
    """A serverless endpoint, on GPUs or on CPUs. `timeout` is seconds a job may run.

    `gpu_pools` are ids from the GPU catalog's `pool`; `cuda_versions` are the only ones that a host may have.
    """

    name: Name
    template: Name
    type: Literal["queue", "load-balancer"] = "queue"
    gpu_pools: tuple[str, ...] = ()
    excluded_gpus: tuple[str, ...] = ()
    gpu_count: Annotated[int, Field(ge=1)] = 1
    cpu: tuple[CpuChoice, ...] = ()
    min_cuda: CudaVersion | None = None
    cuda_versions: tuple[CudaVersion, ...] = ()
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    volumes: tuple[Name, ...] = ()
    data_centers: tuple[str, ...] = ()
    timeout: Annotated[int, Field(ge=5, le=604_800)] = 600
    flashboot: Literal["off", "on", "priority"] = "on"
    env: Environment = field(default_factory=dict)
    api_fields: ApiFields = field(default_factory=dict)


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class PodConfig:
    """A pod, on one GPU type or on CPUs; its volume (or volume disk) is mounted at `mount`.

    `min_ram` (GB) and `min_vcpus` are those of the host for each GPU; `stop_after` is seconds from its start.
    """

    name: Name
    template: Name
    gpu: str | None = None
    gpu_count: Annotated[int, Field(ge=1)] = 1
    cpu: CpuChoice | None = None
    cloud: Literal["secure", "community"] = "secure"
    min_cuda: CudaVersion | None = None
    cuda_versions: tuple[CudaVersion, ...] = ()
    min_ram: Annotated[int, Field(ge=1)] | None = None
    min_vcpus: Annotated[int, Field(ge=1)] | None = None
    volume: Name | None = None
    mount: Annotated[str, Field(pattern=_MOUNT)] = DEFAULT_POD_MOUNT
    data_centers: tuple[str, ...] = ()
    global_networking: bool = False
    stop_after: Annotated[int, Field(ge=60)] | None = None
    env: Environment = field(default_factory=dict)
    ssh: bool = False
    api_fields: ApiFields = field(default_factory=dict)


@checked(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Deployment:
    """The whole file. `name` marks what belongs to it; `env` goes to every template, `storage` likewise."""

    name: Name
    release: str
    image: str | None = None
    env: Environment = field(default_factory=dict)
    storage: Environment = field(default_factory=dict)
    registry: tuple[RegistryConfig, ...] = ()
    volume: tuple[VolumeConfig, ...] = ()
    template: tuple[TemplateConfig, ...] = ()
    endpoint: tuple[EndpointConfig, ...] = ()
    pod: tuple[PodConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentFile:
    """One deployment and the path that it was read from."""

    path: Path
    deployment: Deployment


def read_deployment(path: Path) -> DeploymentFile:
    """Read and check the shape of runpod.toml. Raises `DeploymentInvalid` with every finding at once."""
    try:
        document = tomllib.loads(decode_text(path.read_bytes()))
    except OSError as exc:
        reason = exc.strerror or str(exc)
        hint = f"it cannot be read ({reason}); `comfypin runpod init` writes a first one"
        raise DeploymentInvalid(path=str(path), findings=[hint]) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise DeploymentInvalid(path=str(path), findings=[f"it is not TOML: {exc}"]) from exc
    try:
        deployment = TypeAdapter(Deployment).validate_python(document)
    except ValidationError as exc:
        raise DeploymentInvalid(path=str(path), findings=[_finding_sentence(error) for error in exc.errors()]) from exc
    return DeploymentFile(path=path, deployment=deployment)


def deployment_schema() -> dict[str, Any]:
    """Return the JSON Schema of runpod.toml, for editors; docs/runpod.schema.json is these bytes."""
    schema = TypeAdapter(Deployment).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "runpod.toml of comfypin", **schema}


def _finding_sentence(error: Any) -> str:
    field_path = ".".join(str(part) for part in error["loc"])
    given_value = error.get("input")
    shown_value = (
        ""
        if error["type"] == "missing" or isinstance(given_value, dict | list | tuple)
        else f" (it says {given_value!r})"
    )
    return f"{field_path}: {describe_problem(error, _PATTERN_WORDS)}{shown_value}"
