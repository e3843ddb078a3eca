"""The seam to programs that build and push images, and the values that cross it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

Bake: TypeAlias = Literal["env", "env+models", "nothing"]
Report: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """Describes one image to build from a context folder.

    `secrets` are in the builders' own syntax (`id=ca,src=/path`, `id=HF_TOKEN,env=HF_TOKEN`): they never enter a layer.
    """

    context: Path
    tags: tuple[str, ...]
    arguments: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    platform: str | None = None
    network: str | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """Describes an image on this machine: its id, its layers' digests from the base up, its size in bytes, its
    labels.
    """

    image_id: str
    layers: tuple[str, ...]
    size_bytes: int
    labels: Mapping[str, str] = field(default_factory=dict)


class ContainerBuilder(Protocol):
    """Builds images and pushes them."""

    @property
    def name(self) -> str:
        """Return the builder's name for people."""

    def build(self, request: BuildRequest, report: Report) -> BuiltImage:
        """Build, reporting every line of output. Raises `BuildFailed`."""

    def inspect(self, image_tag: str) -> BuiltImage:
        """Return the image that has a tag on this machine. Raises `NoSuchImage`."""

    def free_bytes(self) -> int | None:
        """Return the free space where images are built, or None if that is not on this machine."""

    def push(self, image_tag: str, reference: str, credentials: Path | None, report: Report) -> str:
        """Push an image under a reference and return its digest; once, without trying again.

        `credentials` is a folder with a `config.json` as docker writes it. Raises `NoSuchImage`, `PushFailed`.
        """

    def read_file(self, image_tag: str, file_path: str) -> bytes | None:
        """Return a file of an image, None if the image has no such file. Raises `NoSuchImage`."""

    def save(self, image_tag: str, archive_path: Path) -> None:
        """Write an image to a file, as `docker save` does. Raises `NoSuchImage`."""


def request_arguments(request: BuildRequest) -> list[str]:
    """Return the flags of a build that docker, buildah and podman share."""
    flag_values = {"--platform": request.platform, "--network": request.network}
    build_arguments = [
        argument
        for flag_name, flag_value in flag_values.items()
        if flag_value is not None
        for argument in (flag_name, flag_value)
    ]
    build_arguments += ["--no-cache"] if request.fresh else []
    for image_tag in request.tags:
        build_arguments += ["--tag", image_tag]
    for argument_name, flag_value in request.arguments.items():
        build_arguments += ["--build-arg", f"{argument_name}={flag_value}"]
    for build_secret in request.secrets:
        build_arguments += ["--secret", build_secret]
    return build_arguments
