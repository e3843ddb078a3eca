"""Failures of bringing an output from the engine to where it was asked for."""

from collections.abc import Sequence
from pathlib import Path

from comfypin.errors import OutputError
from comfypin.machine_errors import is_full, reason_of


class OutputUnreadable(OutputError):
    """The engine reported a file that cannot be read."""

    def __init__(self, *, filename: str, node_id: str, reason: str) -> None:
        super().__init__(
            f"Output {filename} of node {node_id} cannot be read from the engine: {reason}. "
            "Run the job again; if it stays so, look at the engine's log.",
            filename=filename,
            node_id=node_id,
            reason=reason,
        )


class OutputNotWritten(OutputError):
    """An output could not be written to this machine's disk; nothing half-written was left."""

    def __init__(self, *, filename: str, folder: Path, reason: str, advice: str, delivered: tuple[str, ...]) -> None:
        already = f" Already delivered: {', '.join(delivered)}." if delivered else ""
        super().__init__(
            f"Output {filename} could not be written to {folder}: {reason}; no part of it was left there. "
            f"{advice}{already}",
            filename=filename,
            folder=str(folder),
            reason=reason,
            delivered=list(delivered),
        )


class OutputChanged(OutputError):
    """A file of the engine changed between being hashed and being delivered."""

    def __init__(self, *, filename: str, expected: str, actual: str) -> None:
        super().__init__(
            f"Output {filename} changed while it was delivered (sha256 {expected} became {actual}); nothing was left "
            "of it. Something else writes into the engine's output folder: give each engine a folder of its own.",
            filename=filename,
            expected=expected,
            actual=actual,
        )


class FolderUnusable(OutputError):
    """The place that outputs should go to cannot take files."""

    def __init__(self, *, path: Path, flag: str, reason: str) -> None:
        super().__init__(
            f"{flag} {path} cannot be used: {reason}. Name a folder that can be written to.",
            path=str(path),
            flag=flag,
            reason=reason,
        )


class NothingToWrite(OutputError):
    """A file was asked for, and the workflow left none."""

    def __init__(self, *, path: Path, temporary: int) -> None:
        held_back = f"it left {temporary} temporary ones, which --previews delivers" if temporary else "it left none"
        super().__init__(
            f"Nothing was written to {path}: the workflow saves no file ({held_back}). Add a SaveImage node.",
            path=str(path),
            temporary=temporary,
        )


def not_written(error: OSError, *, filename: str, folder: Path, delivered: tuple[str, ...] = ()) -> OutputNotWritten:
    """The failure for an `OSError` of a write: says when the disk is full, and what to do."""
    advice = "Check that this user may write there."
    if is_full(error):
        advice = "Free some space there, or choose another place."
    return OutputNotWritten(
        filename=filename,
        folder=folder,
        reason=reason_of(error),
        advice=advice,
        delivered=delivered,
    )


class InlineTooBig(OutputError):
    """The outputs as base64 would not fit into the result, and there is no bucket to take them."""

    def __init__(self, *, limit_bytes: int, needed_bytes: int, sizes: Sequence[tuple[str, int]]) -> None:
        listed = ", ".join(f"{name} ({size} bytes)" for name, size in sizes)
        super().__init__(
            f"The outputs take {needed_bytes} bytes as base64, and INLINE_MAX_BYTES is {limit_bytes}: {listed}. "
            "Set GCS_BUCKET, S3_BUCKET or AZURE_CONTAINER to have such outputs delivered there, or deliver them as "
            "files.",
            limit_bytes=limit_bytes,
            needed_bytes=needed_bytes,
            sizes=dict(sizes),
        )
