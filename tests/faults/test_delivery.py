"""Deliveries over a network that drops, delays, truncates, refuses and lies, and by processes that are killed."""

import hashlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from comfypin.digest import Digest
from comfypin.lock.model import Release
from comfypin.outputs.bucket import BucketSink, KeyNaming
from comfypin.outputs.interface import JobFacts
from comfypin.storage import azure, gcs_client, s3_transport
from comfypin.storage.errors import ChecksumMismatch, StoreBusy, StoreUnreachable
from comfypin.storage.gcs import GcsStore
from comfypin.storage.gcs_client import ONE_REQUEST_BYTES, PIECE_BYTES
from comfypin.storage.gcs_settings import GcsSettings
from comfypin.storage.interface import ObjectStore
from comfypin.storage.part_sizes import PART_BYTES
from comfypin.storage.retry import StoreRetry
from comfypin.storage.s3 import S3Store
from comfypin.storage.s3_settings import S3Settings
from tests.support.fault_proxy import FAULTS, Fault, FaultProxy, Seen, at_random, fault_proxy, first
from tests.support.object_servers import ACCESS_KEY, MULTIPART_BYTES, SECRET_KEY, GcsServer, S3Server
from tests.support.outputs import an_output
from tests.support.payloads import noise, payload_of
from tests.support.tls import Certificate, tls_front

_BUCKETS = (f"faults-{number}" for number in itertools.count())
MIB = 1 << 20


class Clock:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)


def retry(count: int, clock: Clock | None = None) -> StoreRetry:
    return StoreRetry(retries=count, base_sleep_s=0.001, sleep=(clock or Clock()).sleep)


class Target:
    """A bucket of a real server behind a proxy of ours."""

    def __init__(self, kind: str, server: Any) -> None:
        self.kind, self.server = kind, server
        self.large = {"s3": PART_BYTES, "gcs": ONE_REQUEST_BYTES, "azure": azure.WHOLE_BYTES}[kind] + MIB
        self.bucket = server.new_bucket(next(_BUCKETS))

    def store(self, proxy: FaultProxy, retry: StoreRetry) -> ObjectStore:
        config = self.server.config(self.bucket, url=proxy.url)
        kinds: dict[str, Any] = {"s3": S3Store, "gcs": GcsStore, "azure": azure.AzureStore}
        made: ObjectStore = kinds[self.kind](config, retry=retry)
        return made

    def objects(self) -> Mapping[str, bytes]:
        found: Mapping[str, bytes] = self.server.objects(self.bucket)
        return found

    def environ(self, url: str) -> dict[str, str]:
        if self.kind == "gcs":
            return {"GCS_BUCKET": self.bucket, "STORAGE_EMULATOR_HOST": url}
        if self.kind == "azure":
            return dict(self.server.environ(self.bucket, url=url))
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        bucket = {"S3_BUCKET": self.bucket, "S3_ENDPOINT_URL": url, "S3_MULTIPART_BYTES": MULTIPART_BYTES}
        return {**bucket, **keys}

    @property
    def mode(self) -> str:
        return self.kind


@pytest.fixture(params=["s3", "gcs", "azure"])
def target(request: pytest.FixtureRequest) -> Target:
    fixtures = {"s3": "moto", "gcs": "gcs", "azure": "azurite"}
    return Target(request.param, request.getfixturevalue(fixtures[request.param]))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("size", ["small", "large"])
def test_an_object_arrives_whole_after_a_fault(target: Target, tmp_path: Path, fault: Fault, size: str) -> None:
    data = noise(100_000 if size == "small" else target.large)
    with fault_proxy(target.server.url, first(2, fault)) as proxy:
        stored = target.store(proxy, retry(4)).put("a.bin", payload_of(tmp_path / "f", data))
    assert stored.size_bytes == len(data)
    assert {key: hashlib.md5(value).digest() for key, value in target.objects().items()} == {
        "a.bin": hashlib.md5(data).digest()
    }


def test_every_retry_sleeps_longer_at_most_and_the_last_failure_goes_up(target: Target, tmp_path: Path) -> None:
    clock = Clock()
    patient = StoreRetry(retries=4, base_sleep_s=0.5, sleep=clock.sleep, dice=lambda: 1.0)
    with (
        fault_proxy(target.server.url, lambda seen: "503" if seen.method != "GET" else None) as proxy,
        pytest.raises(StoreBusy, match="HTTP 503"),
    ):
        target.store(proxy, patient).put("a", payload_of(tmp_path / "f", b"x"))
    assert clock.sleeps == [0.5, 1.0, 2.0, 4.0]
    assert len(uploads(proxy)) == 5


def test_a_server_that_always_corrupts_is_not_believed(target: Target, tmp_path: Path) -> None:
    with (
        fault_proxy(target.server.url, lambda seen: "corrupt" if seen.method != "GET" else None) as proxy,
        pytest.raises(ChecksumMismatch, match="damaged"),
    ):
        target.store(proxy, retry(2)).put("a", payload_of(tmp_path / "f", noise(100_000)))


def test_a_store_that_is_gone_is_named(target: Target, tmp_path: Path) -> None:
    with fault_proxy(target.server.url) as proxy:
        store = target.store(proxy, retry(1))
    with pytest.raises(StoreUnreachable, match=r"refused.*check the endpoint"):
        store.put("a", payload_of(tmp_path / "f", b"x"))


def test_a_multipart_upload_that_is_given_up_is_aborted(moto: S3Server, tmp_path: Path) -> None:
    target = Target("s3", moto)
    with (
        fault_proxy(moto.url, lambda seen: "500" if "partNumber=2" in seen.path else None) as proxy,
        pytest.raises(StoreBusy),
    ):
        target.store(proxy, retry(1)).put("a", payload_of(tmp_path / "f", noise(PART_BYTES * 2 + 7)))
    assert moto.unfinished_uploads(target.bucket) == []
    assert target.objects() == {}


def test_all_parts_but_the_last_have_one_size(moto: S3Server, tmp_path: Path) -> None:
    target = Target("s3", moto)
    with fault_proxy(moto.url) as proxy:
        target.store(proxy, retry(0)).put("a", payload_of(tmp_path / "f", noise(PART_BYTES * 2 + 7)))
    parts = sorted(
        (int(seen.path.split("partNumber=")[1].split("&")[0]), len(seen.body))
        for seen in proxy.seen
        if "partNumber" in seen.path
    )
    assert parts == [(1, PART_BYTES), (2, PART_BYTES), (3, 7)]


def test_a_broken_session_goes_on_where_it_broke(gcs: GcsServer, tmp_path: Path) -> None:
    target = Target("gcs", gcs)
    data = noise(PIECE_BYTES + 3 * MIB)

    def second_piece(seen: Seen) -> bool:
        return seen.headers.get("content-range", "").startswith(f"bytes {PIECE_BYTES}-")

    with fault_proxy(gcs.url, first(1, "drop", where=second_piece)) as proxy:
        target.store(proxy, retry(1)).put("a", payload_of(tmp_path / "f", data))
    asked = [seen.headers["content-range"] for seen in proxy.seen if seen.method == "PUT"]
    rest = f"bytes {PIECE_BYTES}-{len(data) - 1}/{len(data)}"
    assert asked == [f"bytes 0-{PIECE_BYTES - 1}/{len(data)}", rest, rest]
    assert "x-goog-hash" in {name.lower() for name in proxy.seen[-1].headers}
    assert target.objects() == {"a": data}


async def _deliver_under_fire(target: Target, tmp_path: Path, count: int) -> FaultProxy:
    data = {f"{number:04}.png": noise(2_000, seed=number) for number in range(count)}
    outputs = tuple(
        an_output(tmp_path, content, filename=name, index=index) for index, (name, content) in enumerate(data.items())
    )
    job = JobFacts(job_id="job", release=Release(name="test", digest=Digest.of(b"lock")))
    with fault_proxy(target.server.url, at_random(0.5, seed=7)) as proxy:
        sink = BucketSink(target.store(proxy, retry(40)), KeyNaming(prefix="p"))
        deliveries = await sink.deliver(job, outputs)
    objects = dict(target.objects())
    manifest = json.loads(objects.pop("p/job/manifest.json"))
    assert objects == {f"p/job/{name}": content for name, content in data.items()}
    assert [entry["key"] for entry in manifest["outputs"]] == sorted(objects)
    assert len({delivery.uri for delivery in deliveries}) == count
    return proxy


async def test_at_a_failure_rate_of_one_half_every_output_arrives_once(target: Target, tmp_path: Path) -> None:
    proxy = await _deliver_under_fire(target, tmp_path, 60)
    assert len(proxy.seen) > 60


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_a_thousand_outputs_arrive_once_at_a_failure_rate_of_one_half(target: Target, tmp_path: Path) -> None:
    await _deliver_under_fire(target, tmp_path, 1000)


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_bucket_that_never_answers_is_not_waited_for_before_the_first_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encrypted: bool
) -> None:
    monkeypatch.setattr(s3_transport, "HURRY_S", 0.2)
    monkeypatch.setattr(gcs_client, "CHECK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(azure, "CHECK_TIMEOUT_S", 0.2)
    certificate = Certificate.made(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, and nobody reads
        plain = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with tls_front(plain, certificate) as front:
            url = front if encrypted else plain
            s3 = {"S3_BUCKET": "b", "S3_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
            trusted = {"REQUESTS_CA_BUNDLE": str(certificate.path)}
            gcs = {"GCS_BUCKET": "b", "STORAGE_EMULATOR_HOST": url}
            on_azure = {"AZURE_CONTAINER": "b", "AZURE_ENDPOINT_URL": url, "AZURE_STORAGE_SAS_TOKEN": "sig=x"}
            for store in (
                S3Store(S3Settings.from_variables({**s3, **trusted}), retry=retry(1)),
                GcsStore(GcsSettings.from_variables({**gcs, **trusted}), retry=retry(1)),
                azure.AzureStore(azure.AzureSettings.from_variables({**on_azure, **trusted}), retry=retry(1)),
            ):
                with pytest.raises(StoreUnreachable, match="it sent nothing for too long"):
                    store.check()


def _kill_and_rerun(target: Target, folder: Path, kill_when: Callable[[str], bool], upload_count: int) -> None:
    command = [sys.executable, "-m", "tests.support.deliver_job", str(folder), "job-1", target.mode]
    state = {"COMFYPIN_STATE_DIR": f"{folder}-state", "PYTHONPATH": os.pathsep.join(sys.path)}
    environ = {**os.environ, **target.environ(target.server.url), **state}
    process = subprocess.Popen([*command, "--watch"], env=environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = [line for line in iter(process.stdout.readline, "") if not kill_when(line) or process.kill()]
    process.wait()
    assert process.returncode == -signal.SIGKILL, seen
    assert "comfy/outputs/job-1/manifest.json" not in target.objects()
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    expected = {f"comfy/outputs/job-1/{path.name}": path.read_bytes() for path in folder.iterdir()}
    objects = dict(target.objects())
    objects.pop("comfy/outputs/job-1/manifest.json")
    assert len(objects) == upload_count
    assert objects == expected


def test_a_killed_job_run_again_leaves_exactly_its_objects(target: Target, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}.bin").write_bytes(noise(300_000, seed=number))
    finished = itertools.count(1)
    _kill_and_rerun(target, tmp_path, lambda line: line.startswith("UploadFinished") and next(finished) == 3, 30)


def test_a_job_killed_within_a_large_upload_leaves_exactly_its_objects(target: Target, tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_bytes(noise(40 * MIB))
    moved = itertools.count(1)
    _kill_and_rerun(target, tmp_path, lambda line: line.startswith("UploadMoved") and next(moved) == 2, 1)
    if target.kind == "s3":
        # What the killed process left unfinished is gone too, and so is the note of it.
        assert target.server.unfinished_uploads(target.bucket) == []
        assert list(Path(f"{tmp_path}-state").rglob("uploads/*")) == []


@pytest.mark.soak
@pytest.mark.parametrize("after", range(2, 30, 4))
def test_a_job_killed_anywhere_leaves_exactly_its_objects(target: Target, tmp_path: Path, after: int) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}.bin").write_bytes(noise(300_000, seed=number))
    events = itertools.count(1)
    _kill_and_rerun(target, tmp_path, lambda line: line.startswith("Upload") and next(events) == after, 30)


def test_memory_stays_flat_with_a_large_file(target: Target, tmp_path: Path, rclone: S3Server) -> None:
    # As much as these servers take; bench/delivery sends 1 GiB.
    if target.kind == "s3":
        target = Target("s3", rclone)
    size_mib = 100 if target.kind == "gcs" else 300
    with (tmp_path / "video.mp4").open("wb") as file:
        block = noise(MIB)
        for _ in range(size_mib):
            file.write(block)
    environ = {**os.environ, **target.environ(target.server.url), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tests.support.deliver_job", str(tmp_path), "job-1", target.mode, "--watch"]
    done = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True)
    rss_mib = int(done.stdout.split("rss ")[1])
    assert rss_mib < 150


def test_an_output_costs_one_request(target: Target, tmp_path: Path) -> None:
    with fault_proxy(target.server.url) as proxy:
        store = target.store(proxy, retry(0))
        for key in ("a", "b", "c"):
            store.put(key, payload_of(tmp_path / "f", noise(10_000)))
    assert len(uploads(proxy)) == 3
    assert len(proxy.seen) == 3


def uploads(proxy: FaultProxy) -> list[Seen]:
    return [seen for seen in proxy.seen if seen.method in {"PUT", "POST"}]
