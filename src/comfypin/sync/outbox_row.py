"""Defines one file's row in the outbox, and the counts of a status."""

from dataclasses import dataclass
from typing import Literal

from comfypin.digest import Digest
from comfypin.sync.folder_scan import Fingerprint

RowState = Literal["owed", "done", "gone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """Describes one file's latest revision: its content, its key, and whether it is delivered.

    `doubtful` rows may be in the bucket already (the outbox that knew was lost): one HEAD decides. Times are seconds of
    the wall clock, for people; nothing is decided by them.
    """

    path: str
    key: str
    revision: int
    fingerprint: Fingerprint
    sha256: Digest
    state: RowState = "owed"
    doubtful: bool = False
    failures: int = 0
    reason: str | None = None
    owed_at: float = 0.0
    done_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxCounts:
    """Holds what `sync status` prints: counts, bytes owed, the oldest debt's age and the last five minutes' rate."""

    owed: int
    owed_bytes: int
    failing: int
    done: int
    gone: int
    oldest_owed_at: float | None
    recent_files: int
    recent_bytes: int
