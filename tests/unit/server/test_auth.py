"""Who may ask what."""

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
