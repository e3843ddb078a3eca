"""A load-balancing endpoint as people use it: real servers as its workers, Runpod's edge before them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, shared_path
from tests.support.runpod_api import KEY, FakeRunPod
from tests.support.runpod_edge import RunpodEdge
from tests.support.server import TOKEN, Server

IMAGE = "ghcr.io/me/comfypin-demo@sha256:" + "1" * 64
# What Runpod and `apply` give such a worker; `OUTPUT_MODE` is what the image adds.
WORKER = {"RUNPOD_ENDPOINT_ID": "end1", "COMFYPIN_MODE": "serve", "OUTPUT_MODE": "base64"}
BALANCED = """
[[template]]
name = "worker"

[[endpoint]]
name = "api"
template = "worker"
type = "load-balancer"
gpu_pools = ["ADA_24"]
"""


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    servers: dict[str, Server] = {}
    try:
        for name in ("pod-a", "pod-b"):
            servers[name] = Server(tmp_path_factory.mktemp(name), (), {**WORKER, "RUNPOD_POD_ID": name})
            servers[name].start()
        yield servers
    finally:
        for server in servers.values():
            server.stop()


@pytest.fixture
def edge(workers: dict[str, Server]) -> Iterator[RunpodEdge]:
    with RunpodEdge({name: server.url for name, server in workers.items()}) as running:
        yield running


@pytest.fixture
def runpod(edge: RunpodEdge) -> Iterator[FakeRunPod]:
    with FakeRunPod(shared_path("openapi") / "runpod-rest-v2.openapi.json") as server:
        server.balancers["comfypin-demo-api"] = edge.url
        yield server
    assert server.violations == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lockfiles").symlink_to(ROOT / "lockfiles")
    (tmp_path / "w.json").write_text("{}")
    secret = '[env]\nCOMFYPIN_TOKEN = "{{ RUNPOD_SECRET_comfypin_token }}"\n'
    (tmp_path / "runpod.toml").write_text(f'name = "demo"\nrelease = "demo"\nimage = "{IMAGE}"\n{secret}{BALANCED}')
    return tmp_path


def comfypin(
    runpod: FakeRunPod, folder: Path, *arguments: str, token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD", "COMFYPIN"))},
        "RUNPOD_API_URL": runpod.url,
        "RUNPOD_API_KEY": KEY,
        **({"COMFYPIN_TOKEN": token} if token else {}),
    }
    return subprocess.run(
        [sys.executable, "-m", "comfypin.cli.main", "runpod", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_job_goes_through_the_balancer_and_stays_with_its_worker(
    runpod: FakeRunPod, edge: RunpodEdge, folder: Path
) -> None:
    applied = comfypin(runpod, folder, "apply", "--wait")
    assert applied.returncode == 0, applied.stderr
    assert "smoke job through api" in applied.stderr
    edge.log.clear()
    ran = comfypin(runpod, folder, "run", "w.json", "--endpoint", "api")
    assert ran.returncode == 0, ran.stderr
    assert (folder / ran.stdout.strip()).read_bytes().startswith(b"\x89PNG")
    about_the_job = [(path, worker) for _method, path, worker in edge.log if path != "/ping"]
    assert len(about_the_job) >= 2
    assert len({worker for _path, worker in about_the_job}) == 1
    assert not runpod.jobs, "nothing went to a queue"


def test_an_endpoint_by_its_id_is_known_to_have_a_balancer(runpod: FakeRunPod, folder: Path) -> None:
    comfypin(runpod, folder, "apply")
    (identifier,) = runpod.state["endpoints"]
    ran = comfypin(runpod, folder, "run", "w.json", "--endpoint", identifier)
    assert ran.returncode == 0, ran.stderr


def test_without_the_workers_token_it_says_which_variable_is_missing(runpod: FakeRunPod, folder: Path) -> None:
    comfypin(runpod, folder, "apply")
    ran = comfypin(runpod, folder, "run", "w.json", "--endpoint", "api", token=None)
    assert ran.returncode == 3
    assert "COMFYPIN_TOKEN is not set here" in ran.stderr


def test_a_wrong_token_is_refused_by_the_worker(runpod: FakeRunPod, folder: Path) -> None:
    comfypin(runpod, folder, "apply")
    ran = comfypin(runpod, folder, "run", "w.json", "--endpoint", "api", token="another")
    assert ran.returncode != 0
    assert "X-Comfypin-Token" in ran.stderr
    assert "another" not in ran.stderr


def test_the_edges_key_is_no_token(workers: dict[str, Server]) -> None:
    server = workers["pod-a"]
    assert server.ask("GET", "/health", token=KEY)[0] == 401
    assert server.ask("GET", "/health", token=KEY, **{"X-Comfypin-Token": TOKEN})[0] == 200
    assert server.ask("GET", "/health", token=None, **{"X-Comfypin-Token": "another"})[0] == 401
