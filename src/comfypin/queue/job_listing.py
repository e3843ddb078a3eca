"""Lists of jobs: what is asked of them, the query that answers it, and one row of the answer. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comfypin.jobs.interface import JobState
from comfypin.queue.interface import JobRow
from comfypin.queue.job_description import JobDescription, JobEnd

_COLUMNS = (
    "j.number, j.id, j.state, j.created_at, j.started_at, j.ended_at, j.error, "
    "j.rank, d.api, d.workflow, d.release, COALESCE(d.outputs, 0), COALESCE(d.warnings, 0), d.error_name"
)
# The list shows one line; the whole text is at the job itself.
_LONGEST_ERROR = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a list shows: all that fit each of the fields that are set. `before` is a number of a row."""

    states: tuple[JobState, ...] = ()
    workflow: str | None = None
    release: str | None = None
    text: str | None = None
    job_id: str | None = None
    before: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedJob:
    """One job of a list. `number` grows with the order in which jobs were first taken."""

    number: int
    row: JobRow
    description: JobDescription
    end: JobEnd


def listing_query(job_filter: JobFilter) -> tuple[str, list[object]]:
    """Return the query of a list, newest first, and its values."""
    conditions, values = ["1"], list[object]()
    if job_filter.states:
        conditions.append(f"j.state IN ({', '.join('?' * len(job_filter.states))})")
        values.extend(job_filter.states)
    for column, wanted in (("d.workflow", job_filter.workflow), ("d.release", job_filter.release)):
        if wanted is not None:
            conditions.append(f"{column} = ?")
            values.append(wanted)
    if job_filter.job_id is not None:
        conditions.append("j.id = ?")
        values.append(job_filter.job_id)
    if job_filter.text:
        # `instr`, not LIKE: it needs no escapes. The texts are folded already; SQLite's `lower` knows ASCII alone.
        conditions.append("(instr(d.texts, ?) OR instr(casefold(d.workflow), ?) OR instr(lower(j.id), ?))")
        values.extend([job_filter.text.casefold()] * 3)
    if job_filter.before is not None:
        conditions.append("j.number < ?")
        values.append(job_filter.before)
    query = (
        f"SELECT {_COLUMNS} FROM jobs j LEFT JOIN job_descriptions d ON d.job_id = j.id "  # noqa: S608 - constants alone
        f"WHERE {' AND '.join(conditions)} ORDER BY j.number DESC LIMIT ?"
    )
    return query, [*values, job_filter.limit]


def to_listed_job(columns: Sequence[Any]) -> ListedJob:
    """Return a row of the answer."""
    number, job_id, state, created_at, started_at, ended_at, error = columns[:7]
    rank, api, workflow, release, outputs, warnings, error_name = columns[7:]
    return ListedJob(
        number=number,
        row=JobRow(
            id=job_id,
            state=state,
            rank=rank,
            created_at=created_at,
            started_at=started_at,
            ended_at=ended_at,
        ),
        description=JobDescription(api=api or "runpod", workflow=workflow, release=release),
        end=JobEnd(
            outputs=outputs,
            warnings=warnings,
            error_name=error_name,
            error=None if error is None else str(error)[:_LONGEST_ERROR],
        ),
    )
