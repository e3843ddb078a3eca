"""The embedded engine as a child process, started and stopped as a ComfyUI is."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Child:
    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    async def ready(self) -> None:
        async with aiohttp.ClientSession() as session:
            while self.process.returncode is None:
                try:
                    async with session.get(f"{self.url}/system_stats") as answer:
                        assert answer.status == 200
                        return
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.02)
        raise AssertionError("the engine ended before it was ready")


@pytest.fixture
async def child(tmp_path: Path) -> AsyncIterator[Child]:
    port = free_port()
    folders = [word for kind in ("input", "output", "temp") for word in (f"--{kind}-directory", str(tmp_path / kind))]
    command = ["-m", "comfypin.engine.embedded", "--listen", "127.0.0.1", "--port", str(port), *folders]
    flags = [
        "--disable-auto-launch",
        "--cpu",
        "--max-upload-size",
        "1",
        "--fast",
        "--preview-method",
        "auto",
        "--frobnicate",
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, *flags, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    yield Child(process, port)
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def test_it_takes_comfyuis_flags_and_names_the_one_it_does_not_know(child: Child) -> None:
    await child.ready()
    assert child.process.stderr is not None
    assert (
        await child.process.stderr.readline()
        == b"warning: the embedded engine ignores what it does not know: --frobnicate\n"
    )


async def test_it_makes_its_folders_and_keeps_previews_where_comfyui_does(child: Child, tmp_path: Path) -> None:
    await child.ready()
    assert all((tmp_path / each).is_dir() for each in ("input", "output", "temp/temp"))


async def test_sigterm_ends_it_while_a_node_runs(child: Child) -> None:
    await child.ready()
    blur = {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 31, "sigma": 9.0}}
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 2048, "height": 2048, "batch_size": 4, "color": 7}},
        "2": blur,
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{child.url}/ws?clientId=c") as events:
            await session.post(f"{child.url}/prompt", json={"prompt": graph, "client_id": "c"})
            while (await events.receive_json())["data"].get("node") != "2":
                pass
        child.process.terminate()
    assert await asyncio.wait_for(child.process.wait(), 10) == -signal.SIGTERM


async def test_a_port_that_is_taken_is_named(child: Child, tmp_path: Path) -> None:
    await child.ready()
    port = child.url.rsplit(":", 1)[1]
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "comfypin.engine.embedded", "--port", port, "--input-directory", str(tmp_path),
        "--output-directory", str(tmp_path), "--temp-directory", str(tmp_path), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await second.communicate()
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in errors.decode()
    assert "Traceback" not in errors.decode()
