"""Keeps a copy of the outbox on a volume, replaced by a rename, so that the next pod knows what is done and owed.

SQLite itself must not be on a network file system (its write-ahead log needs shared memory, its locks need flock). The
copy may be a little older than the outbox: what it does not know yet is hashed again, and sent again at worst.
"""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from comfypin.atomic_files import atomic_file
from comfypin.digest import Digest
from comfypin.sync.errors import OutboxUnusable
from comfypin.sync.outbox_row import OutboxRow
from comfypin.sync.scan import Fingerprint

# A network volume is slow; this bounds what a lost pod forgets.
_AT_LEAST_EVERY_S = 5.0
_COST_SHARE = 100  # a copy that takes t seconds is made every 100 t at most


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

    def write_if_due(self, rows: Callable[[], Iterable[OutboxRow]], *, now: bool = False) -> float | None:
        """Write the copy if it is stale and due, or now. Raises `OutboxUnusable`.

        Returns when it is due (monotonic seconds), or None while it is up to date.
        """
        start = self._clock()
        if not self._changed:
            return None
        if start < self._next_s and not now:
            return self._next_s
        try:
            with atomic_file(self._path) as file:
                for row in rows():
                    file.write(_render_row(row))
        except OSError as exc:
            self._next_s = self._clock() + _AT_LEAST_EVERY_S
            raise OutboxUnusable(path=str(self._path), reason=exc.strerror or str(exc)) from exc
        self._changed = False
        end = self._clock()
        self._next_s = end + max(_AT_LEAST_EVERY_S, (end - start) * _COST_SHARE)
        return None


def load_snapshot(path: Path) -> list[OutboxRow]:
    """Return the rows of a copy; none if there is no copy yet. Raises `OutboxUnusable`."""
    try:
        with path.open("rb") as file:
            return [_parse_row(line) for line in file]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise OutboxUnusable(path=str(path), reason=f"it is not a copy of an outbox ({exc})") from exc


def _render_row(row: OutboxRow) -> bytes:
    mark = row.fingerprint
    values = {
        "path": row.path,
        "key": row.key,
        "revision": row.revision,
        "mark": [mark.size, mark.mtime_ns, mark.inode],
        "sha256": row.sha256.hex,
        "state": row.state,
        "failures": row.failures,
        "reason": row.reason,
        "owed_at": row.owed_at,
        "done_at": row.done_at,
    }
    # ASCII keeps the bytes of names that are no text, as \udcXX escapes.
    return json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _parse_row(line: bytes) -> OutboxRow:
    values = json.loads(line)
    size, mtime_ns, inode = values["mark"]
    return OutboxRow(
        path=values["path"],
        key=values["key"],
        revision=values["revision"],
        fingerprint=Fingerprint(size, mtime_ns, inode),
        sha256=Digest(values["sha256"]),
        state=values["state"],
        # What was owed may have been delivered after the copy was made.
        doubtful=values["state"] == "owed",
        failures=values["failures"],
        reason=values["reason"],
        owed_at=values["owed_at"],
        done_at=values["done_at"],
    )
