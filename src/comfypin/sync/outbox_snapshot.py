"""Keeps a copy of the outbox on a volume, replaced by a rename, so that the next pod knows what is done and owed.

SQLite itself must not be on a network file system (its write-ahead log needs shared memory, its locks need flock). The
copy may be a little older than the outbox: what it does not know yet is hashed again, and at worst sent again.
"""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from comfypin.atomic_files import atomic_file
from comfypin.digest import Digest
from comfypin.sync.errors import OutboxUnusable
from comfypin.sync.folder_scan import Fingerprint
from comfypin.sync.outbox_row import OutboxRow

# A network volume is slow; this bounds what a lost pod forgets.
_AT_LEAST_EVERY_S = 5.0
_COST_SHARE = 100  # a copy that takes t seconds is made at most every 100 t


class OutboxSnapshot:
    """Keeps the copy at `path` up to date; `write_if_due` is cheap to call and writes only when it is due."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._next_s = 0.0
        self._changed = False

    def note_change(self) -> None:
        """Note that something was recorded, so the copy is stale."""
        self._changed = True

    def write_if_due(self, read_rows: Callable[[], Iterable[OutboxRow]], *, now: bool = False) -> float | None:
        """Write the copy if it is stale and due, or now. Raises `OutboxUnusable`.

        Returns when it is due (monotonic seconds), or None while it is up to date.
        """
        started_s = self._clock()
        if not self._changed:
            return None
        if started_s < self._next_s and not now:
            return self._next_s
        try:
            with atomic_file(self._path) as snapshot_file:
                for outbox_row in read_rows():
                    snapshot_file.write(_render_row(outbox_row))
        except OSError as error:
            self._next_s = self._clock() + _AT_LEAST_EVERY_S
            raise OutboxUnusable(path=str(self._path), reason=error.strerror or str(error)) from error
        self._changed = False
        ended_s = self._clock()
        self._next_s = ended_s + max(_AT_LEAST_EVERY_S, (ended_s - started_s) * _COST_SHARE)
        return None


def load_snapshot(snapshot_path: Path) -> list[OutboxRow]:
    """Return the rows of a copy; none if there is no copy yet. Raises `OutboxUnusable`."""
    try:
        with snapshot_path.open("rb") as snapshot_file:
            return [_parse_row(row_line) for row_line in snapshot_file]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutboxUnusable(path=str(snapshot_path), reason=f"it is not a copy of an outbox ({error})") from error


def _render_row(outbox_row: OutboxRow) -> bytes:
    fingerprint = outbox_row.fingerprint
    row_values = {
        "path": outbox_row.path,
        "key": outbox_row.key,
        "revision": outbox_row.revision,
        "mark": [fingerprint.size, fingerprint.mtime_ns, fingerprint.inode],
        "sha256": outbox_row.sha256.hex,
        "state": outbox_row.state,
        "failures": outbox_row.failures,
        "reason": outbox_row.reason,
        "owed_at": outbox_row.owed_at,
        "done_at": outbox_row.done_at,
    }
    # ASCII keeps the bytes of names that are not valid text, as \udcXX escapes.
    return json.dumps(row_values, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _parse_row(row_line: bytes) -> OutboxRow:
    row_values = json.loads(row_line)
    size_bytes, mtime_ns, inode = row_values["mark"]
    return OutboxRow(
        path=row_values["path"],
        key=row_values["key"],
        revision=row_values["revision"],
        fingerprint=Fingerprint(size_bytes, mtime_ns, inode),
        sha256=Digest(row_values["sha256"]),
        state=row_values["state"],
        # What was owed may have been delivered after the copy was made.
        doubtful=row_values["state"] == "owed",
        failures=row_values["failures"],
        reason=row_values["reason"],
        owed_at=row_values["owed_at"],
        done_at=row_values["done_at"],
    )
