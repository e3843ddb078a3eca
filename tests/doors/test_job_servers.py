"""`comfypin submit` and `comfypin jobs` with wrong words, and against servers that are dead, wrong or hostile."""

import contextlib
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from comfypin.cli.main import main
from tests.support.scripted_server import answering, answering_by
from tests.support.workflows import load, picture

HEALTH = {"jobs": {}, "workers": {}, "problems": []}
JSON = {"Content-Type": "application/json"}
Answers = dict[str, tuple[int, object]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("COMFYPIN_SERVER", "COMFYPIN_TOKEN", "RUNPOD_API_KEY", "RUNPOD_ENDPOINT_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    Path("w.json").write_text(json.dumps(picture(1)))
    Path("load.json").write_text(json.dumps(load("?")))
    Path("ui.json").write_text('{"nodes": [], "links": [], "version": 0.4}')
    Path("half.json").write_text('{"1": {')
    Path("cat.png").write_bytes(b"x")
    return tmp_path


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Runs a command with --json: its exit code and its one document; stderr has one sentence on failure."""

    def run(*words: str) -> tuple[int, Any]:
        code = main([*words, "--json"])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, json.loads(printed.out)

    return run


class Scripted:
    """A server of scripted answers by method and path, and the requests that it got."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    def decide(self, handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        line = f"{handler.command} {handler.path.partition('?')[0]}"
        self.requests.append((line, dict(handler.headers.items()), body))
        status, document = self.answers.get(line, (404, {"error": "There is no such path."}))
        return status, document if isinstance(document, str) else json.dumps(document)


@pytest.fixture
def scripted() -> Iterator[Callable[[Answers], tuple[str, Scripted]]]:
    with contextlib.ExitStack() as stack:

        def start(answers: Answers) -> tuple[str, Scripted]:
            server = Scripted(answers)
            return stack.enter_context(answering_by(server.decide, JSON)), server

        yield start


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["submit"], 64),
        (["submit", "w.json"], 64),
        (["submit", "w.json", "--server", "localhost:8000"], 64),
        (["submit", "w.json", "--server", ""], 64),
        (["submit", "w.json", "--server", "ftp://x"], 64),
        (["submit", "w.json", "--server", "runpod://a/b"], 64),
        (["submit", "w.json", "--server", "runpod://abc"], 3),
        (["submit", "w.json", "--server", "https://api.runpod.ai/v2/abc"], 3),
        (["submit", "w.json", "--server", "http://127.0.0.1:1"], 71),
        (["submit", "w.json", "--server", "http://127.0.0.1:1/api/v2"], 71),
        (["submit", "w.json", "--server", "http://127.0.0.1:1", "--token", "x"], 64),
        (["submit", "w.json", "--server", "http://127.0.0.1:1", "--set", "nonsense"], 11),
        (["submit", "w.json", "--server", "http://127.0.0.1:1", "--input", "nonsense"], 64),
        (["submit", "w.json", "--server", "http://127.0.0.1:1", "--input", "1=nowhere.png"], 64),
        (["submit", "w.json", "--server", "http://127.0.0.1:1", "--input", "1=."], 64),
        (["submit", "w.json", "--server", "http://127.0.0.1:1", "--timeout", "-1"], 64),
        (["submit", "nowhere.json", "--server", "http://127.0.0.1:1"], 11),
        (["submit", "half.json", "--server", "http://127.0.0.1:1"], 11),
        (["submit", "ui.json", "--server", "http://127.0.0.1:1/api/v2"], 64),
        (["submit", "w.json", "--server", "http://127.0.0.1:1/api/v2", "--randomize-seeds"], 64),
        (["submit", "w.json", "--server", "http://127.0.0.1:1/api/v2", "--set", "9.x=1"], 11),
        (["submit", "w.json", "--server", "http://127.0.0.1:1/api/v2", "--input", "1=cat.png"], 11),
        (["submit", "load.json", "--server", "http://127.0.0.1:1/api/v2", "--input", "1=https://x/y.png"], 64),
        (["jobs"], 64),
        (["jobs", "list"], 64),
        (["jobs", "ls"], 64),
        (["jobs", "ls", "--server", "http://127.0.0.1:1", "--limit", "0"], 64),
        (["jobs", "ls", "--server", "http://127.0.0.1:1", "--state", "done"], 64),
        (["jobs", "show", "--server", "http://127.0.0.1:1"], 64),
        (["jobs", "show", " ", "--server", "http://127.0.0.1:1"], 64),
        (["jobs", "watch", "x", "--server", "http://127.0.0.1:1", "--timeout", "never"], 64),
        (["jobs", "cancel", "x", "--server", "http://127.0.0.1:1"], 71),
    ],
)
def test_bad_words_are_one_sentence_and_a_code(words: list[str], code: int, ask: Any) -> None:
    found, told = ask(*words)
    assert found == code, told
    assert told["error"]["message"].count("\n") == 0 or code == 11


@pytest.mark.parametrize("path", ["", "/api/v2"])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((200, "<html>login</html>", {"Content-Type": "text/html"}), "ServerUnknown"),
        ((404, "<html>none</html>", {"Content-Type": "text/html"}), "ServerUnknown"),
        ((200, "", {}), "ServerUnknown"),
        ((200, "[" * 100_000, JSON), "ServerUnknown"),
        ((200, "[1]", JSON), "ServerUnknown"),
        ((200, '"\\ud800"', JSON), "ServerUnknown"),
        ((302, "", {"Location": "https://elsewhere.example/?secret=1"}), "ServerUnknown"),
        ((401, "{}", JSON), "TokenMissing"),
        ((403, "<html>no</html>", {"Content-Type": "text/html"}), "TokenMissing"),
    ],
)
def test_what_is_no_server_of_jobs_is_said(
    path: str, answer: tuple[int, str, dict[str, str]], error: str, ask: Any
) -> None:
    with answering(*answer) as url:
        for words in (["submit", "w.json"], ["jobs", "show", "x"]):
            code, told = ask(*words, "--server", url + path)
            assert told["error"]["error"] == error
            assert code == {"ServerUnknown": 71, "TokenMissing": 3}[error]
            assert "secret" not in told["error"]["message"]


def test_a_wrong_token_is_said_and_not_shown(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYPIN_TOKEN", "wr0ng")
    with answering(401, "{}", JSON) as url:
        code, told = ask("jobs", "ls", "--server", url)
    assert (code, told["error"]["error"]) == (3, "TokenRefused")
    assert "wr0ng" not in json.dumps(told)


def test_a_token_with_a_line_break_is_refused(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYPIN_TOKEN", "a\nb")
    assert ask("jobs", "ls", "--server", "http://127.0.0.1:1")[0] == 3


def test_a_token_crosses_no_network_in_the_clear(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYPIN_TOKEN", "t")
    code, told = ask("jobs", "ls", "--server", "http://192.0.2.7:8000")
    assert (code, told["error"]["error"]) == (3, "TokenExposed")


def test_the_default_server_is_a_variable(ask: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, _ = scripted({"GET /health": (200, HEALTH), "GET /jobs": (200, {"jobs": [], "next": None})})
    monkeypatch.setenv("COMFYPIN_SERVER", f"{url}/")
    code, told = ask("jobs", "ls")
    assert (code, told["jobs"], told["server"]) == (0, [], {"url": url, "api": "comfypin serve"})


def test_the_list_of_serve_is_used_where_it_is(ask: Any, scripted: Any) -> None:
    job = {
        "id": "j1", "status": "IN_PROGRESS", "workflow": "portrait", "release": "demo", "api": "workflows",
        "created_at": "2026-01-01T00:00:00.000Z", "started_at": None, "finished_at": None, "position": 2,
        "estimate_s": 12.5,
        "progress": {"fraction": 0.5, "node_id": "3", "node_title": "Sampler", "step": 1, "steps": 2},
        "error": None, "output_count": 0, "warnings": 0,
    }  # fmt: skip
    url, server = scripted(
        {"GET /health": (200, HEALTH), "GET /jobs": (200, {"jobs": [job], "next": None}), "GET /jobs/j1": (200, job)}
    )
    _, told = ask("jobs", "ls", "--server", url, "--text", "a cat", "--state", "in_progress")
    assert {name: told["jobs"][0][name] for name in job if name != "progress"} == {
        name: value for name, value in job.items() if name != "progress"
    }
    assert told["jobs"][0]["progress"]["node_title"] == "Sampler"
    assert ask("jobs", "show", "j1", "--server", url)[1]["job"]["position"] == 2
    assert not any(line.startswith("GET /status") for line, _, _ in server.requests)


def test_a_broken_connection_while_sending_is_not_sent_again(ask: Any) -> None:
    def break_off(handler: BaseHTTPRequestHandler) -> tuple[int, str] | tuple[int, str, dict[str, str]]:
        if handler.path == "/health":
            return 200, json.dumps(HEALTH)
        posts.append(handler.path)
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        # No chunk: the answer ends before its end.
        return 200, "none\r\n", {"Transfer-Encoding": "chunked"}

    posts: list[str] = []
    with answering_by(break_off, JSON) as url:
        code, told = ask("submit", "w.json", "--server", url)
    assert (code, told["error"]["error"], len(posts)) == (71, "SubmissionUnknown", 1)


def test_another_products_api_v2_is_spoken_to_by_its_contract(ask: Any, scripted: Any) -> None:
    prefix = "/deployment/7/api/v2"
    job = {
        "id": "j1", "status": "succeeded", "created_at": "2026-01-01T00:00:00Z", "started_at": None,
        "completed_at": None, "expires_at": "2026-01-02T00:00:00Z", "queue_position": None, "progress": None,
        "error": None,
        "outputs": [{"node_id": "2", "name": "a.txt", "type": "text", "content_type": "text/plain", "size_bytes": 5,
                     "id": "o1", "hash": None, "url": f"{prefix}/assets/o1/content", "url_expires_at": "x"}],
        "urls": {"self": f"{prefix}/jobs/j1", "events": f"{prefix}/jobs/j1/events", "cancel": f"{prefix}/jobs/j1/stop"},
    }  # fmt: skip
    asset = {"id": "a1", "hash": None, "file_path": "cat.png", "size_bytes": 1, "content_type": "image/png"}
    url, server = scripted(
        {
            f"POST {prefix}/assets": (201, asset),
            f"POST {prefix}/jobs": (201, job),
            f"GET {prefix}/jobs/j1": (200, job),
            f"POST {prefix}/jobs/j1/stop": (200, job),
            f"GET {prefix}/jobs": (405, {"error": {"code": "method_not_allowed", "message": "No."}}),
            f"GET {prefix}/assets/o1/content": (200, "hello"),
        }
    )
    address = url + prefix
    code, told = ask("submit", "load.json", "--input", "1=cat.png", "--server", address)
    assert (code, [one["path"] for one in told["saved"]]) == (0, ["out/a.txt"])
    assert Path("out/a.txt").read_text() == "hello"
    (sent,) = [(headers, body) for line, headers, body in server.requests if line == f"POST {prefix}/jobs"]
    reference = {"__type": "core/ASSET", "info": {"id": "a1", "file_path": "cat.png"}}
    assert json.loads(sent[1])["workflow"]["1"]["inputs"]["image"] == reference
    assert len(sent[0]["Idempotency-Key"]) == 36
    assert ask("jobs", "cancel", "j1", "--server", address)[0] == 0
    assert ask("jobs", "ls", "--server", address)[1]["error"]["error"] == "NotOffered"


@pytest.mark.parametrize(
    "answer",
    [
        (500, {"error": {"code": "upstream_error", "message": "Broken."}}),
        (422, {"error": {"code": "invalid_workflow", "message": "Node 1."}}),
        (400, {"error": "The request is invalid."}),
        (500, "<html>oops</html>"),
    ],
)
@pytest.mark.parametrize("path", ["/api/v2/jobs", "/run"])
def test_a_refusal_is_told_in_the_servers_words(ask: Any, scripted: Any, path: str, answer: tuple[int, object]) -> None:
    url, _ = scripted({"GET /health": (200, HEALTH), f"POST {path}": answer})
    code, told = ask("submit", "w.json", "--server", url + path.removesuffix("/jobs").removesuffix("/run"))
    assert (code, told["error"]["error"]) == (71, "ServerRefused")
    assert told["error"]["facts"]["status"] == answer[0]


def test_nothing_that_a_server_says_steers_the_terminal(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    job = {"id": "\x1b[2Jj", "status": "FAILED", "error": "a\x1b[31mb", "output": {"warnings": ["\x1b[H"]}}
    url, _ = scripted({"GET /health": (200, HEALTH), "GET /status/j": (200, job), "GET /jobs": (200, {"jobs": [job]})})
    for words in (["jobs", "show", "j"], ["jobs", "ls"], ["jobs", "watch", "j"]):
        main([*words, "--server", url])
        printed = capsys.readouterr()
        assert "\x1b" not in printed.out + printed.err
