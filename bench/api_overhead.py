"""What each API of `comfypin serve` costs a job: its seconds over the bare engine's, turn by turn.

    python bench/api_overhead.py [--jobs 40]

The bare engine is an embedded one with its own HTTP API: POST /prompt, wait on the websocket, GET /view. The server
uses the same engine (`--engine-url`). Medians are of whole jobs: sent, waited for, the picture fetched. Exits with 1 if
an API takes more than 15 ms more.
"""

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import aiohttp

ROOT = Path(__file__).parents[1]
MOST_OVERHEAD_S = 0.015
TOKEN = "bench"
Run = Callable[[int], Awaitable[int]]


def workflow(color: int) -> dict[str, object]:
    empty = {"width": 256, "height": 256, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
    }


class Bare:
    """What somebody would write by hand for a ComfyUI."""

    def __init__(self, session: aiohttp.ClientSession, socket_: aiohttp.ClientWebSocketResponse, client: str) -> None:
        self._session, self._socket, self._client = session, socket_, client

    async def run(self, color: int) -> int:
        body = {"prompt": workflow(color), "client_id": self._client}
        async with self._session.post("/prompt", json=body) as answer:
            prompt_id = (await answer.json())["prompt_id"]
        name = ""
        async for message in self._socket:
            said = json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else {}
            data = said.get("data", {})
            if data.get("prompt_id") != prompt_id:
                continue
            if said["type"] == "executed":
                name = data["output"]["images"][0]["filename"]
            elif said["type"] == "execution_success":
                break
        async with self._session.get("/view", params={"filename": name, "type": "output"}) as answer:
            return len(await answer.read())


class Served:
    """The same job by the APIs of a server."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def runsync(self, color: int) -> int:
        async with self._session.post("/runsync", json={"input": {"workflow": workflow(color)}}) as answer:
            said = await answer.json()
            assert "output" in said, said
            return await self._fetch(said["output"])

    async def run_and_stream(self, color: int) -> int:
        async with self._session.post("/run", json={"input": {"workflow": workflow(color)}}) as answer:
            job_id = (await answer.json())["id"]
        headers = {"Accept": "text/event-stream"}
        async with self._session.get(f"/stream/{job_id}", headers=headers) as answer:
            text = await answer.text()
        return await self._fetch(json.loads(text.rpartition("data: ")[2])["output"])

    async def typed(self, color: int) -> int:
        async with self._session.post("/workflows/bench?wait=60000", json={"EmptyImage.color": color}) as answer:
            said = await answer.json()
            assert "output" in said, said
            return await self._fetch(said["output"])

    async def comfy(self, color: int) -> int:
        async with self._session.post("/api/v2/jobs", json={"workflow": workflow(color)}) as answer:
            job_id = (await answer.json())["id"]
        async with self._session.get(f"/api/v2/jobs/{job_id}/events") as answer:
            text = await answer.text()
        output = json.loads(text.rpartition("data: ")[2])["outputs"][0]
        async with self._session.get(output["url"]) as answer:
            return len(await answer.read())

    async def _fetch(self, output: dict[str, list[dict[str, str]]]) -> int:
        async with self._session.get(output["images"][0]["data"]) as answer:
            return len(await answer.read())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def wait_until_ready(session: aiohttp.ClientSession, path: str) -> None:
    while True:
        try:
            async with session.get(path) as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.05)


async def measure(jobs: int, work: Path) -> dict[str, float]:
    engine_port, port = free_port(), free_port()
    (work / "workflows").mkdir()
    (work / "workflows" / "bench.json").write_text(json.dumps(workflow(0)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD", "OUTPUT", "COMFY"))}
    environ = {**kept, "HOME": str(work), "COMFYPIN_TOKEN": TOKEN}
    module = [sys.executable, "-m"]
    engine = [*module, "comfypin.engine.embedded", "--port", str(engine_port), "--base-directory", str(work / "engine")]
    serve = [
        *(*module, "comfypin.cli.main", "serve", "--port", str(port)),
        *("--lock", str(ROOT / "lockfiles" / "comfy-demo.lock.json")),
        *("--engine-url", f"http://127.0.0.1:{engine_port}", "--state-dir", str(work / "state")),
        *("--output-dir", str(work / "outputs"), "--concurrency", "1"),
    ]
    with ExitStack() as stack, (work / "log").open("ab") as log:
        for command in (engine, serve):
            process = subprocess.Popen(command, cwd=work, env=environ, stdout=log, stderr=log)  # noqa: ASYNC220
            stack.callback(process.wait)
            stack.callback(process.terminate)
        client = uuid.uuid4().hex
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{engine_port}") as bare_session,
            aiohttp.ClientSession(
                f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}
            ) as served_session,
        ):
            await wait_until_ready(bare_session, "/system_stats")
            await wait_until_ready(served_session, "/ping")
            async with bare_session.ws_connect(f"/ws?clientId={client}") as websocket:
                bare, served = Bare(bare_session, websocket, client), Served(served_session)
                runs: dict[str, Run] = {
                    "bare engine": bare.run,
                    "/runsync": served.runsync,
                    "/run, /stream": served.run_and_stream,
                    "/workflows/NAME": served.typed,
                    "/api/v2": served.comfy,
                }
                return await _turn_by_turn(runs, jobs)


async def _turn_by_turn(runs: dict[str, Run], jobs: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(jobs + 3):
        for number, (name, run) in enumerate(runs.items()):
            began = time.perf_counter()
            # A colour of its own: what the engine has in its cache is not made again.
            assert await run(turn * len(runs) + number + 1) > 0
            if turn >= 3:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in seconds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=40)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, aiohttp {version('aiohttp')}, {os.cpu_count()} cores, load {load:.1f}")
    with tempfile.TemporaryDirectory(prefix="bench-api-") as work:
        medians = asyncio.run(measure(arguments.jobs, Path(work)))
    bare_s = medians.pop("bare engine")
    print(f"bare engine      {bare_s * 1000:7.1f} ms a job, median of {arguments.jobs}")
    for name, seconds in medians.items():
        print(f"{name:16} {seconds * 1000:7.1f} ms, {(seconds - bare_s) * 1000:+.1f} ms")
    return int(max(medians.values()) - bare_s > MOST_OVERHEAD_S)


if __name__ == "__main__":
    sys.exit(main())
