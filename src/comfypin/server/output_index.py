"""Lists the newest outputs of all jobs: the file of the jobs keeps a row for each, written together with a job's end.

Not by a trigger: SQLite would keep what the end changes, megabytes of input, in a temporary file of its own, and no job
could end while the folder for temporary files is full.
"""

# ruff: noqa: S608 - statements are put together from constants alone

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from comfypin.digest import JsonValue
from comfypin.queue.job_changes import JobChange
from comfypin.queue.sqlite import JobStore
from comfypin.queue.status_bodies import shown_time

ReadResult = Callable[[str], Awaitable[str | None]]
OUTPUT_LISTS = ("images", "videos", "audio", "files")
_FACTS = (
    ("filename", "filename"),
    ("subfolder", "subfolder"),
    ("node", "node"),
    ("kind", "kind"),
    ("media_type", "media_type"),
    ("size_bytes", "size_bytes"),
    ("width", "width"),
    ("height", "height"),
    ("sha256", "sha256"),
    ("kept_as", "type"),
    ("uri", "uri"),
    ("url", "url"),
)
_COLUMNS = ", ".join(column for column, _ in _FACTS)
_EXTRACTED = ", ".join(f"json_extract(item.value, '$.{fact}')" for _, fact in _FACTS)
_LISTS = " UNION ALL ".join(
    f"SELECT {list_index} AS place, '{column_name}' AS name" for list_index, column_name in enumerate(OUTPUT_LISTS)
)


def _rows_of_jobs(jobs: str) -> str:
    """Return the statement that lists the outputs of jobs, which `jobs` selects as id, ended_at and output."""
    return (
        f"INSERT INTO job_outputs (job_id, made_at, position, list, list_index, {_COLUMNS}) "
        "SELECT job.id, job.ended_at, ROW_NUMBER() OVER (PARTITION BY job.id ORDER BY lists.place, item.key) - 1, "
        f"lists.name, item.key, {_EXTRACTED} "
        f"FROM ({jobs}) AS job, ({_LISTS}) AS lists, json_each(job.output, '$.' || lists.name) AS item "
        "WHERE item.type = 'object' ORDER BY job.ended_at, lists.place, item.key;"
    )


SCHEMA = """
CREATE TABLE IF NOT EXISTS job_outputs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL, made_at REAL NOT NULL, position INTEGER NOT NULL,
    list TEXT NOT NULL, list_index INTEGER NOT NULL, filename TEXT, subfolder TEXT, node TEXT, kind TEXT,
    media_type TEXT, size_bytes INTEGER, width INTEGER, height INTEGER, sha256 TEXT, kept_as TEXT, uri TEXT, url TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS outputs_by_job ON job_outputs (job_id, position);
CREATE TRIGGER IF NOT EXISTS unlist_outputs AFTER DELETE ON jobs BEGIN
    DELETE FROM job_outputs WHERE job_id = OLD.id;
END;
"""
# Jobs that ended under an older version. Found by an index: nothing is parsed if there are none.
_LIST_OLDER = _rows_of_jobs(
    "SELECT id, ended_at, output FROM jobs WHERE ended_at IS NOT NULL AND json_valid(output) "
    "AND NOT EXISTS (SELECT 1 FROM job_outputs)"
)
_LIST_OF_JOB = _rows_of_jobs("SELECT id, ended_at, output FROM jobs WHERE id = ? AND json_valid(output)")
_LIST_OF_RESULT = _rows_of_jobs("SELECT ? AS id, ? AS ended_at, ? AS output")
_SELECTED = ", ".join(f"o.{column}" for column, _ in _FACTS)
_FOUND = (
    f"SELECT o.number, o.job_id, o.made_at, o.position, o.list, o.list_index, j.state, d.workflow, d.release, "
    f"{_SELECTED} FROM job_outputs o JOIN jobs j ON j.id = o.job_id "
    "LEFT JOIN job_descriptions d ON d.job_id = o.job_id"
)


def outputs_listed(job_id: str) -> tuple[JobChange, ...]:
    """Return the changes that list the outputs of a job that ends, or that waits again and has none."""
    return (
        JobChange("DELETE FROM job_outputs WHERE job_id = ?", (job_id,)),
        JobChange(_LIST_OF_JOB, (job_id,)),
    )


def outputs_listed_of(job_id: str, ended_at: float, result: str) -> tuple[JobChange, ...]:
    """Return the changes that list the outputs of a job whose result is kept elsewhere."""
    return (
        JobChange("DELETE FROM job_outputs WHERE job_id = ?", (job_id,)),
        JobChange(_LIST_OF_RESULT, (job_id, ended_at, result)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFilter:
    """Which outputs are asked for; an empty tuple or None: all. Times in seconds since 1970."""

    workflow: str | None = None
    release: str | None = None
    states: Sequence[str] = ()
    kinds: Sequence[str] = ()
    text: str | None = None
    job_id: str | None = None
    made_since: float | None = None
    made_before: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedOutput:
    """One output, with what is known of its job. `facts` are those of the job's result; `number` counts up."""

    number: int
    job_id: str
    made_at: float
    position: int
    list_name: str
    list_index: int
    status: str
    workflow: str | None
    release: str | None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Return image, video, audio, 3d, text, latent or file."""
        return str(self.facts.get("kind") or "file")

    @property
    def sha256(self) -> str | None:
        """Return the digest of its bytes, or None if it is not one."""
        digest = self.facts.get("sha256")
        is_digest = isinstance(digest, str) and len(digest) == 64 and digest.isalnum() and digest.isascii()
        return digest if is_digest else None

    @property
    def filename(self) -> str:
        """Return the name that its workflow gave it."""
        return str(self.facts.get("filename") or f"output-{self.position}")


class OutputIndex:
    """Reads the rows above. `read_result` returns a job's result where the file of the jobs does not have it."""

    def __init__(self, store: JobStore, *, read_result: ReadResult | None = None) -> None:
        self._store = store
        self._read_result = read_result
        store.add_tables(SCHEMA + _LIST_OLDER)
        store.changes_beside = outputs_listed

    async def page(self, output_filter: OutputFilter, *, before: int | None, limit: int) -> list[ListedOutput]:
        """Return outputs, newest first. Raises `JobsNotStored`."""
        conditions, values = _conditions(output_filter)
        if before is not None:
            conditions.append("o.number < ?")
            values.append(before)
        where = " AND ".join(conditions) or "1"
        rows = await self._store.query_rows(f"{_FOUND} WHERE {where} ORDER BY o.number DESC LIMIT ?", *values, limit)
        return [_to_output(row) for row in rows]

    async def find(self, job_id: str, position: int) -> ListedOutput | None:
        """Return one output. Raises `JobsNotStored`."""
        rows = await self._store.query_rows(f"{_FOUND} WHERE o.job_id = ? AND o.position = ?", job_id, position)
        return _to_output(rows[0]) if rows else None

    async def of_job(self, job_id: str) -> list[ListedOutput]:
        """Return all outputs of a job, in order. Raises `JobsNotStored`."""
        rows = await self._store.query_rows(f"{_FOUND} WHERE o.job_id = ? ORDER BY o.position", job_id)
        return [_to_output(row) for row in rows]

    async def read_base64(self, output: ListedOutput) -> str | None:
        """Return the base64 text of an output that its job's result holds. Raises `JobsNotStored`, `JobUnknown`."""
        if self._read_result is not None:
            # In a thread: it has megabytes.
            return await asyncio.to_thread(_base64_in, await self._read_result(output.job_id) or "{}", output)
        path = f"$.{output.list_name}[{output.list_index}].data"
        query = "SELECT json_extract(output, ?) FROM jobs WHERE id = ?"
        rows = await self._store.query_rows(query, path, output.job_id)
        return rows[0][0] if rows and isinstance(rows[0][0], str) else None

    async def names(self) -> dict[str, list[str]]:
        """Return the workflows, releases, kinds and states of which there are outputs. Raises `JobsNotStored`."""
        query = (
            "SELECT DISTINCT d.workflow, d.release, o.kind, j.state FROM job_outputs o "
            "JOIN jobs j ON j.id = o.job_id LEFT JOIN job_descriptions d ON d.job_id = o.job_id LIMIT 1000"
        )
        rows = await self._store.query_rows(query)
        columns = ("workflows", "releases", "kinds", "states")
        return {
            column_name: sorted({row[column_index] for row in rows if row[column_index]})
            for column_index, column_name in enumerate(columns)
        }


def output_to_json(output: ListedOutput, *, bucket: str | None, has_thumbnail: bool) -> dict[str, JsonValue]:
    """Return an output as /outputs lists it; `href` and `thumbnail` are relative to the server's own address.

    `bucket` says whose bucket it is in.
    """
    href = f"jobs/{output.job_id}/outputs/{output.position}"
    return {
        "job_id": output.job_id,
        "position": output.position,
        "status": output.status,
        "workflow": output.workflow,
        "release": output.release,
        "made_at": shown_time(output.made_at),
        **{
            column_name: output.facts.get(column_name)
            for column_name, _ in _FACTS
            if column_name not in ("kept_as", "uri")
        },
        # A path of this machine means nothing to clients.
        "uri": uri if isinstance(uri := output.facts.get("uri"), str) and "://" in uri else None,
        "bucket": bucket,
        "href": href,
        "thumbnail": f"{href}/thumbnail" if has_thumbnail else None,
    }


def _base64_in(result: str, output: ListedOutput) -> str | None:
    document = json.loads(result)
    listed = document.get(output.list_name) if isinstance(document, dict) else None
    entry = listed[output.list_index] if isinstance(listed, list) and output.list_index < len(listed) else None
    base64_text = entry.get("data") if isinstance(entry, dict) else None
    return base64_text if isinstance(base64_text, str) else None


def _conditions(output_filter: OutputFilter) -> tuple[list[str], list[object]]:
    conditions: list[str] = []
    values: list[object] = []
    for column, value in (
        ("d.workflow", output_filter.workflow),
        ("d.release", output_filter.release),
        ("o.job_id", output_filter.job_id),
    ):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    for column, several in (("j.state", output_filter.states), ("o.kind", output_filter.kinds)):
        if several:
            conditions.append(f"{column} IN ({', '.join('?' * len(several))})")
            values += several
    for comparison, at in (("o.made_at >= ?", output_filter.made_since), ("o.made_at < ?", output_filter.made_before)):
        if at is not None:
            conditions.append(comparison)
            values.append(at)
    # instr, not LIKE: a `%` or `_` in a search means itself.
    if output_filter.text:
        conditions.append("(instr(d.texts, ?) OR instr(casefold(o.filename), ?) OR instr(lower(o.job_id), ?))")
        values += [output_filter.text.casefold()] * 3
    return conditions, values


def _to_output(row: Sequence[Any]) -> ListedOutput:
    return ListedOutput(
        number=row[0],
        job_id=row[1],
        made_at=row[2],
        position=row[3],
        list_name=row[4],
        list_index=row[5],
        status=row[6],
        workflow=row[7],
        release=row[8],
        facts=dict(zip((column for column, _ in _FACTS), row[9:], strict=True)),
    )


def origin_of(url: str) -> str | None:
    """Return the origin of an address; None if no header may name it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    # It goes into a header: nothing that could end a directive there.
    is_plain = re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", parts.netloc) is not None
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") and is_plain else None
