"""`comfypin runpod up` is killed, again and again, and goes on: nothing is made twice, nothing is left over."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import pytest

from tests.conftest import shared_path
from tests.support.model_hubs import HubRepo, hub
from tests.support.models import safetensors
from tests.support.runpod_box import IMAGE, RunpodBox, client_environ, pictures, run_verb, write_workflow

OPENAPI = shared_path("openapi") / "runpod-rest-v2.openapi.json"
WEIGHTS = HubRepo(name="org/tiny", path="vae/tiny.safetensors", data=safetensors(b"weights" * 1000), gated=True)
# Each request that makes something, and those that tell that it was made.
MOMENTS = (
    r"GET /v2/registries",
    r"POST /v2/account/secrets",
    r"POST /v2/network-volumes",
    r"POST /v2/pods",
    r"GET /v2/pods/[^/]+/logs",
    r"DELETE /v2/pods/",
    r"POST /v2/serverless",
    r"POST /job/[^/]+/run",
    r"GET /job/[^/]+/status",
)


# So many requests there are at least, however fast the pod and the worker are.
SURE_REQUESTS = 12


@pytest.fixture
def box(tmp_path: Path) -> Iterator[RunpodBox]:
    with RunpodBox(OPENAPI, tmp_path / "box") as running:
        yield running
    assert running.violations == []


class Deployment:
    """One deployment of a model behind a login, and what kills its `up`."""

    def __init__(self, box: RunpodBox, folder: Path, hub_url: str) -> None:
        self.box, self.folder = box, folder
        lock = {
            "schema_version": 3,
            "version_name": "card",
            "engine": {"kind": "embedded"},
            "models": [
                {
                    "name": "tiny.safetensors",
                    "target_path": f"$MODELS_DIR/{WEIGHTS.path}",
                    "sha256": hashlib.sha256(WEIGHTS.data).hexdigest(),
                    "size_bytes": len(WEIGHTS.data),
                    "sources": [f"hf://{WEIGHTS.name}/{WEIGHTS.path}"],
                }
            ],
        }
        (folder / "card.lock.json").write_text(json.dumps(lock))
        words = ("--lock", "card.lock.json", "--env", f"HF_ENDPOINT={hub_url}", "--secret", "HF_TOKEN")
        self.words = ("up", write_workflow(folder), *words, "--image", IMAGE, "--yes")
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def run(self) -> "subprocess.CompletedProcess[str]":
        return run_verb(self.box, self.folder, *self.words, HF_TOKEN="hf_good")

    def run_until(self, moment: str, phase: str, *, count: int = 1) -> int:
        """Start `up` and kill it at the `count`th of these requests; returns -9, or its exit code if none came.

        Killed `before`, the request is lost; killed `after`, it was carried out and its answer is lost.
        """
        met = 0

        def kill_at(request: str, now: str) -> bool:
            nonlocal met
            with self._lock:
                # Pods and workers ask too.
                if now != phase or self._child is None or not re.match(moment, request):
                    return False
                met += 1
                if met != count:
                    return False
                self._child.kill()
                self._child.wait()
                return True

        self.box.on_request = kill_at
        self._child = subprocess.Popen(
            [sys.executable, "-m", "comfypin.cli.main", "runpod", *self.words],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=client_environ(self.box, self.folder, HF_TOKEN="hf_good"),
        )
        code = self._child.wait(300)
        self._child = None
        self.box.on_request = lambda _request, _phase: False
        return code

    def assert_whole(self, *, kills: int) -> None:
        """Exactly one of everything, no pod left, and a picture; no more pods and jobs than kills account for."""
        left = {name: len(items) for name, items in self.box.state.items() if items}
        assert left == {"networkVolumes": 1, "endpoints": 1}
        assert len(self.box.secrets) == 1
        (volume_id,) = self.box.state["networkVolumes"]
        assert (self.box.volume_folder(volume_id) / "models" / WEIGHTS.path).read_bytes() == WEIGHTS.data
        assert pictures(self.folder)
        made = [kind for kind, _ in self.box.made]
        assert [made.count(kind) for kind in ("secrets", "networkVolumes", "endpoints")] == [1, 1, 1]
        # A pod that ended while nobody looked has left its word in a log that is gone; a job's number was lost.
        assert 1 <= made.count("pods") <= 1 + kills
        (queue,) = self.box.queues.values()
        assert 1 <= len(queue.inputs) <= 1 + kills
        state = json.loads((self.folder / ".comfypin/up/card/state.json").read_text())
        assert [release["stage"] for release in state["releases"]] == ["proven"]


@pytest.mark.timeout(1800)  # ten starts of the command
@pytest.mark.parametrize("phase", ["after", pytest.param("before", marks=pytest.mark.soak)])
def test_killed_at_each_request_that_makes_something_it_goes_on(box: RunpodBox, tmp_path: Path, phase: str) -> None:
    with hub(WEIGHTS) as server:
        deployment = Deployment(box, tmp_path, server.url)
        killed = [deployment.run_until(moment, phase) for moment in MOMENTS]
        assert killed == [-9] * len(MOMENTS)
        deployment.run()
    deployment.assert_whole(kills=len(MOMENTS))


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(1, 31))
def test_killed_once_at_any_moment_it_goes_on(box: RunpodBox, tmp_path: Path, number: int) -> None:
    with hub(WEIGHTS) as server:
        deployment = Deployment(box, tmp_path, server.url)
        # Every second one before the server acts on the request, the others when its answer is lost.
        killed = deployment.run_until("", ("before", "after")[number % 2], count=number)
        # The job's end is asked for more or less often; the numbers up to its start are the same each time.
        assert killed == -9 or (killed == 0 and number > SURE_REQUESTS)
        deployment.run()
    deployment.assert_whole(kills=1)


def test_a_secret_that_is_there_already_is_not_sent_again(box: RunpodBox, tmp_path: Path) -> None:
    with hub(WEIGHTS) as server:
        deployment = Deployment(box, tmp_path, server.url)
        deployment.run_until(MOMENTS[2], "after")
        sent = [request for request in box.writes if request[1] == "/v2/account/secrets"]
        deployment.run_until(MOMENTS[6], "after")
    assert [request for request in box.writes if request[1] == "/v2/account/secrets"] == sent
