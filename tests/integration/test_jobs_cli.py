"""`comfypin submit` and `comfypin jobs` against `comfypin serve`, by each of the APIs that it speaks."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfypin.cli.main import main
from comfypin.client.comfy_server import ComfyServer
from comfypin.client.interface import RemoteJob
from comfypin.client.runpod_server import RunpodServer
from tests.support.server import TOKEN, Server, serving
from tests.support.workflows import load, picture, slow

APIS = ("serve", "runpod", "comfy")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serve"), "--concurrency", "1") as running:
        yield running


@pytest.fixture(autouse=True)
def environment(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMFYPIN_SERVER", server.url)
    monkeypatch.setenv("COMFYPIN_TOKEN", TOKEN)
    # What stands for Runpod: the same paths below /v2/ENDPOINT.
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", f"{server.url}/v2")
    monkeypatch.setenv("RUNPOD_API_KEY", TOKEN)


@pytest.fixture(params=APIS)
def address(request: pytest.FixtureRequest, server: Server) -> str:
    return {"serve": server.url, "runpod": "runpod://abc123", "comfy": f"{server.url}/api/v2"}[request.param]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """Runs a command with --json in this process: its exit code, its one document, its stderr."""

    def run(*words: object) -> tuple[int, Any, str]:
        code = main([*map(str, words), "--json"])
        printed = capsys.readouterr()
        return code, json.loads(printed.out), printed.err

    return run


def workflow_file(folder: Path, graph: dict[str, Any]) -> Path:
    path = folder / "workflow.json"
    path.write_text(json.dumps(graph))
    return path


def test_a_workflow_is_sent_followed_and_its_picture_saved(ask: Any, address: str, tmp_path: Path) -> None:
    workflow = workflow_file(tmp_path, picture(0xFF0000))
    code, told, err = ask("submit", workflow, "--server", address, "--set", "1.width=40", "--out-dir", "pictures")
    assert (code, told["job"]["status"]) == (0, "COMPLETED")
    (saved,) = told["saved"]
    picture_made = Image.open(saved["path"])
    assert (picture_made.size, picture_made.convert("RGB").getpixel((0, 0))) == ((40, 64), (255, 0, 0))
    assert told["server"]["url"] == address
    assert told["server"]["api"] in err
    assert all(json.loads(line)["event"] for line in err.splitlines())


def test_paths_are_printed_one_a_line(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", str(workflow_file(tmp_path, picture(1))), "--server", address]) == 0
    # The server's files count up.
    assert re.fullmatch(r"out/out_\d{5}_\.png\n", capsys.readouterr().out)


def test_a_detached_job_is_shown_watched_and_downloaded(ask: Any, address: str, tmp_path: Path) -> None:
    code, sent, _ = ask("submit", workflow_file(tmp_path, slow(10)), "--server", address, "--detach")
    job_id = sent["job"]["id"]
    assert (code, list(tmp_path.iterdir())) == (0, [tmp_path / "workflow.json"])
    assert ask("jobs", "show", job_id, "--server", address)[1]["job"]["id"] == job_id
    assert ask("jobs", "watch", job_id, "--server", address)[1]["job"]["status"] == "COMPLETED"
    for _ in range(2):
        code, told, _ = ask("jobs", "download", job_id, "--server", address, "--out-dir", "there")
        assert code == 0
    assert Image.open(told["saved"][0]["path"]).size == (96, 96)


@pytest.mark.parametrize("size", [32, 900], ids=["small", "large"])
def test_an_input_file_goes_along(ask: Any, address: str, tmp_path: Path, size: int) -> None:
    photo = tmp_path / "my photo.png"
    # Noise, so that the large one has over a megabyte.
    Image.frombytes("RGB", (size, size), os.urandom(size * size * 3)).save(photo)
    workflow = workflow_file(tmp_path, load("?"))
    code, told, _ = ask("submit", workflow, "--server", address, "--input", f"LoadImage={photo}")
    assert code == 0
    assert Image.open(told["saved"][0]["path"]).tobytes() == Image.open(photo).tobytes()


def test_what_is_too_large_for_runpod_is_said_before_it_is_sent(ask: Any, tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(bytes(9_000_000))
    words = ("submit", workflow_file(tmp_path, load("?")), "--input", "1=big.png", "--server", "runpod://abc123")
    code, told, _ = ask(*words)
    assert (code, told["error"]["error"]) == (64, "InputsTooLarge")
    assert "--input NODE=https://" in told["error"]["message"]


def test_a_running_job_is_cancelled(ask: Any, address: str, tmp_path: Path) -> None:
    _, sent, _ = ask("submit", workflow_file(tmp_path, slow(3000)), "--server", address, "--detach")
    job_id = sent["job"]["id"]
    code, told, _ = ask("jobs", "watch", job_id, "--server", address, "--timeout", "0.3")
    assert (code, told["error"]["error"]) == (22, "WaitedLongEnough")
    assert ask("jobs", "cancel", job_id, "--server", address)[0] == 0
    code, told, _ = ask("jobs", "watch", job_id, "--server", address)
    assert (code, told["error"]["facts"]["status"]) == (21, "CANCELLED")
    assert ask("jobs", "download", job_id, "--server", address)[0] == 21


def test_a_job_that_fails_says_why(ask: Any, address: str, tmp_path: Path) -> None:
    graph = picture(1)
    graph["2"]["class_type"] = "SaveNothing"
    code, told, _ = ask("submit", workflow_file(tmp_path, graph), "--server", address)
    assert code in (21, 71)
    assert "SaveNothing" in told["error"]["message"]


@pytest.mark.parametrize("api", APIS)
def test_a_job_is_run_again_if_the_api_can(ask: Any, api: str, server: Server, tmp_path: Path) -> None:
    address = {"serve": server.url, "runpod": "runpod://abc123", "comfy": f"{server.url}/api/v2"}[api]
    graph = picture(1)
    if api != "comfy":
        graph["2"]["class_type"] = "SaveNothing"
    _, sent, _ = ask("submit", workflow_file(tmp_path, graph), "--server", address, "--detach")
    job_id = sent["job"]["id"]
    ask("jobs", "watch", job_id, "--server", address)
    code, again, _ = ask("jobs", "retry", job_id, "--server", address)
    assert (code, again["job"]["id"] == job_id) == (0, api != "comfy")
    ask("jobs", "watch", again["job"]["id"], "--server", address)


def test_a_completed_job_is_not_run_again_by_runpods_retry(ask: Any, tmp_path: Path) -> None:
    _, done, _ = ask("submit", workflow_file(tmp_path, picture(1)))
    code, told, _ = ask("jobs", "retry", done["job"]["id"], "--server", "runpod://abc123")
    assert (code, told["error"]["error"]) == (71, "NotOffered")
    assert "COMPLETED" in told["error"]["message"]


def test_what_a_completed_job_asked_for_becomes_a_new_job_of_comfypin_serve(
    ask: Any, server: Server, tmp_path: Path
) -> None:
    _, done, _ = ask("submit", workflow_file(tmp_path, picture(1)), "--set", "1.color=255")
    code, again, _ = ask("jobs", "retry", done["job"]["id"])
    assert code == 0
    assert again["job"]["id"] != done["job"]["id"]
    _, watched, _ = ask("jobs", "watch", again["job"]["id"])
    shas = [job["job"]["outputs"][0]["sha256"] for job in (done, watched)]
    assert shas[0] == shas[1]


@pytest.mark.parametrize(("path", "server_class"), [("", RunpodServer), ("/api/v2", ComfyServer)])
def test_a_server_that_tells_of_a_job_is_not_polled(  # noqa: PLR0917
    path: str, server_class: Any, ask: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, show = list[str](), server_class.show

    def counted(self: Any, job_id: str) -> RemoteJob:
        shown.append(job_id)
        return show(self, job_id)  # type: ignore[no-any-return]

    monkeypatch.setattr(server_class, "show", counted)
    code, _, err = ask("submit", workflow_file(tmp_path, slow(100)), "--server", f"{server.url}{path}")
    assert code == 0
    told = [json.loads(line) for line in err.splitlines()]
    assert any(one["event"] == "job" and one["progress"] for one in told)
    assert len(shown) == 2, "as it was sent, and with its outputs"


def test_a_long_list_is_read_page_by_page(ask: Any, server: Server, tmp_path: Path) -> None:
    sent = [ask("submit", workflow_file(tmp_path, picture(n)), "--detach")[1]["job"]["id"] for n in (1, 2, 3)]
    first = ask("jobs", "ls", "--release", "demo", "--limit", "2")[1]
    second = ask("jobs", "ls", "--release", "demo", "--limit", "1", "--after", first["next"])[1]
    assert [job["id"] for job in (*first["jobs"], *second["jobs"])] == sent[::-1]
    assert ask("jobs", "ls", "--release", "nobody's")[1] == {**second, "jobs": [], "next": None}


def test_jobs_are_listed_newest_first_by_every_api_that_lists(ask: Any, server: Server, tmp_path: Path) -> None:
    sent = [ask("submit", workflow_file(tmp_path, picture(n)))[1]["job"]["id"] for n in (1, 2)]
    for address in (server.url, f"{server.url}/api/v2"):
        code, told, _ = ask("jobs", "ls", "--server", address, "--state", "completed", "--limit", "2")
        assert (code, [job["id"] for job in told["jobs"]]) == (0, sent[::-1])
    code, told, _ = ask("jobs", "ls", "--server", "runpod://abc123")
    assert (code, told["error"]["error"]) == (71, "NotOffered")


def test_the_table_and_the_page_of_a_job_are_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["submit", str(workflow_file(tmp_path, picture(1))), "--detach"])
    job_id = capsys.readouterr().out.strip()
    assert main(["jobs", "watch", job_id]) == 0
    assert "out_00001_.png" in capsys.readouterr().out
    assert main(["jobs", "ls"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == [job_id, "COMPLETED"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "terminated"]
)
def test_a_signal_ends_the_following_and_not_the_job(
    ask: Any, server: Server, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "comfypin.cli.main", "submit", str(workflow_file(tmp_path, slow(3000))), "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        job_id = next(
            told["message"].removeprefix("Sent as job ").rstrip(".")
            for told in map(json.loads, process.stderr)
            if told.get("message", "").startswith("Sent as job")
        )
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    failure = json.loads(out)["error"]
    assert failure["facts"]["job_id"] == job_id
    for words in (f"comfypin jobs watch {job_id} --server {server.url}", f"comfypin jobs cancel {job_id}"):
        assert words in failure["message"]
        assert words in err
    assert server.get(f"/status/{job_id}")["status"] in ("IN_QUEUE", "IN_PROGRESS")
    ask("jobs", "cancel", job_id)


def test_a_server_that_is_killed_and_started_again_is_followed_on(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "comfypin.cli.main", "submit", str(workflow_file(tmp_path, slow(150))), "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "Sent as job" in line)
        server.kill()
        next(line for line in process.stderr if "asking again" in line)
        server.start()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    told = json.loads(out)
    assert told["job"]["status"] == "COMPLETED"
    assert (tmp_path / told["saved"][0]["path"]).is_file()
    assert "answers again" in err
