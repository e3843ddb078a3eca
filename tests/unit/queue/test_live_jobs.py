"""The order in which jobs that wait begin."""

import asyncio

import pytest

from comfypin.queue.interface import JobRow
from comfypin.queue.live_jobs import LiveJob, LiveJobs


def job(name: str, priority: int = 0) -> LiveJob:
    return LiveJob(JobRow(id=name, state="IN_QUEUE", created_at=0.0, rank=priority))


def jobs_of(*waiting: LiveJob) -> LiveJobs:
    jobs = LiveJobs()
    for one in waiting:
        jobs.add_pending(one)
        jobs.let_begin(one)
    return jobs


async def begin_all(jobs: LiveJobs) -> list[str]:
    begun = []
    while jobs.waiting_count:
        live_job = await asyncio.wait_for(jobs.next_arrival(), 5)
        jobs.note_started(live_job)
        begun.append(live_job.row.id)
    return begun


async def test_a_higher_priority_begins_first_and_equal_ones_in_order_of_arrival() -> None:
    jobs = jobs_of(job("a"), job("low", -1), job("b"), job("high", 5), job("c"))
    assert [jobs.waiting_place(name) for name in ("high", "a", "b", "c", "low")] == [1, 2, 3, 4, 5]
    assert [one.row.id for one in jobs.list_in_order()] == ["high", "a", "b", "c", "low"]
    assert await begin_all(jobs) == ["high", "a", "b", "c", "low"]


async def test_a_job_that_is_still_being_written_lets_others_begin() -> None:
    jobs = LiveJobs()
    jobs.add_pending(job("slow to write", 9))
    written = job("written")
    jobs.add_pending(written)
    jobs.let_begin(written)
    assert await jobs.next_arrival() is written
    assert jobs.waiting_place("slow to write") == 1


async def test_a_job_that_changes_its_priority_moves_and_begins_once() -> None:
    last = job("last")
    jobs = jobs_of(job("a"), job("b"), last)
    last.row = JobRow(id="last", state="IN_QUEUE", created_at=0.0, rank=1)
    jobs.move_to_priority(last)
    assert jobs.waiting_place("last") == 1
    assert await begin_all(jobs) == ["last", "a", "b"]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(jobs.next_arrival(), 0.01)


async def test_a_job_that_is_cancelled_gives_its_place_away_and_never_begins() -> None:
    first = job("first")
    jobs = jobs_of(first, job("second"))
    jobs.note_ending(first)
    assert (jobs.waiting_place("first"), jobs.waiting_place("second")) == (None, 1)
    assert jobs.waiting_count == 2, "it is cancelled when the disk says so"
    jobs.move_to_ended(first)
    assert await begin_all(jobs) == ["second"]


async def test_those_that_are_next_are_listed_without_those_behind() -> None:
    jobs = jobs_of(*(job(name) for name in "abcde"))
    jobs.note_started(await jobs.next_arrival())
    assert [one.row.id for one in jobs.list_next(2)] == ["a", "b", "c"]
    cancelled = jobs.find_pending("b")
    assert cancelled is not None
    jobs.note_ending(cancelled)
    assert [one.row.id for one in jobs.list_next(2)] == ["a", "c", "d"]
    assert [one.row.id for one in jobs.list_in_order()] == ["a", "b", "c", "d", "e"]
    jobs.move_to_ended(cancelled)
    assert [one.row.id for one in jobs.list_in_order()] == ["a", "c", "d", "e"]


def test_jobs_with_a_time_to_wait_are_known_until_they_end() -> None:
    limited = LiveJob(JobRow(id="limited", state="IN_QUEUE", created_at=0.0, ttl_s=5.0))
    jobs = jobs_of(job("a"), limited)
    assert jobs.list_with_ttl() == [limited]
    jobs.move_to_ended(limited)
    assert jobs.list_with_ttl() == []
