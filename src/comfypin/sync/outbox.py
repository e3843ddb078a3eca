"""The outbox: durable rows of the uploads owed, in SQLite on the local disk, committed before anything is sent.

One thread owns it. Paths are stored as bytes, because names may not be valid text. WAL with full synchronisation:
once a commit has returned, its rows survive a power cut. (WAL does not work on network file systems:
`sync/outbox_snapshot.py` carries the outbox from pod to pod instead.)
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from comfypin.digest import Digest
from comfypin.sync.errors import OutboxUnusable
from comfypin.sync.folder_scan import Fingerprint
from comfypin.sync.outbox_row import OutboxCounts, OutboxRow, RowState
from comfypin.sync.outbox_snapshot import OutboxSnapshot, load_snapshot

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, key TEXT NOT NULL UNIQUE, revision INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, sha256 TEXT NOT NULL, state TEXT NOT NULL,
    doubtful INTEGER NOT NULL, failures INTEGER NOT NULL DEFAULT 0, reason TEXT,
    owed_at REAL NOT NULL, done_at REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_state ON files (state, done_at);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = "path, key, revision, size, mtime_ns, inode, sha256, state, doubtful, failures, reason, owed_at, done_at"
_UPDATES = ", ".join(f"{column_name} = excluded.{column_name}" for column_name in _COLUMNS.split(", ")[1:])


def choose_outbox(state_folder: Path, folder: Path, destination: str) -> Path:
    """Return the outbox of a folder and a destination: one for each pair, which every later run finds again."""
    # File names on Linux are bytes, not always UTF-8.
    pair_digest = Digest.of(f"{folder.resolve()}\0{destination}".encode(errors="surrogateescape"))
    return state_folder / "sync" / f"{pair_digest.hex[:16]}.sqlite"


class Outbox:
    """Stores the rows of one folder and one destination. Raises `OutboxUnusable` if the file cannot be used."""

    def __init__(self, path: Path, *, copy: Path | None = None, read_only: bool = False) -> None:
        """Open or make it. `copy` is its copy on a volume: read if the outbox is new, and kept up to date after."""
        self.path = path
        self.is_new = not path.exists()
        self._snapshot = OutboxSnapshot(copy) if copy is not None else None
        try:
            if read_only:
                # Read only: `sync status` must never create an outbox.
                self._database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            # With NORMAL, a power cut may undo the last commits, and files would be sent twice.
            self._database.execute("PRAGMA synchronous = FULL")
            # 4 MB: rows are read by key, a larger cache does not help.
            self._database.execute("PRAGMA cache_size = -4000")
            self._database.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise OutboxUnusable(path=str(path), reason=str(error)) from error
        if self.is_new and copy is not None and (outbox_rows := load_snapshot(copy)):
            self.save_rows(outbox_rows)
            self.is_new = False

    def find_row(self, relative_path: str) -> OutboxRow | None:
        """Return the file's row, or None if it was never seen."""
        query_cursor = self._database.execute(
            f"SELECT {_COLUMNS} FROM files WHERE path = ?", (os.fsencode(relative_path),)
        )
        database_row = query_cursor.fetchone()
        return None if database_row is None else _parse_row(database_row)

    def known_fingerprint(self, relative_path: str) -> Fingerprint | None:
        """Return the fingerprint last recorded for a path; cheap, because scans ask for every file."""
        query_cursor = self._database.execute(
            "SELECT size, mtime_ns, inode FROM files WHERE path = ?", (os.fsencode(relative_path),)
        )
        database_row = query_cursor.fetchone()
        return None if database_row is None else Fingerprint(*database_row)

    def key_holder(self, object_key: str) -> str | None:
        """Return the path that has this key, or None."""
        database_row = self._database.execute("SELECT path FROM files WHERE key = ?", (object_key,)).fetchone()
        return None if database_row is None else os.fsdecode(database_row[0])

    def confirmed_digests(self, fingerprint: Fingerprint) -> frozenset[Digest]:
        """Return the digests of delivered files that had this fingerprint, whatever their names are."""
        sql_query = "SELECT sha256 FROM files WHERE state = 'done' AND size = ? AND mtime_ns = ? AND inode = ?"
        return frozenset(
            Digest(database_row[0])
            for database_row in self._database.execute(
                sql_query, (fingerprint.size, fingerprint.mtime_ns, fingerprint.inode)
            )
        )

    def save_rows(self, outbox_rows: Iterable[OutboxRow]) -> None:
        """Record rows durably, all or none; a path's older row is replaced."""
        placeholders = ", ".join("?" * (_COLUMNS.count(",") + 1))
        with self._transaction():
            # Only the same path is replaced: two paths never share a key, whatever was asked.
            self._database.executemany(
                f"INSERT INTO files VALUES ({placeholders}) ON CONFLICT (path) DO UPDATE SET {_UPDATES}",
                map(_row_values, outbox_rows),
            )
        if self._snapshot is not None:
            self._snapshot.note_change()

    def refresh_copy(self, *, now: bool = False) -> float | None:
        """Update the copy when it is due, or now; return when it will be due, or None."""
        return None if self._snapshot is None else self._snapshot.write_if_due(self.all_rows, now=now)

    def owed_rows(self) -> Iterator[OutboxRow]:
        """Return every row that is owed, the oldest debt first."""
        query_cursor = self._database.execute(f"SELECT {_COLUMNS} FROM files WHERE state = 'owed' ORDER BY owed_at")
        return map(_parse_row, query_cursor)

    def all_rows(self) -> Iterator[OutboxRow]:
        """Return every row, by path."""
        return map(_parse_row, self._database.execute(f"SELECT {_COLUMNS} FROM files ORDER BY path"))

    def failing_rows(self, row_limit: int) -> Sequence[OutboxRow]:
        """Return rows whose last try failed, the most failed first."""
        sql_query = f"SELECT {_COLUMNS} FROM files WHERE state = 'owed' AND failures > 0 ORDER BY failures DESC LIMIT ?"
        return [_parse_row(database_row) for database_row in self._database.execute(sql_query, (row_limit,))]

    def count_rows(self) -> OutboxCounts:
        """Return the counts that `sync status` prints."""
        now_s = time.time()
        owed_counts = self._database.execute(
            "SELECT COUNT(*), COALESCE(SUM(size), 0), COALESCE(SUM(failures > 0), 0), MIN(owed_at) "
            "FROM files WHERE state = 'owed'"
        ).fetchone()
        recent_counts = self._database.execute(
            "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM files WHERE state = 'done' AND done_at > ?", (now_s - 300,)
        ).fetchone()
        counts_by_state = dict(
            self._database.execute("SELECT state, COUNT(*) FROM files WHERE state != 'owed' GROUP BY state")
        )
        return OutboxCounts(
            owed=owed_counts[0],
            owed_bytes=owed_counts[1],
            failing=owed_counts[2],
            oldest_owed_at=owed_counts[3],
            done=counts_by_state.get("done", 0),
            gone=counts_by_state.get("gone", 0),
            recent_files=recent_counts[0],
            recent_bytes=recent_counts[1],
        )

    def read_fact(self, fact_name: str) -> str | None:
        """Return a recorded fact (the folder, the destination), or None."""
        database_row = self._database.execute("SELECT value FROM facts WHERE name = ?", (fact_name,)).fetchone()
        return None if database_row is None else str(database_row[0])

    def record_facts(self, **facts: str) -> None:
        """Record facts about the outbox itself."""
        with self._transaction():
            self._database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def close(self) -> None:
        """Bring the copy up to date, fold the log into the file, close it."""
        # The next pod starts from this copy.
        self.refresh_copy(now=True)
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            # Take the write lock now: a later upgrade could fail with SQLITE_BUSY.
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise OutboxUnusable(path=str(self.path), reason=str(error)) from error


def _row_values(outbox_row: OutboxRow) -> tuple[object, ...]:
    fingerprint = outbox_row.fingerprint
    identity_values = (
        os.fsencode(outbox_row.path),
        outbox_row.key,
        outbox_row.revision,
        fingerprint.size,
        fingerprint.mtime_ns,
        fingerprint.inode,
        outbox_row.sha256.hex,
    )
    return (
        *identity_values,
        outbox_row.state,
        outbox_row.doubtful,
        outbox_row.failures,
        outbox_row.reason,
        outbox_row.owed_at,
        outbox_row.done_at,
    )


def _parse_row(
    database_row: tuple[bytes, str, int, int, int, int, str, RowState, int, int, str | None, float, float | None],
) -> OutboxRow:
    (
        relative_path,
        object_key,
        revision,
        size_bytes,
        mtime_ns,
        inode,
        sha256,
        state,
        doubtful,
        failures,
        reason,
        owed_at,
        done_at,
    ) = database_row
    return OutboxRow(
        path=os.fsdecode(relative_path),
        key=object_key,
        revision=revision,
        fingerprint=Fingerprint(size_bytes, mtime_ns, inode),
        sha256=Digest(sha256),
        state=state,
        doubtful=bool(doubtful),
        failures=failures,
        reason=reason,
        owed_at=owed_at,
        done_at=done_at,
    )
