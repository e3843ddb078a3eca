"""Sessions of browsers: kept in a file that opens none, ended by signing out, another token, or time."""

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from comfypin.server.auth import AccessRules, Gate
from comfypin.server.prefix import RootPath, valid_prefix
from comfypin.server.sessions import LINK_S, SESSION_S, Sessions
from tests.support.comfy_api import SetClock


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def sessions(tmp_path: Path, clock: SetClock) -> Sessions:
    return Sessions(tmp_path / "sessions.json", token="sesame", clock=clock)


def test_a_session_is_open_until_it_ends(sessions: Sessions, clock: SetClock) -> None:
    session = sessions.begin()
    assert sessions.is_open(session)
    sessions.end(session)
    assert not sessions.is_open(session)
    old = sessions.begin()
    clock.now += SESSION_S + 1
    assert not sessions.is_open(old)


def test_a_restart_keeps_sessions_and_another_token_ends_them(tmp_path: Path, sessions: Sessions) -> None:
    session = sessions.begin()
    path = tmp_path / "sessions.json"
    again = Sessions(path, token="sesame", clock=SetClock())
    assert again.is_open(session)
    assert again.cookie_name == sessions.cookie_name
    assert not Sessions(path, token="another", clock=SetClock()).is_open(session)


def test_the_file_opens_no_session(tmp_path: Path, sessions: Sessions) -> None:
    session = sessions.begin()
    path = tmp_path / "sessions.json"
    assert session not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "[]", "{", '{"sessions": 5, "server": "x"}', '{"server": "a b", "sessions": {}}'])
def test_a_broken_file_signs_everybody_out_and_nothing_more(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sessions.json"
    path.write_text(text)
    sessions = Sessions(path, token="sesame")
    assert sessions.is_open(sessions.begin())
    assert sessions.cookie_name.removeprefix("comfypin_").isalnum()


def test_a_link_signs_in_once_and_within_the_hour(sessions: Sessions, clock: SetClock) -> None:
    code, late = sessions.make_link_code(), sessions.make_link_code()
    assert sessions.redeem_link_code(code)
    assert not sessions.redeem_link_code(code)
    clock.now += LINK_S + 1
    assert not sessions.redeem_link_code(late)
    assert not sessions.redeem_link_code("\udcff")


async def echo(request: Request) -> Response:
    return PlainTextResponse(request.scope["path"])


def a_client(sessions: Sessions) -> TestClient:
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    rules = AccessRules(token="sesame", max_body_bytes=10, sessions=sessions)
    return TestClient(RootPath(Gate(app, rules=rules), prefix="/below"), base_url="http://localhost")


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("GET", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("GET", {"Sec-Fetch-Site": "same-site"}, 401),
        ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ("POST", {}, 401),
        ("POST", {"Origin": "http://localhost"}, 200),
        ("POST", {"Origin": "http://localhost:81"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 200),
        # Behind a proxy that puts its own name into Host.
        ("POST", {"Sec-Fetch-Site": "same-origin", "Origin": "https://public.example"}, 200),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, 401),
        ("POST", {"Sec-Fetch-Site": "none"}, 401),
    ],
)
def test_a_cookie_changes_something_for_the_servers_own_page_alone(
    sessions: Sessions, method: str, headers: dict[str, str], status: int
) -> None:
    cookie = f"other=1; {sessions.cookie_name}={sessions.begin()}"
    assert a_client(sessions).request(method, "/x", headers={"Cookie": cookie, **headers}).status_code == status


def test_each_scheme_has_a_line_of_its_own_and_a_script_is_not_asked_for_a_password(sessions: Sessions) -> None:
    client = a_client(sessions)
    schemes = client.get("/x").headers.get_list("www-authenticate")
    assert [scheme.split()[0] for scheme in schemes] == ["Bearer", "Basic"]
    asked = client.get("/x", headers={"Sec-Fetch-Dest": "empty"}).headers.get_list("www-authenticate")
    assert [scheme.split()[0] for scheme in asked] == ["Bearer"]
    enveloped = client.get("/api/v2/jobs").headers.get_list("www-authenticate")
    assert len(enveloped) == 2


def test_only_the_page_and_signing_in_need_no_token(sessions: Sessions) -> None:
    client = a_client(sessions)
    html = {"Accept": "text/html,*/*"}
    assert client.get("/", headers=html).status_code == 200
    assert client.get("/page/app.js").status_code == 200
    assert client.post("/session").status_code == 200
    assert client.get("/").status_code == 401
    assert client.post("/", headers=html).status_code == 401
    assert client.get("/jobs", headers=html).status_code == 401
    assert client.get("/page/../jobs").status_code == 401


def test_a_proxys_path_is_taken_off(sessions: Sessions) -> None:
    client = a_client(sessions)
    shown = {"Authorization": "Bearer sesame"}
    assert client.get("/below/x/y", headers=shown).text == "/x/y"
    assert client.get("/x/y", headers=shown).text == "/x/y"
    assert client.get("/belowx", headers=shown).text == "/belowx"
    moved = client.get("/below", follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (307, "/below/")


@pytest.mark.parametrize(
    ("text", "prefix"), [("/a/", "/a"), ("/a/b", "/a/b"), ("", ""), ("/", ""), ("a", ""), ("/a b", ""), ("//x", "")]
)
def test_what_is_no_path_is_no_prefix(text: str, prefix: str) -> None:
    assert valid_prefix(text) == prefix
