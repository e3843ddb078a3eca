"""A fleet's gallery goes on, whatever becomes of the results of single jobs."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from comfypin.queue.errors import JobsNotStored, JobUnknown
from comfypin.queue.interface import JobRecord
from comfypin.queue.nats.errors import BodyOutOfReach
from comfypin.server.fleet_outputs import FleetOutputs

AWAY = JobsNotStored(reason="the queue does not answer")
OUT_OF_REACH = BodyOutOfReach(server="http://peer", reason="connection refused")


@dataclass
class FakeStore:
    """Ended jobs whose outputs are not listed yet."""

    unlisted: list[tuple[str, float]]
    listed: list[str] = field(default_factory=list)
    kept_in_vain: set[str] = field(default_factory=set)

    async def query_rows(self, _query: str, _most: int) -> list[tuple[str, float]]:
        return list(self.unlisted)

    async def write_changes(self, *changes: Any) -> None:
        job_id = changes[0].values[0]
        self.listed.append(job_id)
        if job_id not in self.kept_in_vain:
            self.unlisted = [row for row in self.unlisted if row[0] != job_id]


@dataclass
class FakeQueue:
    """Results, or why they cannot be read. A job that is not here is gone."""

    results: dict[str, str | Exception | None]
    asked: list[str] = field(default_factory=list)

    @property
    def events(self) -> "FakeQueue":
        return self

    def publish(self, *_: object) -> None:
        pass

    async def read_record(self, job_id: str) -> JobRecord:
        self.asked.append(job_id)
        await asyncio.sleep(0)
        result = self.results.get(job_id, JobUnknown(job_id=job_id))
        if isinstance(result, Exception):
            raise result
        return JobRecord(row=None, output=result)  # type: ignore[arg-type]


def gallery(store: FakeStore, queue: FakeQueue, now: list[float]) -> FleetOutputs:
    return FleetOutputs(store, queue, clock=lambda: now[0])  # type: ignore[arg-type]


async def test_a_result_out_of_reach_holds_up_no_other_and_is_asked_for_again_later() -> None:
    store, now = FakeStore([("a", 1.0), ("b", 2.0), ("c", 3.0)]), [0.0]
    queue = FakeQueue({"a": "{}", "b": OUT_OF_REACH, "c": "{}"})
    outputs = gallery(store, queue, now)
    await outputs.list_new()
    assert store.listed == ["a", "c"]
    now[0] = 30.0
    await outputs.list_new()
    assert queue.asked == ["a", "b", "c"]
    now[0], queue.results["b"] = 61.0, "{}"
    await outputs.list_new()
    assert store.listed == ["a", "c", "b"]


async def test_while_the_queue_is_away_nothing_is_given_up() -> None:
    store = FakeStore([("a", 1.0)])
    queue = FakeQueue({"a": AWAY})
    outputs = gallery(store, queue, [0.0])
    with pytest.raises(JobsNotStored):
        await outputs.list_new()
    queue.results["a"] = "{}"
    await outputs.list_new()
    assert store.listed == ["a"]


async def test_jobs_that_are_gone_or_left_nothing_are_asked_for_once_and_forgotten_with_their_rows() -> None:
    store = FakeStore([("gone", 1.0), ("empty", 2.0), ("none", 3.0)], kept_in_vain={"empty"})
    queue = FakeQueue({"empty": "{}", "none": None})
    outputs = gallery(store, queue, [0.0])
    for _ in range(3):
        await outputs.list_new()
    assert sorted(queue.asked) == ["empty", "gone", "none"]
    store.unlisted.clear()
    await outputs.list_new()
    assert outputs._look_again_at_s == {}
