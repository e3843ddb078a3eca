"""What is too large for the queue, and what is secret in it."""

import base64
import contextlib
import random
import struct
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard

from comfypin.http.client import HttpClient
from comfypin.http.response import Response
from comfypin.queue.nats.bodies import LARGEST_BYTES, Bodies
from comfypin.queue.nats.bucket_depot import BucketDepot
from comfypin.queue.nats.buckets import Bucket
from comfypin.queue.nats.connection import parse_queue_address
from comfypin.queue.nats.errors import BodyOutOfReach, BodyTooLarge, JobSecretsRefused, SealBroken
from comfypin.queue.nats.fleet import open_fleet
from comfypin.queue.nats.names import BODIES
from comfypin.queue.nats.sealing import Seal
from comfypin.queue.nats.server_depot import ServerBodies
from comfypin.settings.environment import Settings
from comfypin.settings.fleet import FleetSettings
from comfypin.storage.local import LocalStore
from comfypin.wiring.stores import open_server_depot
from tests.support.fleets import serving_fleet, working
from tests.support.job_queues import FLEET_KEY
from tests.support.nats_servers import nats_server
from tests.support.workflows import load

OTHER_KEY = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY="
# What does not shrink.
LARGE = random.Random(1).randbytes(LARGEST_BYTES).hex()


def noisy_png(side: int) -> bytes:
    """A picture that does not shrink."""
    noise = random.Random(2)
    rows = b"".join(b"\0" + noise.randbytes(3 * side) for _ in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


async def test_a_body_of_any_size_comes_back_and_a_secret_one_is_sealed(tmp_path: Path) -> None:
    depot = BucketDepot(lambda: LocalStore(tmp_path / "bucket", sidecars=False))
    with nats_server(tmp_path) as server:
        async with open_fleet(parse_queue_address(server.address), FleetSettings(), client_name="test") as fleet:
            bucket = Bucket(fleet.stream, BODIES)
            bodies = Bodies(bucket, Seal(FLEET_KEY), depot)
            for text in ("small", LARGE):
                for secret in (False, True):
                    body = await bodies.put("job", text, secret=secret)
                    assert (body.address is not None) == (text is LARGE)
                    assert await bodies.get(body) == text
            sealed = await bodies.put("job", "sesame", secret=True)
            kept = await bucket.get(sealed.key)
            assert kept is not None
            assert b"sesame" not in kept.data
            with pytest.raises(SealBroken):
                await Bodies(bucket, Seal(OTHER_KEY)).get(sealed)
            await bodies.remove(sealed)
            assert await bodies.get(sealed) is None


async def test_a_small_body_cannot_fill_the_memory(tmp_path: Path) -> None:
    """A worker writes results: one of a few kilobytes may claim to be gigabytes."""
    with nats_server(tmp_path) as server:
        async with open_fleet(parse_queue_address(server.address), FleetSettings(), client_name="test") as fleet:
            bucket = Bucket(fleet.stream, BODIES)
            bodies = Bodies(bucket, Seal(None))
            body = await bodies.put("job", "small", secret=False)
            for packed, reason in ((zstandard.compress(bytes(257 << 20)), "larger"), (b"no zstd", "damaged")):
                await bucket.put(body.key, packed)
                with pytest.raises(BodyOutOfReach, match=reason):
                    await bodies.get(body)


async def test_without_a_bucket_or_a_key_bodies_are_refused(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        async with open_fleet(parse_queue_address(server.address), FleetSettings(), client_name="test") as fleet:
            with pytest.raises(BodyTooLarge, match="no bucket"):
                await fleet.bodies.put("job", LARGE, secret=False)
            with pytest.raises(JobSecretsRefused, match="COMFYPIN_FLEET_KEY"):
                await fleet.bodies.put("job", "sesame", secret=True)


async def test_a_bucket_keeps_nothing_that_was_removed_or_that_no_job_points_to(tmp_path: Path) -> None:
    folder = tmp_path / "bucket"
    depot = BucketDepot(lambda: LocalStore(folder, sidecars=False), prefix="out")

    def kept() -> list[str]:
        return sorted(path.name for path in folder.rglob("*") if path.is_file())

    with nats_server(tmp_path) as server:
        async with open_fleet(
            parse_queue_address(server.address), FleetSettings(), client_name="test", depot=depot
        ) as fleet:
            removed = await fleet.bodies.put("job", LARGE, secret=False)
            lost = await fleet.bodies.put("other", LARGE, secret=False)
            small = await fleet.bodies.put("other", "small", secret=False)
            await fleet.bodies.remove(removed)
            assert kept() == [lost.key]
            assert await fleet.bodies.keys_by_job() == {"other": {lost.key, small.key}}
            # What is as young may be of a job that is being taken.
            for key in (lost.key, small.key):
                assert not await fleet.bodies.remove_if_old(key, before=time.time() - 3600)
                assert await fleet.bodies.remove_if_old(key, before=time.time() + 60)
            assert kept() == []
            assert await fleet.bodies.keys_by_job() == {}


async def test_a_worker_cannot_name_other_objects_of_the_bucket(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, sidecars=False)
    (tmp_path / "private.txt").write_text("not of the fleet")
    depot = BucketDepot(lambda: store)
    for touch in (depot.get, depot.remove):
        for address in ("private.txt", "fleet-bodies/../private.txt", "fleet-bodies/.."):
            with pytest.raises(BodyOutOfReach):
                touch(address)
    assert (tmp_path / "private.txt").exists()


def test_without_a_bucket_the_server_that_took_a_job_keeps_its_large_data(tmp_path: Path) -> None:
    data = base64.b64encode(noisy_png(512)).decode()
    job = {"input": {"workflow": load("in.png"), "images": [{"name": "in.png", "image": data}]}}
    with nats_server(tmp_path) as nats, contextlib.ExitStack() as stack:
        one, two = (
            stack.enter_context(serving_fleet(tmp_path / name, nats.address, keeps_bodies=True))
            for name in ("one", "two")
        )
        job_id = one.post("/run", job)["id"]
        kept = tmp_path / "one" / "state" / "bodies"
        assert [path.name.partition(".")[0] for path in kept.iterdir()] == [job_id]
        stack.enter_context(working(tmp_path / "worker", nats.address))
        # Any server answers for it.
        deadline = time.monotonic() + 60
        while (answer := two.get(f"/status/{job_id}"))["status"] in ("IN_QUEUE", "IN_PROGRESS"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert answer["status"] == "COMPLETED", answer
        assert base64.b64decode(answer["output"]["images"][0]["data"]).startswith(b"\x89PNG")
        # The input went with the end, since a completed job is not retried.
        assert len(list(kept.iterdir())) == 1
        (left,) = kept.iterdir()
        address = f"{one.url}/fleet-bodies/{left.name.replace('.', '/')}"
        for query in ("", "?0", f"?{'0' * 40}"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(address + query, timeout=10)


class AskingNobody(HttpClient):
    """A client of which nothing may be asked."""

    def request(self, method: str, url: str, **_: Any) -> Response:
        raise AssertionError(f"{method} {url}")


def test_a_server_asks_no_host_that_a_worker_made_up(tmp_path: Path) -> None:
    depot = ServerBodies(AskingNobody(), tmp_path, own_url="http://127.0.0.1:1", secret=b"s")
    depot.knows_server = lambda server: server == "http://127.0.0.1:2"
    own = depot.address_of(f"job.{'a' * 12}", None)
    assert own is not None
    depot.put(own, b"x")
    assert depot.get(own) == b"x"
    for address in (
        own.replace("127.0.0.1:1/fleet-bodies/job", "169.254.169.254/fleet-bodies/other"),
        own.replace("aaaaaaaaaaaa", "../../../etc/passwd"),
        own.replace("/job/", "/other/"),
        own.replace("127.0.0.1:1/fleet-bodies/job/aaaaaaaaaaaa", "127.0.0.1:2/fleet-bodies/../outputs"),
        "file:///etc/passwd",
    ):
        with pytest.raises(BodyOutOfReach):
            depot.get(address)


def test_a_server_with_another_address_still_has_what_it_kept(tmp_path: Path) -> None:
    before, after = (
        ServerBodies(HttpClient(), tmp_path, own_url=f"http://127.0.0.1:{port}", secret=b"s") for port in (1, 2)
    )
    address = before.address_of(f"job.{'a' * 12}", None)
    assert address is not None
    before.put(address, b"x")
    assert after.get(address) == b"x"
    after.remove(address)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_server_leaves_no_half_of_a_body(tmp_path: Path) -> None:
    whole, half = tmp_path / "bodies" / f"job.{'a' * 12}", tmp_path / "bodies" / f".job.{'b' * 12}.{'c' * 12}.tmp"
    for path in (whole, half):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    open_server_depot(Settings({}), tmp_path, "http://127.0.0.1:1")
    assert list((tmp_path / "bodies").iterdir()) == [whole]
