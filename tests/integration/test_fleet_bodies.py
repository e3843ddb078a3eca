"""What is too large for the queue, and what is secret in it."""

import random
from pathlib import Path

import pytest

from comfypin.queue.nats.bodies import LARGEST_BYTES, Bodies
from comfypin.queue.nats.bucket_depot import BucketDepot
from comfypin.queue.nats.buckets import Bucket
from comfypin.queue.nats.connection import parse_queue_address
from comfypin.queue.nats.errors import BodyTooLarge, JobSecretsRefused, SealBroken
from comfypin.queue.nats.fleet import open_fleet
from comfypin.queue.nats.names import BODIES
from comfypin.queue.nats.sealing import Seal
from comfypin.settings.fleet import FleetSettings
from comfypin.storage.local import LocalStore
from tests.support.job_queues import FLEET_KEY
from tests.support.nats_servers import nats_server

OTHER_KEY = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY="
# What does not shrink.
LARGE = random.Random(1).randbytes(LARGEST_BYTES).hex()


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


async def test_without_a_bucket_or_a_key_bodies_are_refused(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        async with open_fleet(parse_queue_address(server.address), FleetSettings(), client_name="test") as fleet:
            with pytest.raises(BodyTooLarge, match="no bucket"):
                await fleet.bodies.put("job", LARGE, secret=False)
            with pytest.raises(JobSecretsRefused, match="COMFYPIN_FLEET_KEY"):
                await fleet.bodies.put("job", "sesame", secret=True)
