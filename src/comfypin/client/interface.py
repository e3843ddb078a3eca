"""What a server of jobs does for us, and jobs and outputs as frozen values; the words are Runpod's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from comfypin.digest import JsonValue
from comfypin.workflow.document import Document
from comfypin.workflow.overrides import Override

ServerKind = Literal["serve", "runpod", "comfy"]
API_NAMES: Mapping[ServerKind, str] = {
    "serve": "comfypin serve",
    "runpod": "Runpod endpoint",
    "comfy": "Comfy API v2",
}
ENDED_STATES = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """Where a server is: `base_url` is what its paths begin with, `named` what the user wrote (without secrets)."""

    kind: ServerKind
    base_url: str
    named: str

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form."""
        return {"url": self.named, "api": API_NAMES[self.kind]}


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSource:
    """A file for a load node: its path here, or an address that the server fetches."""

    node: str
    name: str
    path: Path | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOrder:
    """What is submitted: a workflow, what to change in it, and its input files."""

    document: Document
    overrides: tuple[Override, ...] = ()
    inputs: tuple[InputSource, ...] = ()
    randomize_seeds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteProgress:
    """How far a job is: a fraction from 0 to 1, the node that runs, and its steps."""

    fraction: float | None = None
    node_id: str | None = None
    node_title: str | None = None
    nodes_done: int | None = None
    nodes_total: int | None = None
    step: int | None = None
    steps: int | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form."""
        return {field_name: getattr(self, field_name) for field_name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOutput:
    """One output of a job: its bytes as base64, an address to fetch it from, or one that only says where it is."""

    filename: str
    subfolder: str = ""
    node: str | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    asset_id: str | None = None
    url: str | None = field(default=None, repr=False)
    uri: str | None = None
    data: str | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form, without the bytes and what is not known."""
        facts: dict[str, JsonValue] = {
            "filename": self.filename,
            "subfolder": self.subfolder or None,
            "node": self.node,
            "media_type": self.media_type,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "url": self.url,
            "uri": self.uri,
        }
        return {field_name: fact for field_name, fact in facts.items() if fact is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteJob:
    """A job as a server describes it. What the server leaves out is None."""

    id: str
    status: str
    workflow: str | None = None
    release: str | None = None
    api: str | None = None
    created_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    position: int | None = None
    estimate_s: float | None = None
    progress: RemoteProgress | None = None
    message: str | None = None
    error_name: str | None = None
    error: str | None = None
    output_count: int | None = None
    warning_count: int | None = None
    outputs: tuple[RemoteOutput, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def has_ended(self) -> bool:
        """Return whether nothing more will happen to it."""
        return self.status in ENDED_STATES

    def summary_json(self) -> dict[str, JsonValue]:
        """Return the summary, in the form of the server's own list of jobs."""
        error: JsonValue = None if self.error is None else {"name": self.error_name, "message": self.error}
        return {
            "id": self.id,
            "status": self.status,
            "workflow": self.workflow,
            "release": self.release,
            "api": self.api,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "position": self.position,
            "estimate_s": self.estimate_s,
            "progress": None if self.progress is None else self.progress.to_json(),
            "error": error,
            "output_count": self.output_count,
            "warnings": self.warning_count,
        }

    def to_json(self) -> dict[str, JsonValue]:
        """Return the summary with the outputs and the texts of the warnings."""
        outputs: list[JsonValue] = [output.to_json() for output in self.outputs]
        return {**self.summary_json(), "outputs": outputs, "warning_texts": list(self.warnings)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteJobFilter:
    """Which jobs to list; `after` is the `next` of the page before."""

    states: tuple[str, ...] = ()
    workflow: str | None = None
    release: str | None = None
    text: str | None = None
    after: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Some jobs of a list, and where the list goes on; None at its end."""

    jobs: tuple[RemoteJob, ...]
    next: str | None = None


@runtime_checkable
class ChangeFeed(Protocol):
    """Reports a job's changes as they happen, so that nobody has to poll."""

    def changes(self, job_id: str, *, within_s: float | None) -> Iterator[RemoteJob] | None:
        """Yield the job whenever it changes, for `within_s` at most; None if this server cannot.

        May end at any time, and without the job's outputs: then the job must be asked for. Raises `RemoteError`.
        """


class JobServer(Protocol):
    """Takes jobs. Every method raises `RemoteError` and `ConfigError` (a token)."""

    @property
    def address(self) -> ServerAddress:
        """Return where the server is."""

    def submit(self, order: JobOrder) -> RemoteJob:
        """Send a job once. Raises `SubmissionUnknown`, `InputsTooLarge`, `WorkflowNotTaken`, `WorkflowError`."""

    def show(self, job_id: str) -> RemoteJob:
        """Return a job as it is now. Raises `JobNotFound`."""

    def list_jobs(self, job_filter: RemoteJobFilter) -> JobPage:
        """Return jobs, newest first; fewer than `limit` if the server gives no more at once. Raises `NotOffered`."""

    def cancel(self, job_id: str) -> RemoteJob:
        """Stop a job; one that has ended stays as it is. Raises `JobNotFound`."""

    def retry(self, job_id: str) -> RemoteJob:
        """Run a job again, under its id or a new one. Raises `JobNotFound`, `NotOffered`."""
