"""Files that the server sends: whole, in parts, or not at all."""

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from comfypin.server.file_responses import send_file

SIZES = [0, 1, 1000, 300_000]


def client_of(path: Path) -> TestClient:
    async def ours(request: Request) -> Response:
        return await send_file(request, path, headers={"X-A": "b"}, filename="ü.png") or Response(status_code=404)

    async def theirs(_request: Request) -> Response:
        return FileResponse(path, headers={"X-A": "b"}, filename="ü.png")

    return TestClient(Starlette(routes=[Route("/ours", ours), Route("/theirs", theirs)]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("asked", [{}, {"Range": "bytes=0-0"}, {"Range": "bytes=5-"}, {"Range": "bytes=999999-"}])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_answer_is_that_of_the_library(tmp_path: Path, size: int, asked: dict[str, str], method: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    client = client_of(path)
    ours, theirs = (client.request(method, name, headers=asked) for name in ("/ours", "/theirs"))
    assert (ours.status_code, ours.headers, ours.content) == (theirs.status_code, theirs.headers, theirs.content)


def test_what_is_no_file_is_not_sent(tmp_path: Path) -> None:
    assert client_of(tmp_path).get("/ours").status_code == 404
    assert client_of(tmp_path / "gone").get("/ours").status_code == 404
