"""Defines how a folder is synced."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from comfypin.retry import RetryPolicy
from comfypin.sync.delivery_log import DeliveryLog
from comfypin.sync.key_names import FileFilter
from comfypin.sync.outbox_row import OutboxRow

OnChange = Literal["overwrite", "version", "ignore"]
# Without end: what is owed stays owed.
SYNC_RETRIES = RetryPolicy(retries=None, base_s=0.4, longest_s=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions:
    """Says how a folder is synced. Times in seconds, `bytes_per_s` for all uploads together."""

    filter: FileFilter = field(default_factory=FileFilter)
    settle_s: float = 2.0
    on_change: OnChange = "overwrite"
    delete_after: bool = False
    once: bool = False
    workers: int = 8
    bytes_per_s: float | None = None
    grace_s: float = 10.0
    poll_s: float = 5.0
    retry_policy: RetryPolicy = SYNC_RETRIES
    manifest: DeliveryLog | None = None
    # Hears of every piece that is sent, from the threads that upload.
    on_bytes: Callable[[OutboxRow, int], None] | None = None
