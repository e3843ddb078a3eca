"""Defines what a syncer reports to its caller."""

from dataclasses import dataclass

from comfypin.sync.folder_watch import SyncNotice
from comfypin.sync.outbox_row import OutboxRow


@dataclass(frozen=True, slots=True)
class Delivered:
    """Reports that a file is in the store; `sent` is False if it was there already."""

    row: OutboxRow
    sent: bool


@dataclass(frozen=True, slots=True)
class UploadFailed:
    """Reports a failed upload that will be tried again in `wait_s` seconds."""

    row: OutboxRow
    wait_s: float


@dataclass(frozen=True, slots=True)
class WatchStarted:
    """Reports the end of the first scan; from here on no change in the folder is missed."""

    found: int


SyncEvent = Delivered | UploadFailed | SyncNotice | WatchStarted
