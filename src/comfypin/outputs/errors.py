"""Failures of delivering an output from the engine to its destination."""

from collections.abc import Sequence
from pathlib import Path

from comfypin.errors import OutputError, declare
from comfypin.machine_errors import is_full, reason_of


@declare
class OutputUnreadable(OutputError):
    """Raised if the engine reported a file that cannot be read."""

    template = (
        "Output {filename} of node {node_id} cannot be read from the engine: {reason}. Run the job again; if it "
        "happens again, look at the engine's log."
    )
    filename: str
    node_id: str
    reason: str


@declare
class OutputNotWritten(OutputError):
    """Raised if an output could not be written to this machine's disk; nothing half-written was left."""

    template = (
        "Output {filename} could not be written to {folder}: {reason}; no part of it was left there. {advice}"
        "{delivered_list}"
    )
    filename: str
    folder: Path
    reason: str
    advice: str
    delivered: tuple[str, ...]

    @property
    def delivered_list(self) -> str:
        """Return a sentence with the outputs that were delivered before, if there are any."""
        return f" Already delivered: {', '.join(self.delivered)}." if self.delivered else ""


@declare
class OutputChanged(OutputError):
    """Raised if a file of the engine changed between being hashed and being delivered."""

    template = (
        "Output {filename} changed while it was delivered (sha256 {expected} became {actual}); nothing of it was left. "
        "Another process writes into the engine's output folder: give each engine its own folder."
    )
    filename: str
    expected: str
    actual: str


@declare
class FolderUnusable(OutputError):
    """Raised if the path that outputs should go to cannot take files."""

    template = "{flag} {path} cannot be used: {reason}. {_advice}."
    path: Path
    flag: str
    reason: str
    _advice: str = "Name a folder that can be written to"


@declare
class NothingToWrite(OutputError):
    """Raised if a file was asked for, and the workflow left none."""

    template = "Nothing was written to {path}: the workflow saves no file ({what_it_left}). Add a SaveImage node."
    path: Path
    temporary: int

    @property
    def what_it_left(self) -> str:
        """Return how many temporary outputs there are, and the flag that delivers them."""
        return (
            f"it left {self.temporary} temporary ones, which --previews delivers" if self.temporary else "it left none"
        )


def not_written(error: OSError, *, filename: str, folder: Path, delivered: tuple[str, ...] = ()) -> OutputNotWritten:
    """Return the failure for an `OSError` of a write: it says if the disk is full, and what to do."""
    advice = (
        "Free some space there, or choose another place." if is_full(error) else "Check that this user may write there."
    )
    return OutputNotWritten(
        filename=filename,
        folder=folder,
        reason=reason_of(error) if is_full(error) else reason_without_path(error),
        advice=advice,
        delivered=delivered,
    )


def reason_without_path(error: OSError) -> str:
    """Return what the system says, without the path: in a job's result it would be a path of the server."""
    return (error.strerror or "input or output error").lower()


class InlineTooBig(OutputError):
    """Raised if the outputs as base64 do not fit into the result, and no bucket is set to take them."""

    def __init__(self, *, limit_bytes: int, needed_bytes: int, sizes: Sequence[tuple[str, int]]) -> None:
        listed = ", ".join(f"{file_name} ({size} bytes)" for file_name, size in sizes)
        super().__init__(
            f"The outputs take {needed_bytes} bytes as base64, and INLINE_MAX_BYTES is {limit_bytes}: {listed}. "
            "Set GCS_BUCKET, S3_BUCKET or AZURE_CONTAINER to have such outputs delivered there, or deliver them as "
            "files.",
            limit_bytes=limit_bytes,
            needed_bytes=needed_bytes,
            sizes=dict(sizes),
        )
