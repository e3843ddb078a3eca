"""What an API keeps of a job beside the job itself: its labels, its workflow, the assets that it uses. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfypin.queue.job_changes import JobChange

# The trigger: whatever removes a job removes what was noted of it.
SCHEMA = """
CREATE TABLE IF NOT EXISTS asset_uses (job_id TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (job_id, hash));
CREATE INDEX IF NOT EXISTS asset_uses_by_hash ON asset_uses (hash);
CREATE TABLE IF NOT EXISTS idempotency_keys (key TEXT PRIMARY KEY, claimed_at REAL NOT NULL, job_id TEXT);
CREATE TABLE IF NOT EXISTS comfy_jobs (
    job_id TEXT PRIMARY KEY, workflow TEXT, labels TEXT NOT NULL DEFAULT '{}', had_key INTEGER NOT NULL DEFAULT 0
);
CREATE TRIGGER IF NOT EXISTS forget_notes_of_job AFTER DELETE ON jobs BEGIN
    DELETE FROM comfy_jobs WHERE job_id = OLD.id;
    DELETE FROM asset_uses WHERE job_id = OLD.id;
END;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComfyNote:
    """What Comfy API v2 keeps of a job: labels, its workflow as JSON text, whether it brought a key for API nodes."""

    workflow: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    had_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobNotes:
    """What is kept together with a job. `assets` are hashes of what it needs until it has ended; `key` is the
    idempotency key of the request that brought it."""

    comfy: ComfyNote | None = None
    assets: tuple[str, ...] = ()
    key: str | None = None


def notes_kept(job_id: str, notes: JobNotes, at: float) -> list[JobChange]:
    """Return the changes that keep the notes of a job that was taken at this time."""
    changes = [asset_used(job_id, hash_) for hash_ in notes.assets]
    if notes.comfy is not None:
        changes.append(_job_noted(job_id, notes.comfy))
    if notes.key is not None:
        changes.append(key_claimed(notes.key, at, job_id))
    return changes


def asset_used(job_id: str, hash_: str) -> JobChange:
    """Return the change for a job that needs an asset's bytes until it has ended."""
    return JobChange("INSERT OR IGNORE INTO asset_uses VALUES (?, ?)", (job_id, hash_))


def key_claimed(key: str, at: float, job_id: str | None) -> JobChange:
    """Return the change for an idempotency key that was used."""
    return JobChange("INSERT OR REPLACE INTO idempotency_keys VALUES (?, ?, ?)", (key, at, job_id))


def _job_noted(job_id: str, note: ComfyNote) -> JobChange:
    return JobChange(
        "INSERT OR REPLACE INTO comfy_jobs VALUES (?, ?, ?, ?)",
        (job_id, note.workflow, json.dumps(dict(note.labels)), note.had_key),
    )
