"""A job that is asked for once more."""

from types import SimpleNamespace
from typing import Any, cast

from comfypin.digest import JsonValue
from comfypin.queue.interface import JobRow, ServedQueue
from comfypin.server.job_intake import take_job_again

INPUT: dict[str, JsonValue] = {"workflow_name": "demo", "set": {"3.seed": 5, "3.steps": 9, "4.noise_seed": "random"}}


class OneJob:
    """A queue that holds one job, and notes what it is given."""

    taken: Any = None

    async def read_record(self, job_id: str) -> object:
        return SimpleNamespace(row=JobRow(id=job_id, state="COMPLETED", created_at=0.0))

    async def had_secrets(self, _job_id: str) -> bool:
        return False

    async def read_input(self, _job_id: str) -> JsonValue:
        return INPUT

    async def accept_job(self, job_input: JsonValue, **_facts: object) -> str:
        self.taken = job_input
        return "new"


async def test_the_same_is_asked_for_unless_new_seeds_are_wanted() -> None:
    queue = OneJob()
    assert await take_job_again(cast("ServedQueue", queue), "old") == "new"
    assert queue.taken == INPUT
    await take_job_again(cast("ServedQueue", queue), "old", new_seeds=True)
    drawn = {"3.seed": "random", "3.steps": 9, "4.noise_seed": "random"}
    assert queue.taken == {"workflow_name": "demo", "set": drawn, "randomize_seeds": True}
