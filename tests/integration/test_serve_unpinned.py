"""`comfypin serve --engine-url` on a ComfyUI that runs already: no lock is needed, and everything says so."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from comfypin.cli.main import main
from tests.integration.test_run_unpinned import engine_url as engine_url  # noqa: PLC0414 - a fixture
from tests.support.browser import a_browser, axe_violations, opened
from tests.support.server import Server, serving
from tests.support.workflows import picture


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, engine_url: str) -> Iterator[Server]:
    unset = {"LOCK_PATH": "", "COMFY_VERSION_NAME": ""}
    home = tmp_path_factory.mktemp("unpinned")
    with serving(home, "--engine-url", engine_url, lock=None, environ=unset) as running:
        running.post("/runsync", {"input": {"workflow": picture(7, size=96)}})
        yield running


def test_without_a_lock_everything_is_unpinned(server: Server, engine_url: str) -> None:
    (job,) = server.get("/jobs")["jobs"]
    output = server.get(f"/status/{job['id']}")["output"]
    assert (output["release"], output["release_digest"]) == ("unpinned", None)
    assert job["release"] == "unpinned"
    assert server.get("/outputs")["outputs"][0]["release"] == "unpinned"
    health = server.get("/health")
    assert (health["release"], health["release_digest"]) == ("unpinned", None)
    system = server.get("/system")
    assert system["release"] == {"name": "unpinned", "digest": None}
    assert (system["engine"]["kind"], system["engine"]["custom_nodes"]) == ("remote", None)
    assert system["engine"]["address"].rstrip("/") == engine_url.rstrip("/")
    assert re.fullmatch(r"\d+\.\d+\.\d+", system["engine"]["comfyui"])
    assert "unpinned" in server.log.read_text()


def test_a_comfyui_that_the_server_started_tells_its_version(tmp_path: Path) -> None:
    home = tmp_path / "ComfyUI"
    home.mkdir()
    run_embedded = 'import runpy\nrunpy.run_module("comfypin.engine.embedded", run_name="__main__", alter_sys=True)\n'
    (home / "main.py").write_text(run_embedded)
    flags = ("--comfy-home", str(home), "--python", sys.executable)
    unset = {"LOCK_PATH": "", "COMFY_VERSION_NAME": ""}
    with serving(tmp_path, *flags, lock=None, environ=unset) as running:
        engine = running.get("/system")["engine"]
        assert (engine["kind"], engine["address"]) == ("comfyui", None)
        assert re.fullmatch(r"\d+\.\d+\.\d+", engine["comfyui"])


def test_a_lock_that_nobody_compared_is_not_claimed(tmp_path: Path, engine_url: str) -> None:
    with serving(tmp_path, "--engine-url", engine_url) as running:
        output = running.post("/runsync", {"input": {"workflow": picture(7, size=64)}})["output"]
        assert (output["release"], output["release_digest"]) == ("unpinned", None)
        assert "was not compared with the lock demo" in output["warnings"][0]
        health = running.get("/health")
        assert (health["release"], health["release_digest"]) == ("unpinned", None)
        assert "was not compared" in health["release_reason"]
        assert "was not compared" in running.get("/system")["release"]["reason"]
        job = running.post("/runsync", {"input": {"workflow": picture(8, size=64), "release": "demo"}})
        assert job["status"] == "FAILED"
        assert "was not compared" in job["error"]


def test_a_job_for_a_release_is_refused(server: Server) -> None:
    status, told, _ = server.ask("POST", "/runsync", {"input": {"workflow": picture(8), "release": "v1"}})
    assert status == 200
    assert told["status"] == "FAILED"
    assert "unpinned" in told["error"]


@pytest.mark.needs("chromium")
@pytest.mark.xdist_group("page")
def test_the_page_says_that_nothing_is_pinned(server: Server) -> None:
    with a_browser() as browser, opened(browser, f"{server.url}/#/system") as (page, wrongs):
        release = page.get_by_role("region", name="Release")
        expect(release).to_contain_text("unpinned")
        expect(release).to_contain_text("No lock says what this ComfyUI runs")
        assert axe_violations(page) == []
        page.goto(f"{server.url}/#/queue")
        page.get_by_role("link", name="Done").click()
        expect(page.locator(".facts")).to_contain_text("unpinned")
        assert wrongs == []


def test_without_an_engine_a_lock_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LOCK_PATH", "COMFY_VERSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert main(["serve"]) == 10
    assert "--engine-url URL takes a ComfyUI that runs" in capsys.readouterr().err
    assert main(["serve", "--engine-url", "http://127.0.0.1:1", "--queue", "nats://127.0.0.1:1"]) == 10
