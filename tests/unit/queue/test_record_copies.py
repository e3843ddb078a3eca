"""Records of a fleet in a server's file, as lists show them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.queue.errors import JobsNotStored
from comfypin.queue.interface import JobRow
from comfypin.queue.job_changes import JobChange
from comfypin.queue.job_description import JobDescription, JobEnd
from comfypin.queue.job_listing import JobFilter
from comfypin.queue.job_notes import SCHEMA, ComfyNote, JobNotes
from comfypin.queue.nats.fleet_job import Body, FleetJob
from comfypin.queue.nats.names import Lane
from comfypin.queue.nats.record_copies import ROWS, RecordCopier
from comfypin.queue.sqlite import JobStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[JobStore]:
    opened = JobStore(tmp_path / "fleet.sqlite")
    opened.add_tables(SCHEMA)
    yield opened
    opened.close()


def a_job(number: int, **more: object) -> FleetJob:
    job = FleetJob(
        row=JobRow(id=f"job-{number}", state="IN_QUEUE", created_at=float(number)),
        lane=Lane(release="0123456789abcdef"),
        description=JobDescription(api="runpod", workflow=f"w{number}", release="demo", shape="s", texts="a fox"),
        number=number,
        input=Body(key="k", size=100),
    )
    return replace(job, **more)  # type: ignore[arg-type]


def by_id(*jobs: FleetJob) -> dict[str, FleetJob | None]:
    return {job.row.id: job for job in jobs}


async def test_more_records_than_one_statement_takes_are_listed_newest_first(store: JobStore) -> None:
    copier = RecordCopier(store)
    jobs = [a_job(number) for number in range(1, 2 * ROWS + 4)]
    copier.hold(by_id(*jobs), 1)
    await copier.finish()
    listed = await store.list_jobs(JobFilter(limit=1000))
    assert [job.number for job in listed] == [job.number for job in reversed(jobs)]
    assert listed[0].description.workflow == jobs[-1].description.workflow


async def test_the_newest_record_of_a_job_is_listed_at_its_first_place(store: JobStore) -> None:
    copier = RecordCopier(store)
    first = a_job(1, notes=JobNotes(comfy=ComfyNote(labels={"a": "b"}), assets=("blake3:1",)))
    copier.hold(by_id(first, a_job(2)), 1)
    row = replace(first.row, state="FAILED", started_at=2.0, ended_at=3.0)
    end = JobEnd(outputs=2, warnings=1, error_name="PromptLost", error="it is lost")
    copier.hold(by_id(replace(first, row=row, end=end, error=end.error, number=7)), 1)
    await copier.finish()
    newest, oldest = await store.list_jobs(JobFilter())
    assert (newest.row.id, oldest.row.id) == ("job-2", "job-1")
    assert (oldest.row.state, oldest.row.ended_at, oldest.end) == ("FAILED", 3.0, end)
    assert await store.query_rows("SELECT hash FROM asset_uses") == [("blake3:1",)]


async def test_a_job_that_was_removed_is_listed_no_more(store: JobStore) -> None:
    copier = RecordCopier(store)
    copier.hold(by_id(a_job(1), a_job(2)), 1)
    copier.hold({"job-1": None}, 1)
    await copier.finish()
    assert [job.row.id for job in await store.list_jobs(JobFilter())] == ["job-2"]


async def test_half_a_character_in_one_record_keeps_no_other_from_the_list(store: JobStore) -> None:
    copier = RecordCopier(store)
    copier.hold(by_id(a_job(1, error="no file \udcff.png"), a_job(2)), 1)
    await copier.finish()
    assert len(await store.list_jobs(JobFilter())) == 2


async def test_very_many_records_are_written_while_more_are_read(store: JobStore) -> None:
    copier = RecordCopier(store)
    for number in (1, 2, 3):
        copier.hold(by_id(a_job(number)), 1 << 30)
        await copier.keep_up()
    # All but the last, which may still be on its way.
    assert {1, 2} <= {job.number for job in await store.list_jobs(JobFilter())}


async def test_a_few_records_are_not_written_before_all_were_read(store: JobStore) -> None:
    copier = RecordCopier(store)
    copier.hold(by_id(a_job(1)), 1000)
    await copier.keep_up()
    assert await store.list_jobs(JobFilter()) == []
    await copier.finish()
    assert len(await store.list_jobs(JobFilter())) == 1


async def test_a_copy_that_cannot_be_made_is_told(store: JobStore, tmp_path: Path) -> None:
    copier = RecordCopier(store)
    (tmp_path / "fleet.sqlite").unlink()
    copier.hold(by_id(a_job(1)), 1)
    with pytest.raises(JobsNotStored):
        await copier.finish()


async def test_what_must_outlive_a_power_cut_is_flushed_also_after_copies(store: JobStore) -> None:
    copier = RecordCopier(store)
    for change, synchronous in ((True, 1), (False, 2), (True, 1)):
        if change:
            copier.hold(by_id(a_job(1)), 1)
            await copier.finish()
        else:
            await store.write_changes(JobChange("DELETE FROM probe", ()))
        assert await store.query_rows("PRAGMA synchronous") == [(synchronous,)]
