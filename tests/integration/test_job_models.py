"""Models that jobs bring: from where, within which limits, and what stays of them."""

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.http.connections import SystemNetwork
from comfypin.lock.model import ModelPin
from comfypin.models.errors import JobModelUnusable
from comfypin.models.job_models import WantedModel
from comfypin.models.store import BlobStore
from tests.support.faulty_server import FaultyServer, Reply, Request, faulty_server, ranged, wait_until
from tests.support.job_models import bring_one, job_models
from tests.support.model_hubs import HubRepo, civitai, hub
from tests.support.models import safetensors, some_bytes
from tests.support.runpod_queue import RunpodQueue, worker
from tests.support.services import LOCK
from tests.support.workflows import picture

LORA = safetensors(some_bytes(200_000, seed=3))
OTHER = safetensors(some_bytes(150_000, seed=4))
PICKLE = b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R."


def digest_of(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    files = {"/a.safetensors": LORA, "/b.safetensors": OTHER, "/x.ckpt": PICKLE, "/hidden.safetensors": PICKLE}

    def script(request: Request) -> Reply:
        path = request.path.partition("?")[0]
        if path == "/inside.safetensors":
            return Reply(status=302, headers={"Location": "http://10.0.0.1/secret"})
        if path == "/endless.safetensors":
            return Reply(body=LORA * 20, chunked=True)
        if path not in files:
            return Reply(status=404)
        return ranged(files[path], request, etag=f'"{path}"')

    with faulty_server(script) as running:
        yield running


def test_a_model_comes_to_its_folder_with_its_digest(server: FaultyServer, tmp_path: Path) -> None:
    brought = bring_one(job_models(tmp_path), f"{server.url}/a.safetensors?token=secret")
    assert (tmp_path / "loras" / "a.safetensors").read_bytes() == LORA
    assert (brought.filename, brought.sha256, brought.size_bytes) == ("a.safetensors", digest_of(LORA), len(LORA))
    assert brought.fetched
    assert brought.source == f"{server.url}/a.safetensors"


def test_the_same_address_is_downloaded_once(server: FaultyServer, tmp_path: Path) -> None:
    models = job_models(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        brought = list(pool.map(lambda _: bring_one(models, f"{server.url}/a.safetensors"), range(4)))
    assert [model.fetched for model in brought].count(True) == 1
    assert {model.sha256 for model in brought} == {digest_of(LORA)}


def test_a_model_of_the_store_needs_its_digest_alone(server: FaultyServer, tmp_path: Path) -> None:
    models = job_models(tmp_path)
    bring_one(models, f"{server.url}/a.safetensors")
    asked = len(server.requests)
    brought = bring_one(models, sha256=digest_of(LORA), folder="loras/styles", filename="again.safetensors")
    assert (tmp_path / "loras/styles/again.safetensors").read_bytes() == LORA
    assert not brought.fetched
    assert len(server.requests) == asked


@pytest.mark.parametrize(
    ("wanted", "field", "reason"),
    [
        ({"source": "https://elsewhere.example/a.safetensors"}, "source", "may not be fetched from elsewhere.example"),
        ({"source": "s3://bucket/a.safetensors"}, "source", "may not be fetched from s3://bucket"),
        ({"source": "file:///etc/passwd"}, "source", "must be an https://"),
        ({"source": "{server}/a.safetensors", "folder": "../custom_nodes"}, "folder", "must be one of"),
        ({"source": "{server}/a.safetensors", "folder": "custom_nodes"}, "folder", "must be one of"),
        ({"source": "{server}/a.safetensors", "folder": ".comfypin/blobs"}, "folder", "must be one of"),
        ({"source": "{server}/a.safetensors", "filename": "../a.safetensors"}, "filename", "not the name of a file"),
        ({"source": "{server}/a.safetensors", "filename": "a.py"}, "filename", "does not end as a model's name"),
        ({"source": "{server}/nothing.safetensors"}, "source", "no such file"),
        ({"source": "{server}/x.ckpt"}, "source", "run code"),
        ({"source": "{server}/hidden.safetensors"}, "source", "run code|not a safetensors file"),
        ({"source": "{server}/x.ckpt", "filename": "x.safetensors"}, "source", "run code|not a safetensors file"),
        ({"source": "{server}/a.safetensors", "sha256": digest_of(OTHER)}, "sha256", digest_of(LORA).hex),
        ({"sha256": digest_of(OTHER), "filename": "o.safetensors"}, "sha256", "the store has no model with it"),
    ],
)
def test_a_refusal_names_its_field(
    server: FaultyServer, tmp_path: Path, wanted: dict[str, object], field: str, reason: str
) -> None:
    given = {
        name: value.replace("{server}", server.url) if isinstance(value, str) else value
        for name, value in wanted.items()
    }
    with pytest.raises(JobModelUnusable, match=reason) as caught:
        bring_one(job_models(tmp_path), **given)  # type: ignore[arg-type]
    assert caught.value.message.startswith(f"`models[0].{field}`: ")
    assert str(tmp_path) not in caught.value.message
    assert not list(tmp_path.glob("*/*.safetensors"))
    assert not (tmp_path / "custom_nodes").exists()


@pytest.mark.parametrize("path", ["a.safetensors", "endless.safetensors"])
def test_what_is_too_large_is_not_taken(server: FaultyServer, tmp_path: Path, path: str) -> None:
    with pytest.raises(JobModelUnusable, match="the limit for one model"):
        bring_one(job_models(tmp_path, file_bytes=100_000), f"{server.url}/{path}")
    assert not list(tmp_path.rglob("data"))


class PublicName(SystemNetwork):
    """Leads one public-looking name to loopback, as a resolver of an attacker may."""

    def resolve(self, host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]


def test_private_addresses_are_refused_unless_they_are_allowed(server: FaultyServer, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]
    models = job_models(tmp_path, allowed=("*",), private=False, network=PublicName())
    for source in (f"https://127.0.0.1:{port}/a.safetensors", f"https://public.example:{port}/a.safetensors"):
        with pytest.raises(JobModelUnusable, match="private address"):
            bring_one(models, source)
    with pytest.raises(JobModelUnusable, match="must be https://"):
        bring_one(models, f"{server.url}/a.safetensors")
    assert not server.requests


def test_a_redirect_to_a_private_address_is_refused(server: FaultyServer, tmp_path: Path) -> None:
    class OneServer(SystemNetwork):
        """Every name is public, and every connection goes to the test's server."""

        def resolve(self, host: str, port: int) -> Sequence[str]:
            return [host] if host == "10.0.0.1" else ["93.184.215.14"]

        def connect(self, unconnected: socket.socket, address: str, port: int) -> None:
            assert address == "93.184.215.14"
            unconnected.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))

    models = job_models(tmp_path, allowed=("*.example",), network=OneServer())
    assert bring_one(models, "http://files.example/a.safetensors").sha256 == digest_of(LORA)
    with pytest.raises(JobModelUnusable, match=r"models\[0\].source.*private address of 10.0.0.1"):
        bring_one(models, "http://files.example/inside.safetensors")


def test_hubs_are_allowed_by_their_hosts(tmp_path: Path) -> None:
    repo = HubRepo(name="org/repo", path="l.safetensors", data=LORA)
    with hub(repo) as hub_server, civitai({1: OTHER}) as civitai_server:
        models = job_models(tmp_path, hub=hub_server.url, civitai=civitai_server.url)
        assert bring_one(models, "hf://org/repo/l.safetensors").sha256 == digest_of(LORA)
        brought = bring_one(models, "civitai://7")
        assert (brought.filename, brought.sha256) == ("file1.safetensors", digest_of(OTHER))
        strict = job_models(tmp_path, allowed=("elsewhere.example",), hub=hub_server.url)
        with pytest.raises(JobModelUnusable, match="may not be fetched"):
            bring_one(strict, "hf://org/repo/l.safetensors")


def test_a_name_keeps_its_bytes(server: FaultyServer, tmp_path: Path) -> None:
    models = job_models(tmp_path)
    bring_one(models, f"{server.url}/a.safetensors", filename="one.safetensors")
    with pytest.raises(JobModelUnusable, match=r"`models\[0\].filename`: .* other bytes"):
        bring_one(models, f"{server.url}/b.safetensors", filename="one.safetensors")
    assert (tmp_path / "loras/one.safetensors").read_bytes() == LORA
    own = tmp_path / "loras" / "mine.safetensors"
    own.write_bytes(b"mine")
    with pytest.raises(JobModelUnusable, match="other bytes"):
        bring_one(models, f"{server.url}/b.safetensors", filename="mine.safetensors")
    assert own.read_bytes() == b"mine"


def test_a_name_of_the_release_is_not_taken(server: FaultyServer, tmp_path: Path) -> None:
    pin = ModelPin(name="p", target_path="$MODELS_DIR/loras/a.safetensors", sha256=digest_of(OTHER))
    with pytest.raises(JobModelUnusable, match="the release has a model"):
        bring_one(job_models(tmp_path, lock=replace(LOCK, models=(pin,))), f"{server.url}/a.safetensors")


def test_the_least_recently_used_goes_and_never_what_is_needed(server: FaultyServer, tmp_path: Path) -> None:
    models = job_models(tmp_path, total_bytes=300_000)
    store = BlobStore(tmp_path / ".comfypin")
    use = models.begin_use()
    wanted = WantedModel(label="models[0]", folder="loras", source=f"{server.url}/a.safetensors")
    models.bring(wanted, use, lambda done, total: None)
    # A job uses it, so that there is no room for the other one.
    with pytest.raises(JobModelUnusable, match="does not fit"):
        bring_one(models, f"{server.url}/b.safetensors")
    use.end()
    bring_one(models, f"{server.url}/b.safetensors")
    assert not (tmp_path / "loras/a.safetensors").exists()
    assert [model.digest for model in models.space.list_models()] == [digest_of(OTHER)]
    # What a release names is not the jobs' to remove, and does not count.
    pin = ModelPin(name="b", target_path="$MODELS_DIR/loras/b.safetensors", sha256=digest_of(OTHER))
    store.remember_release("wan22", [pin])
    bring_one(models, f"{server.url}/a.safetensors")
    assert (tmp_path / "loras/b.safetensors").exists()
    assert (tmp_path / "loras/a.safetensors").exists()


def test_the_end_of_a_job_stops_its_download_and_the_next_one_goes_on(tmp_path: Path) -> None:
    data = safetensors(some_bytes(20 << 20, seed=5))
    slow = threading.Event()
    slow.set()

    def script(request: Request) -> Reply:
        start = request.range[0] if request.range else 0
        return ranged(data, request, silent_after=100_000 if slow.is_set() and start >= 8 << 20 else None)

    with faulty_server(script) as server:
        models = job_models(tmp_path)
        use = models.begin_use()
        wanted = WantedModel(
            label="models[0]", folder="vae", source=f"{server.url}/big.safetensors", sha256=digest_of(data)
        )
        seen: list[int] = []
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(models.bring, wanted, use, lambda done, total: seen.append(done))
            wait_until(lambda: bool(seen) and seen[-1] > 8 << 20)
            use.end()
            with pytest.raises(JobModelUnusable, match="stopped"):
                running.result(timeout=10)
        slow.clear()
        before = len(server.requests)
        assert bring_one(models, wanted.source, folder="vae", sha256=wanted.sha256).fetched
        again = [request.range[0] for request in server.requests[before:] if request.range and request.range != (0, 0)]
        assert min(again) >= 8 << 20, "what had arrived is not fetched again"


def test_nothing_is_left_of_a_lease_when_its_job_ends(server: FaultyServer, tmp_path: Path) -> None:
    models = job_models(tmp_path)
    brought = bring_one(models, f"{server.url}/a.safetensors")
    assert not BlobStore(tmp_path / ".comfypin").is_used(brought.sha256)
    with contextlib.suppress(FileNotFoundError):
        assert not list((tmp_path / ".comfypin" / "leases").iterdir())


def test_a_runpod_worker_takes_models_with_a_job(server: FaultyServer, tmp_path: Path) -> None:
    environ = {"MODELS_DIR": str(tmp_path), "COMFYPIN_ALLOW_MODELS": "127.0.0.1"}
    model = {"source": f"{server.url}/a.safetensors", "folder": "loras"}
    with RunpodQueue().running() as queue, worker(queue, "--allow-private-inputs", environ=environ):
        queue.put("models-1", {"workflow": picture(1), "models": [model]})
        answer = queue.wait("models-1")
    (brought,) = answer["output"]["models"]
    assert brought["sha256"] == digest_of(LORA).hex
    assert (tmp_path / "loras/a.safetensors").read_bytes() == LORA
