"""Models of jobs on `comfypin serve`: followed, cancelled, killed in the middle, on a full disk; POST /models."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.event_reader import reading_events
from tests.support.faulty_server import FaultyServer, Reply, Request, faulty_server, ranged, wait_until
from tests.support.models import safetensors, some_bytes
from tests.support.server import Server, serving
from tests.support.small_disk import small_disk
from tests.support.workflows import picture

MIB = 1 << 20
SMALL = safetensors(some_bytes(50_000, seed=8))
BIG = safetensors(some_bytes(24 * MIB, seed=9))


class Hub:
    """Gives small files at once, and of a big one only the first 12 MB until it is let go."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def answer(self, request: Request) -> Reply:
        path = request.path
        if path.startswith("/small"):
            return ranged(SMALL, request, etag=f'"{path}"')
        if not path.startswith("/big"):
            return Reply(status=404)
        start = request.range[0] if request.range else 0
        waits = not self.open.is_set() and start >= 8 * MIB
        return ranged(BIG, request, etag=f'"{path}"', silent_after=4 * MIB if waits else None)


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def files(hub: Hub) -> Iterator[FaultyServer]:
    with faulty_server(hub.answer) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("models")
    with serving_models(home, home / "models") as running:
        yield running


def serving_models(home: Path, models_dir: Path) -> Any:
    flags = ("--allow-private-inputs", "--allow-models", "127.0.0.1")
    return serving(home, *flags, environ={"MODELS_DIR": str(models_dir)})


def begin(server: Server, *models: dict[str, object], **more: object) -> str:
    return str(server.post("/run", {"input": {"workflow": picture(1), "models": models, **more}})["id"])


def follow_until(server: Server, job_id: str, done_bytes: int) -> dict[str, Any]:
    """Poll a job's progress until so much of its model has come."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for chunk in server.get(f"/stream/{job_id}")["stream"]:
            if chunk["output"].get("event") == "model_progress" and chunk["output"]["done_bytes"] >= done_bytes:
                return dict(chunk["output"])
        time.sleep(0.02)
    raise AssertionError(server.get(f"/status/{job_id}"))


def test_a_jobs_model_is_in_its_result(server: Server, files: FaultyServer) -> None:
    model = {"source": f"{files.url}/small.safetensors?sig=secret", "folder": "loras"}
    answer = server.ended(begin(server, model))
    assert answer["status"] == "COMPLETED", answer
    (brought,) = answer["output"]["models"]
    assert brought["sha256"] == hashlib.sha256(SMALL).hexdigest()
    assert "secret" not in str(answer)
    assert any("small.safetensors" in warning for warning in answer["output"]["warnings"])


def test_a_typed_workflow_takes_models(server: Server, files: FaultyServer) -> None:
    lora = {"source": f"{files.url}/small4.safetensors", "folder": "loras"}
    answer = server.post("/workflows/demo?wait=60000", {"models": [lora]})
    assert answer["status"] == "COMPLETED", answer
    (brought,) = answer["output"]["models"]
    assert (brought["folder"], brought["filename"]) == ("loras", "small4.safetensors")
    status, refused, _ = server.ask("POST", "/workflows/demo", {"models": lora})
    assert (status, "`models` must be a list" in str(refused)) == (400, True), refused


def test_a_failure_names_the_field(server: Server, files: FaultyServer) -> None:
    models = ({"source": f"{files.url}/small2.safetensors", "folder": "vae"}, {"source": "hf://a/b/c", "folder": "vae"})
    answer = server.ended(begin(server, *models))
    assert answer["status"] == "FAILED"
    assert answer["error"].startswith("`models[1].source`: models may not be fetched from huggingface.co here")


def test_a_cancelled_job_stops_its_download(server: Server, files: FaultyServer) -> None:
    job_id = begin(server, {"source": f"{files.url}/big1.safetensors", "folder": "vae"})
    seen = follow_until(server, job_id, 4 * MIB)
    assert seen["model"] == "vae/big1.safetensors"
    assert seen["total_bytes"] == len(BIG)
    server.post(f"/cancel/{job_id}")
    assert server.ended(job_id)["status"] == "CANCELLED"


def test_a_jobs_time_limit_stops_its_download(server: Server, files: FaultyServer) -> None:
    job_id = begin(server, {"source": f"{files.url}/big2.safetensors", "folder": "vae"}, timeout_s=0.5)
    answer = server.ended(job_id)
    assert answer["status"] == "FAILED"
    assert "`timeout_s`" in answer["error"]


def test_post_models_brings_one_and_says_how_it_stands(server: Server, hub: Hub, files: FaultyServer) -> None:
    with reading_events(server.url) as events:
        events.until("snapshot")
        wish = {"source": f"{files.url}/small3.safetensors", "folder": "vae"}
        status, begun, _ = server.ask("POST", "/models", wish)
        assert (status, begun["status"]) == (202, "IN_PROGRESS")
        told, _ = events.until("model", id=begun["id"], status="COMPLETED")
    ended = server.get(f"/models/{begun['id']}")
    assert told.data == ended
    assert (ended["status"], ended["done_bytes"], ended["total_bytes"]) == ("COMPLETED", len(SMALL), len(SMALL))
    assert ended["model"]["filename"] == "small3.safetensors"
    listed = server.get("/models")
    assert ended in listed["downloads"]
    assert "vae/small3.safetensors" in {path for model in listed["models"] for path in model["paths"]}


def test_a_download_can_be_stopped(server: Server, files: FaultyServer) -> None:
    _, begun, _ = server.ask("POST", "/models", {"source": f"{files.url}/big3.safetensors", "folder": "vae"})
    wait_until(lambda: server.get(f"/models/{begun['id']}")["done_bytes"] > 0)
    assert server.ask("DELETE", f"/models/{begun['id']}")[1]["status"] == "CANCELLED"
    assert server.ask("DELETE", "/models/nothing")[0] == 404


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "it is a list, and must be an object"),
        ({"folder": "vae"}, "source: give a `source`"),
        ({"source": "https://a.example/x", "folder": 3}, "folder: it must be a text"),
        ({"sha256": "zz", "folder": "vae", "filename": "x"}, "sha256: it must be 64 hex digits"),
    ],
)
def test_a_wrong_body_is_explained(server: Server, body: object, said: str) -> None:
    status, answer, _ = server.ask("POST", "/models", body)
    assert status == 400, answer
    assert said in answer["error"]


def test_without_the_token_nobody_brings_models(server: Server) -> None:
    assert server.ask("POST", "/models", {"folder": "vae"}, token="wrong")[0] == 401


def test_a_killed_server_goes_on_where_it_was(tmp_path: Path, hub: Hub, files: FaultyServer) -> None:
    digest = hashlib.sha256(BIG).hexdigest()
    model = {"source": f"{files.url}/big.safetensors", "sha256": digest, "folder": "checkpoints"}
    with serving_models(tmp_path, tmp_path / "models") as server:
        job_id = begin(server, model)
        follow_until(server, job_id, 11 * MIB)
        server.kill()
        hub.open.set()
        before = len(files.requests)
        server.start()
        answer = server.ended(job_id)
    assert answer["status"] == "COMPLETED", answer
    assert answer["output"]["models"][0]["sha256"] == digest
    assert (tmp_path / "models/checkpoints/big.safetensors").read_bytes() == BIG
    again = [request.range for request in files.requests[before:] if request.range]
    # The first byte alone is asked for to learn of the file.
    assert all(asked[0] >= 8 * MIB for asked in again if asked != (0, 0)), again


def test_on_a_full_disk_jobs_say_so(tmp_path: Path, hub: Hub, files: FaultyServer) -> None:
    hub.open.set()
    with small_disk(tmp_path / "disk", size_mb=80) as disk, serving_models(tmp_path, disk.path / "models") as server:
        disk.fill()
        answer = server.ended(begin(server, {"source": f"{files.url}/big.safetensors", "folder": "vae"}))
        assert answer["status"] == "FAILED"
        assert "models[0].source`: the server's disk" in answer["error"] or "model store" in answer["error"], answer
        assert str(disk.path) not in answer["error"]
        disk.free()
        answer = server.ended(begin(server, {"source": f"{files.url}/small.safetensors", "folder": "vae"}))
        assert answer["status"] == "COMPLETED", answer


def test_a_server_without_hosts_takes_no_models(tmp_path: Path) -> None:
    with serving(tmp_path, environ={"MODELS_DIR": os.fspath(tmp_path / "none")}) as server:
        assert server.ask("POST", "/models", {"source": "https://a.example/x", "folder": "vae"})[0] == 403
        answer = server.ended(begin(server, {"source": "https://a.example/x", "folder": "vae"}))
        assert "takes no models from jobs" in answer["error"]
        assert not (tmp_path / "none").exists()
