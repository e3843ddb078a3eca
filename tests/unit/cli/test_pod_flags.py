"""What a fleet's pods are made from: locks that the fleet keeps are believed by their digest alone."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from comfypin.cli.fleet.pod_flags import PodMaker
from comfypin.lock.carried import carry_lock
from comfypin.lock.codec import lock_digest, read_lock
from comfypin.queue.nats.buckets import Value
from comfypin.queue.nats.rolls import NO_ROLLS, Roll
from comfypin.wiring import release_key
from tests.conftest import ROOT

DEMO = ROOT / "lockfiles" / "comfy-demo.lock.json"
IMAGE = "ghcr.io/you/comfypin-worker@sha256:" + "6f" * 32


@dataclass
class FakeBucket:
    values: dict[str, bytes] = field(default_factory=dict)

    async def get(self, key: str) -> Value | None:
        return Value(data=self.values[key], revision=1) if key in self.values else None


def maker() -> PodMaker:
    return PodMaker(
        arguments=argparse.Namespace(name="fleet", gpu_class="any", image=None),
        management_api=None,  # type: ignore[arg-type]
        wishes=(),
        values={},
        releases=(),
        known={},
    )


def fleet_with_lock(key: str, path: Path) -> Any:
    return SimpleNamespace(releases=FakeBucket({f"lock.{key}": carry_lock(path.read_bytes()).encode()}))


async def test_a_rolled_release_is_made_of_the_lock_that_the_fleet_keeps_and_its_own_image() -> None:
    release = release_key(lock_digest(read_lock(DEMO).lock))
    roll = Roll(old="a", old_name="old", new=release, new_name="demo", at=0.0, image=IMAGE)
    pods = maker()
    assert await pods.learn(fleet_with_lock(release, DEMO), release, NO_ROLLS.with_roll(roll))
    assert pods.known[release].image == IMAGE
    assert pods.known[release].facts.name == "demo"


async def test_a_lock_of_another_digest_is_not_taken() -> None:
    roll = Roll(old="a", old_name="old", new="ab" * 8, new_name="demo", at=0.0, image=IMAGE)
    pods = maker()
    assert not await pods.learn(fleet_with_lock("ab" * 8, DEMO), "ab" * 8, NO_ROLLS.with_roll(roll))
    assert not await pods.learn(fleet_with_lock("cd" * 8, DEMO), "ef" * 8, NO_ROLLS)
    unreadable: Any = SimpleNamespace(releases=FakeBucket({f"lock.{'ab' * 8}": b"no lock"}))
    assert not await pods.learn(unreadable, "ab" * 8, NO_ROLLS)
    assert pods.known == {}
