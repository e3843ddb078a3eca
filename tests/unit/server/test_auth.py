"""Who may ask what."""

import asyncio
from collections.abc import MutableMapping

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from comfypin.server.auth import AccessRules, Gate


async def echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


def a_client(token: str | None, *, host: str = "localhost") -> TestClient:
    app = Starlette(routes=[Route("/x", echo, methods=["GET", "POST"]), Route("/ping", echo)])
    gate = Gate(app, rules=AccessRules(token=token, max_body_bytes=10))
    return TestClient(gate, base_url=f"http://{host}")


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ("Bearer sesame", 200),
        ("bearer sesame", 200),
        ("sesame", 200),
        ("Bearer sesam", 401),
        ("", 401),
        ("Bearer \xe9", 401),
    ],
)
def test_a_token_is_asked_for(shown: str, status: int) -> None:
    client = a_client("sesame")
    assert client.get("/x", headers={"Authorization": shown.encode("latin-1")}).status_code == status  # type: ignore[dict-item]
    assert client.get("/ping").status_code == 200


@pytest.mark.parametrize(
    ("method", "headers", "beginning"),
    [
        ("GET", {}, "This server wants its token; send it in a header, as curl -H"),
        ("GET", {"Authorization": "Bearer sesam"}, "Authorization does not hold this server's token; "),
        ("GET", {"X-Comfypin-Token": ""}, "X-Comfypin-Token does not hold this server's token; "),
        ("POST", {"Authorization": "Basic YTpzZXNhbWU="}, "A token that is sent as a password may only read; "),
    ],
)
def test_who_is_not_let_in_is_told_how_to_get_in(method: str, headers: dict[str, str], beginning: str) -> None:
    answer = a_client("sesame").request(method, "/x", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"].startswith(beginning)
    assert "open the server's address in a browser and sign in" in answer.json()["error"]


def test_without_a_token_a_name_that_was_rebound_is_refused() -> None:
    assert a_client(None).get("/x").status_code == 200
    assert a_client(None, host="evil.example").get("/x").status_code == 403


def test_pages_of_other_sites_are_refused() -> None:
    assert a_client(None).post("/x", headers={"Origin": "https://evil.example"}).status_code == 403
    assert a_client(None).post("/x", headers={"Origin": "http://localhost"}).status_code == 200


def test_a_body_over_the_limit_is_refused() -> None:
    client = a_client(None)
    assert client.post("/x", content=b"x" * 10).text == "10"
    assert client.post("/x", content=b"x" * 11).status_code == 413


@pytest.mark.parametrize("origin", ["http://[", "http://[]", "http://localhost]", "null"])
def test_an_origin_that_is_no_address_is_refused(origin: str) -> None:
    assert a_client(None).post("/x", headers={"Origin": origin}).status_code == 403


def test_a_length_beside_chunks_is_refused() -> None:
    headers = {"Content-Length": "1", "Transfer-Encoding": "chunked"}
    answer = a_client(None).post("/x", content=b"x", headers=headers)
    assert (answer.status_code, answer.headers.get("connection")) == (400, "close")


@pytest.mark.parametrize(("length", "expect"), [("11", "100-continue"), ("41", None), ("9" * 20, None)])
def test_a_body_is_not_waited_for_if_it_was_not_sent_or_is_far_over_the_limit(length: str, expect: str | None) -> None:
    headers = {"Content-Length": length} | ({"Expect": expect} if expect else {})
    gate = Gate(Starlette(), rules=AccessRules(token=None, max_body_bytes=10))
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/x"}
    raw = [(name.lower().encode(), value.encode()) for name, value in {"Host": "localhost", **headers}.items()]
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        raise AssertionError("the body was asked for")

    async def send(message: MutableMapping[str, object]) -> None:
        sent.append(dict(message))

    asyncio.run(gate({**scope, "headers": raw}, receive, send))
    assert sent[0]["status"] == 413
