"""What a server tells of its fleet: asked once for all, and nothing if it runs its jobs itself."""

import asyncio
from pathlib import Path

from comfypin.digest import JsonValue
from comfypin.server.fleet_routes import FleetReader
from tests.support.comfy_api import local_api


async def test_many_who_ask_at_once_are_one_question_to_the_queue() -> None:
    asked = 0
    now_s = 100.0

    async def read_fleet() -> dict[str, JsonValue]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return {"workers": asked}

    reader = FleetReader(read_fleet, clock=lambda: now_s)
    assert await asyncio.gather(*(reader.read() for _ in range(20))) == [{"workers": 1}] * 20
    now_s += 1.9
    assert await reader.read() == {"workers": 1}
    now_s += 0.2
    assert await reader.read() == {"workers": 2}


def test_a_server_that_runs_its_jobs_itself_has_no_fleet(tmp_path: Path) -> None:
    with local_api(tmp_path) as local:
        answer = local.client.get("/fleet")
        assert (answer.status_code, "--queue" in answer.json()["error"]) == (404, True)
        assert local.client.get("/system").json()["engine"]["kind"] == "embedded"
