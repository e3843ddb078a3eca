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
@pytest.mark.parametrize("asked", [{}, {"Range": "bytes=0-0"}, {"Range": "bytes=5-9"}, {"Range": "bytes=999999-"}])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_answer_is_that_of_the_library(tmp_path: Path, size: int, asked: dict[str, str], method: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    client = client_of(path)
    ours, theirs = (client.request(method, name, headers=asked) for name in ("/ours", "/theirs"))
    if theirs.status_code == 416:
        assert ours.headers["content-range"] == theirs.headers["content-range"]
        assert method == "HEAD" or "behind the end of the file" in ours.json()["error"]
    else:
        assert (ours.headers, ours.content) == (theirs.headers, theirs.content)
    assert ours.status_code == theirs.status_code


@pytest.mark.parametrize("unreadable", ["bytes=5-2", "bytes=a-b", "bytes=0-1,4-5", "items=0-1", "bytes=", "bytes=-"])
def test_a_range_that_cannot_be_read_is_as_if_it_were_not_there(tmp_path: Path, unreadable: str) -> None:
    (tmp_path / "x.png").write_bytes(b"0123456789")
    answer = client_of(tmp_path / "x.png").get("/ours", headers={"Range": unreadable})
    assert (answer.status_code, answer.content) == (200, b"0123456789")


def test_what_is_no_file_is_not_sent(tmp_path: Path) -> None:
    assert client_of(tmp_path).get("/ours").status_code == 404
    assert client_of(tmp_path / "gone").get("/ours").status_code == 404
