"""The interface of every output sink: one method, and the values that cross it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from comfypin.atomic_files import FileStamp
from comfypin.digest import Digest
from comfypin.lock.model import Release
from comfypin.workflow.graph import NodeId

OutputKind = Literal["image", "video", "audio", "3d", "text", "latent", "file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file that a prompt produced, spooled on this machine and hashed.

    `filename` is the name the user chose, without our per-job prefix; `subfolder` likewise, relative, with `/`. `width`
    and `height` are pixels, for pictures; `index` counts the job's outputs from 0. `stamp` is the file's stamp when it
    was hashed, if the file system gives reliable ones. `reported_as` is the list that its node reported it in.
    """

    index: int
    node_id: NodeId
    kind: OutputKind
    filename: str
    subfolder: str
    media_type: str
    size_bytes: int
    sha256: Digest
    path: Path
    temporary: bool = False
    width: int | None = None
    height: int | None = None
    stamp: FileStamp | None = None
    reported_as: str = ""

    @property
    def is_also_image(self) -> bool:
        """Return whether a node reported another kind of file among its images, as SaveVideo does."""
        return self.reported_as == "images" and self.kind != "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Where an output is now: `uri` (path, gs://, s3://), a URL a browser can open, or the bytes as base64."""

    output: Output
    uri: str | None = None
    url: str | None = None
    data_base64: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What a sink may write into names and manifests: the job's id, release, inputs, and seconds of its phases.

    `models` are those that the job brought, by their paths below the models folder.
    """

    job_id: str
    release: Release
    inputs: Mapping[str, Digest] = field(default_factory=dict)
    models: Mapping[str, Digest] = field(default_factory=dict)
    phase_s: Mapping[str, float] = field(default_factory=dict)


class OutputSink(Protocol):
    """Receives all outputs of one job. What it returns is delivered; raises `OutputError` or `StorageError`."""

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        """Deliver all outputs, in order, repeatably: the same job and bytes give the same places."""
