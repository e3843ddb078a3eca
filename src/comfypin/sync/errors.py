"""Failures of syncing a folder: it is missing, its outbox cannot be used, or files are still owed at the end."""

from collections.abc import Sequence

from comfypin.errors import SyncError, declare
from comfypin.plurals import format_count, format_size


@declare
class FolderMissing(SyncError):
    """The folder to be synced does not exist."""

    template = "There is no folder {folder}; make it first, or correct the path."
    folder: str


@declare
class OutboxUnusable(SyncError):
    """The outbox's file cannot be opened or written."""

    template = "The outbox {path} cannot be used: {reason}. It needs a writable local disk; name one with --outbox."
    path: str
    reason: str


@declare
class OutboxOfAnother(SyncError):
    """The outbox belongs to another folder or another destination."""

    template = "The outbox {path} belongs to {recorded}, not to {wanted}. Name another outbox with --outbox."
    path: str
    wanted: str
    recorded: str


@declare
class AlreadySyncing(SyncError):
    """Another syncer holds the outbox."""

    template = "{holder} is syncing this folder already (outbox {path}); stop it first."
    path: str
    holder: str


@declare
class StillOwed(SyncError):
    """The syncer stopped before everything was delivered; the next start continues."""

    template = "{counted} ({size}) not uploaded yet: {listed}. The next start goes on with them."
    files: int
    size_bytes: int
    examples: Sequence[str]

    @property
    def counted(self) -> str:
        return format_count(self.files, "file")

    @property
    def size(self) -> str:
        return format_size(self.size_bytes)

    @property
    def listed(self) -> str:
        return ", ".join(self.examples) + (", ..." if self.files > len(self.examples) else "")
