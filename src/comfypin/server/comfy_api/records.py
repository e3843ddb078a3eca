"""What Comfy API v2 keeps in the file of the jobs: assets, who uses them, and what jobs were asked through it.

It is the same file so that a job, the assets that it uses and its idempotency key are committed together. What belongs
to a job goes with it: triggers remove it when the job is dropped.
"""

# ruff: noqa: S608 - statements are put together from constants alone
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfypin.digest import JsonValue
from comfypin.queue.job_changes import JobChange
from comfypin.queue.job_notes import SCHEMA as NOTES_SCHEMA
from comfypin.queue.sqlite import JobStore

SCHEMA = """
CREATE TABLE IF NOT EXISTS assets (
    id TEXT PRIMARY KEY, hash TEXT NOT NULL, size_bytes INTEGER NOT NULL, content_type TEXT NOT NULL, file_path TEXT,
    tags TEXT NOT NULL DEFAULT '[]', created_at REAL NOT NULL, expires_at REAL, job_id TEXT,
    position INTEGER NOT NULL DEFAULT 0, node_id TEXT, kind TEXT, location TEXT
);
CREATE INDEX IF NOT EXISTS assets_by_hash ON assets (hash);
CREATE INDEX IF NOT EXISTS assets_by_job ON assets (job_id, position);
CREATE INDEX IF NOT EXISTS assets_by_expiry ON assets (expires_at);
CREATE TRIGGER IF NOT EXISTS forget_what_was_of_a_job AFTER DELETE ON jobs BEGIN
    DELETE FROM assets WHERE job_id = OLD.id;
END;
"""
_ASSET = (
    "id, hash, size_bytes, content_type, file_path, created_at, expires_at, job_id, position, node_id, kind, location"
)
_JOB = "SELECT workflow, labels, had_key FROM comfy_jobs WHERE job_id = ?"
_OUTPUTS = f"SELECT {_ASSET} FROM assets WHERE job_id = ? ORDER BY position"
# A job that has not ended needs its inputs; outputs are kept as long as their job.
_IN_USE = (
    "(EXISTS (SELECT 1 FROM asset_uses u JOIN jobs j ON j.id = u.job_id WHERE u.hash = assets.hash "
    "AND j.ended_at IS NULL) OR EXISTS (SELECT 1 FROM jobs j WHERE j.id = assets.job_id))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A record over bytes that are stored by their hash (`blake3:<hex>`). Times in seconds since 1970.

    What a job left also has the job's id, the position among its outputs, the node, and the kind of output. If it is in
    a bucket, `location` is its address there, and `hash` is empty.
    """

    id: str
    hash: str
    size_bytes: int
    content_type: str
    file_path: str | None
    created_at: float
    expires_at: float | None = None
    job_id: str | None = None
    position: int = 0
    node_id: str | None = None
    kind: str | None = None
    location: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComfyJob:
    """What is known of a job that came through Comfy API v2: its workflow (None if it may hold secrets) and labels."""

    workflow: Mapping[str, JsonValue] | None
    labels: Mapping[str, str]
    had_key: bool


def asset_added(asset: Asset, *, tags: Sequence[str] = ()) -> JobChange:
    """Return the change for a new asset, or for an output that is the same output of a job that ran again."""
    return JobChange(
        f"INSERT OR REPLACE INTO assets ({_ASSET}, tags) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(asset.id, asset.hash, asset.size_bytes, asset.content_type, asset.file_path, asset.created_at),
            *(asset.expires_at, asset.job_id, asset.position, asset.node_id, asset.kind, asset.location),
            json.dumps(list(tags)),
        ),
    )


def asset_extended(asset_id: str, expires_at: float | None) -> JobChange:
    """Return the change for an asset that is kept longer; None: for ever."""
    return JobChange("UPDATE assets SET expires_at = ? WHERE id = ?", (expires_at, asset_id))


def asset_removed(asset_id: str) -> JobChange:
    """Return the change for an asset's record that goes, unless something depends on it."""
    return JobChange(f"DELETE FROM assets WHERE id = ? AND NOT {_IN_USE}", (asset_id,))


def outputs_forgotten(job_id: str) -> JobChange:
    """Return the change for a job whose outputs are going to be written again."""
    return JobChange("DELETE FROM assets WHERE job_id = ?", (job_id,))


def expired_removed(now: float) -> JobChange:
    """Return the change for all assets that were kept long enough and on which nothing depends."""
    return JobChange(f"DELETE FROM assets WHERE expires_at < ? AND NOT {_IN_USE}", (now,))


def ended_job_removed(job_id: str) -> JobChange:
    """Return the change for a job's result that goes with its outputs, since there is no room for it."""
    return JobChange(
        "DELETE FROM jobs WHERE id = ? AND ended_at IS NOT NULL AND NOT webhook_owed", (job_id,), forgets=job_id
    )


def keys_forgotten(claimed_before: float) -> JobChange:
    """Return the change for the keys that were kept long enough."""
    return JobChange("DELETE FROM idempotency_keys WHERE claimed_at < ?", (claimed_before,))


class Records:
    """Reads the tables above."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        store.add_tables(NOTES_SCHEMA + SCHEMA)

    async def write(self, *changes: JobChange) -> None:
        """Make the changes together. Raises `JobsNotStored`."""
        await self._store.write_changes(*changes)

    async def asset(self, asset_id: str) -> Asset | None:
        """Return an asset by its id."""
        return _first(await self._assets("id = ?", asset_id))

    async def asset_of(self, hash_: str) -> Asset | None:
        """Return the asset over these bytes that is kept longest."""
        return _first(await self._assets("hash = ? ORDER BY expires_at IS NULL DESC, expires_at DESC LIMIT 1", hash_))

    async def same_asset(self, hash_: str, file_path: str | None, tags: Sequence[str]) -> Asset | None:
        """Return an uploaded asset with the same description of the same bytes."""
        condition = "hash = ? AND file_path IS ? AND tags = ? AND job_id IS NULL LIMIT 1"
        return _first(await self._assets(condition, hash_, file_path, json.dumps(list(tags))))

    async def outputs(self, job_id: str) -> list[Asset]:
        """Return what a job left, in order."""
        return list(map(_to_asset, await self._store.query_rows(_OUTPUTS, job_id)))

    async def is_in_use(self, asset_id: str) -> bool:
        """Return whether a job that has not ended, or a job that is kept, depends on an asset."""
        return bool(await self._store.query_rows(f"SELECT 1 FROM assets WHERE id = ? AND {_IN_USE}", asset_id))

    async def hashes(self) -> set[str]:
        """Return the hashes of all bytes that must stay."""
        # A job that waits keeps the bytes of its inputs, even if their assets are deleted meanwhile.
        hash_rows = await self._store.query_rows(
            "SELECT hash FROM assets UNION SELECT u.hash FROM asset_uses u JOIN jobs j ON j.id = u.job_id "
            "WHERE j.ended_at IS NULL"
        )
        return {row[0] for row in hash_rows}

    async def had_secrets(self, job_id: str) -> bool:
        """Return whether a job came with secrets, such as a bucket of its own."""
        return bool(await self._store.query_rows("SELECT 1 FROM jobs WHERE id = ? AND secret", job_id))

    async def kept_by_age(self, fresh_since: float) -> list[tuple[str | None, str | None, str, int, float]]:
        """Return what takes disk space, newest first: ended jobs (id, None), uploads (None, id), hash, bytes, time.

        What a job that has not ended needs is not among it, nor uploads newer than `fresh_since`.
        """
        return await self._store.query_rows(
            "SELECT j.id, NULL, '', j.size, j.ended_at AS at FROM jobs j "
            "WHERE j.ended_at IS NOT NULL AND NOT j.webhook_owed "
            "UNION ALL SELECT j.id, NULL, a.hash, a.size_bytes, j.ended_at "
            "FROM assets a JOIN jobs j ON j.id = a.job_id "
            "WHERE j.ended_at IS NOT NULL AND NOT j.webhook_owed AND a.hash <> '' "
            "UNION ALL SELECT NULL, id, hash, size_bytes, created_at FROM assets WHERE job_id IS NULL "
            f"AND created_at < ? AND NOT {_IN_USE} ORDER BY at DESC",
            fresh_since,
        )

    async def keys(self) -> dict[str, float]:
        """Return the idempotency keys with the times at which they were claimed."""
        return dict(await self._store.query_rows("SELECT key, claimed_at FROM idempotency_keys"))

    async def job(self, job_id: str) -> ComfyJob | None:
        """Return what is known of a job that came through Comfy API v2."""
        return _to_job(await self._store.query_rows(_JOB, job_id))

    async def job_and_outputs(self, job_id: str) -> tuple[ComfyJob | None, list[Asset]]:
        """Return what is known of a job that came through Comfy API v2, and what any job left."""
        job_rows, made = await self._store.query_together((_JOB, job_id), (_OUTPUTS, job_id))
        return _to_job(job_rows), list(map(_to_asset, made))

    async def page(self, *, before: int | None, labels: Mapping[str, str], limit: int) -> list[tuple[int, Any, Any]]:
        """Return jobs, newest first: number, (id, state, created, started, ended, ttl), labels as JSON text."""
        conditions, values = ["1"], list[object]()
        if before is not None:
            conditions.append("j.number < ?")
            values.append(before)
        for label_name, value in labels.items():
            conditions.append("EXISTS (SELECT 1 FROM json_each(c.labels) l WHERE l.key = ? AND l.value = ?)")
            values += [label_name, value]
        page_rows = await self._store.query_rows(
            "SELECT j.number, j.id, j.state, j.created_at, j.started_at, j.ended_at, j.ttl_s, c.labels "
            "FROM jobs j LEFT JOIN comfy_jobs c ON c.job_id = j.id "
            f"WHERE {' AND '.join(conditions)} ORDER BY j.number DESC LIMIT ?",
            *values,
            limit,
        )
        return [(row[0], row[1:-1], row[-1]) for row in page_rows]

    async def _assets(self, condition: str, *values: object) -> list[Asset]:
        asset_rows = await self._store.query_rows(f"SELECT {_ASSET} FROM assets WHERE {condition}", *values)
        return list(map(_to_asset, asset_rows))


def _to_asset(row: Sequence[Any]) -> Asset:
    return Asset(**dict(zip(_ASSET.split(", "), row, strict=True)))


def _to_job(job_rows: Sequence[Sequence[Any]]) -> ComfyJob | None:
    if not job_rows:
        return None
    workflow, labels, had_key = job_rows[0]
    document = None if workflow is None else json.loads(workflow)
    return ComfyJob(workflow=document, labels=json.loads(labels), had_key=bool(had_key))


def _first(assets: list[Asset]) -> Asset | None:
    return assets[0] if assets else None
