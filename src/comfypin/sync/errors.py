"""Failures of syncing a folder: it is not there, the outbox cannot be used, or something is still owed at the end."""

from collections.abc import Sequence

from comfypin.errors import SyncError


class FolderMissing(SyncError):
    """The folder to be synced is not there."""

    def __init__(self, *, folder: str) -> None:
        super().__init__(f"There is no folder {folder}; make it first, or correct the path.", folder=folder)


class OutboxUnusable(SyncError):
    """The outbox's file cannot be opened or written."""

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(
            f"The outbox {path} cannot be used: {reason}. It needs a writable local disk; name one with --outbox.",
            path=path,
            reason=reason,
        )


class OutboxOfAnother(SyncError):
    """The outbox belongs to another folder or another destination."""

    def __init__(self, *, path: str, wanted: str, recorded: str) -> None:
        super().__init__(
            f"The outbox {path} belongs to {recorded}, not to {wanted}; give each pair an outbox of its own.",
            path=path,
            wanted=wanted,
            recorded=recorded,
        )


class AlreadySyncing(SyncError):
    """Another syncer holds the outbox."""

    def __init__(self, *, path: str, holder: str) -> None:
        super().__init__(f"{holder} is syncing this folder already (outbox {path}); stop it first.", path=path)


class StillOwed(SyncError):
    """The syncer stopped before everything was delivered; the next start goes on."""

    def __init__(self, *, files: int, size_bytes: int, examples: Sequence[str]) -> None:
        shown = ", ".join(examples) + (", ..." if files > len(examples) else "")
        super().__init__(
            f"{files} files ({size_bytes / 1e6:.1f} MB) are still owed: {shown}. The next start goes on with them.",
            files=files,
            size_bytes=size_bytes,
        )
