"""The embedded engine inside a test's own event loop, and a client that speaks to it as ComfyUI's clients do."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import ClientWebSocketResponse
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from comfypin.engine.embedded.arguments import EngineArguments
from comfypin.engine.embedded.engine import EmbeddedEngine
from comfypin.engine.embedded.releases import DEFAULT_RELEASE, ComfyRelease
from comfypin.engine.embedded.server import make_app

ENDED = "executing"


class Embedded:
    """A running embedded engine."""

    def __init__(self, client: "TestClient[Any, Any]", engine: EmbeddedEngine) -> None:
        self.client = client
        self.engine = engine

    @property
    def folders(self) -> Any:
        return self.engine.folders

    async def post(self, body: object, path: str = "/prompt") -> tuple[int, Any]:
        async with self.client.post(path, json=body) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    async def get(self, path: str) -> Any:
        async with self.client.get(path) as answer:
            return await answer.json()

    async def run(self, graph: Mapping[str, Any], **fields: object) -> dict[str, Any]:
        """Submit a graph and wait for its entry in the history."""
        status, answer = await self.post({"prompt": graph, **fields})
        assert status == 200, answer
        return await self.ended(answer["prompt_id"])

    async def ended(self, prompt_id: str) -> dict[str, Any]:
        while not (found := await self.get(f"/history/{prompt_id}")):  # noqa: ASYNC110, as clients poll
            await asyncio.sleep(0.005)
        entry: dict[str, Any] = found[prompt_id]
        return entry

    async def pixels(self, entry: Mapping[str, Any]) -> list[Image.Image]:
        """The pictures that a run left, in the order of the history."""
        pictures = []
        for output in entry["outputs"].values():
            for file in output.get("images", ()):
                async with self.client.get("/view", params=file) as answer:
                    pictures.append(Image.open(io.BytesIO(await answer.read())))
        return pictures

    @contextlib.asynccontextmanager
    async def listening(self, client_id: str) -> AsyncIterator[ClientWebSocketResponse]:
        async with self.client.ws_connect(f"/ws?clientId={client_id}") as socket:
            assert (await socket.receive_json())["data"]["sid"] == client_id
            yield socket

    async def watch(self, graph: Mapping[str, Any], client_id: str = "watcher") -> list[dict[str, Any]]:
        """Every message of a run, from its submission to its end."""
        messages = []
        async with self.listening(client_id) as socket:
            status, answer = await self.post({"prompt": graph, "client_id": client_id})
            assert status == 200, answer
            while True:
                messages.append(await socket.receive_json())
                if messages[-1]["type"] == ENDED and messages[-1]["data"]["node"] is None:
                    return messages


@contextlib.asynccontextmanager
async def embedded_engine(
    root: Path, *, max_upload_bytes: int = 100 << 20, release: ComfyRelease = DEFAULT_RELEASE
) -> AsyncIterator[Embedded]:
    """An embedded engine over folders below `root`, on a free port of the loopback."""
    arguments = EngineArguments(
        listen="127.0.0.1",
        port=0,
        input=root / "input",
        output=root / "output",
        temp=root / "temp",
        max_upload_bytes=max_upload_bytes,
        release=release,
    )
    engine = EmbeddedEngine(arguments)
    async with TestClient(TestServer(make_app(engine))) as client:
        yield Embedded(client, engine)


def load(name: str) -> dict[str, Any]:
    return {"class_type": "LoadImage", "inputs": {"image": name}}


def save(source: str, slot: int = 0, prefix: str = "t") -> dict[str, Any]:
    return {"class_type": "SaveImage", "inputs": {"images": [source, slot], "filename_prefix": prefix}}


def empty(**inputs: object) -> dict[str, Any]:
    values = {"width": 8, "height": 8, "batch_size": 1, "color": 0, **inputs}
    return {"class_type": "EmptyImage", "inputs": values}


def node(class_type: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def picture(path: Path, *, seed: int = 0, size: tuple[int, int] = (32, 24)) -> Path:
    """A file of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path
