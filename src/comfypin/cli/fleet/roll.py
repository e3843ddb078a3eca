"""`comfypin fleet roll NEW`: another release takes the jobs of one, and the workers of the old one leave.

Jobs that name the old release by its digest still get it. `--back` takes the last roll back.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from comfypin.cli.fleet.members import with_fleet
from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.queue.nats.fleet import Fleet
    from comfypin.queue.nats.rolls import Roll
    from comfypin.queue.nats.worker_records import WorkerRecord

_DESCRIPTION = """Have the release NEW take the jobs of another one. Once a worker has NEW warm, jobs that name no
release by its digest go to it, and workers of the old one leave as soon as nothing waits for them. A running
`comfypin fleet scale` makes pods of NEW by itself; for other machines this says what to start."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = _DESCRIPTION
    parser.add_argument("new", nargs="?", metavar="NEW", help="the new release: a lock's file or name")
    parser.add_argument(
        "--from", dest="old", metavar="OLD", help="the old one: name or digest (default: the only one that has workers)"
    )
    parser.add_argument("--image", metavar="NAME@sha256:...", help="the image of its pods, if it is another one")
    parser.add_argument("--now", action="store_true", help="do not wait for a worker that has it warm")
    parser.add_argument("--back", action="store_true", help="take the last roll back, at once")


def execute(arguments: argparse.Namespace, address: str) -> int:
    """Write the roll down, and say what is to be started."""
    # True if both are given, and if neither is.
    if arguments.back == (arguments.new is not None):
        raise UsageError("Name the new release, or take the last roll back with --back: one of both.")
    if arguments.back:
        return with_fleet(arguments, address, lambda fleet: _roll_back(arguments, fleet, address))
    return with_fleet(arguments, address, lambda fleet: _roll(arguments, fleet, address))


async def _roll(arguments: argparse.Namespace, fleet: "Fleet", address: str) -> int:
    from comfypin.cli.common import read_named_lock
    from comfypin.cli.runpod.worker_image import resolve_worker_image
    from comfypin.lock.carried import carry_lock
    from comfypin.lock.codec import lock_digest, render_lock
    from comfypin.queue.nats.overview import read_workers
    from comfypin.queue.nats.releases import keep_lock
    from comfypin.queue.nats.rolls import Roll, change_rolls
    from comfypin.wiring import release_key

    lock = read_named_lock(arguments.new, arguments.settings)[1].lock
    new = release_key(lock_digest(lock))
    workers = await read_workers(fleet)
    old, old_name = await _find_old(arguments, fleet, workers, new)
    image = None if arguments.image is None else resolve_worker_image(arguments.image, lock, arguments.settings)
    roll = Roll(
        old=old,
        old_name=old_name,
        new=new,
        new_name=lock.version_name,
        at=time.time(),
        is_held=arguments.now,
        image=image,
    )
    # The lock first: a scaler that sees the roll makes pods of it at once.
    await keep_lock(fleet.releases, new, carry_lock(render_lock(lock)))
    await _open_lanes(fleet, roll)
    await change_rolls(fleet.control, lambda rolls: rolls.with_roll(roll))
    _report(arguments, roll, workers, address)
    return 0


async def _roll_back(arguments: argparse.Namespace, fleet: "Fleet", address: str) -> int:
    from comfypin.queue.nats.overview import read_workers
    from comfypin.queue.nats.rolls import change_rolls

    now = time.time()
    rolls = await change_rolls(fleet.control, lambda known: known.without_last(at=now))
    if rolls is None:
        raise UsageError("There is no roll to take back.")
    # The step has our time; nobody else writes the same one.
    (roll,) = [current_roll for current_roll in rolls.current.values() if current_roll.at == now]
    _report(arguments, roll, await read_workers(fleet), address)
    return 0


async def _find_old(
    arguments: argparse.Namespace, fleet: "Fleet", workers: "list[WorkerRecord]", new: str
) -> tuple[str, str]:
    """Return the release that is rolled. Raises `UsageError` if it is not clear which."""
    from comfypin.queue.nats.releases import release_names

    own = {worker.own: dict(worker.releases)[worker.own] for worker in workers if not worker.is_stopping}
    known = {**await release_names(fleet.releases), **own}
    if arguments.old is None:
        candidates = {release: release_name for release, release_name in own.items() if release != new}
        flag = "--from OLD"
    else:
        digits = arguments.old.removeprefix("sha256:")
        candidates = {
            release: release_name
            for release, release_name in known.items()
            if release != new
            and (release_name == arguments.old or (len(digits) >= 8 and release.startswith(digits[:16])))
        }
        flag = "--from with the digest"
    if len(candidates) != 1:
        listed = (
            ", ".join(f"{release_name} ({release})" for release, release_name in sorted((candidates or known).items()))
            or "none"
        )
        raise UsageError(f"Which release should be replaced? Name it ({flag}); the fleet knows: {listed}.")
    return next(iter(candidates.items()))


async def _open_lanes(fleet: "Fleet", roll: "Roll") -> None:
    """Make the lines of the new release that the old one has: scalers want to find them before any job comes."""
    from dataclasses import replace

    from comfypin.queue.nats.overview import read_lanes

    for lane in await read_lanes(fleet, {}, now=time.time()):
        if lane.lane.release == roll.old:
            await fleet.tickets.open_lane(replace(lane.lane, release=roll.new))


def _report(arguments: argparse.Namespace, roll: "Roll", workers: "list[WorkerRecord]", address: str) -> None:
    to_start = _to_start(roll, workers)
    if arguments.json:
        document = {
            "from": {"release": roll.old_name, "release_key": roll.old},
            "to": {"release": roll.new_name, "release_key": roll.new},
            "held": roll.is_held,
            "start": [{"class": gpu_class, "workers": count} for gpu_class, count in sorted(to_start.items())],
        }
        print(json.dumps(document))
        return
    print("\n".join(_roll_lines(roll, to_start, address, is_back=arguments.back)))


def _to_start(roll: "Roll", workers: "list[WorkerRecord]") -> "Counter[str]":
    """Return by class how many workers the old release has more than the new one."""
    before = Counter(worker.gpu_class for worker in workers if worker.own == roll.old and not worker.is_stopping)
    return before - Counter(worker.gpu_class for worker in workers if worker.own == roll.new and not worker.is_stopping)


def _roll_lines(roll: "Roll", to_start: "Counter[str]", address: str, *, is_back: bool) -> Iterator[str]:
    when = "now" if roll.is_held else "as soon as a worker has it warm"
    yield f"{roll.old_name} ({roll.old}) -> {roll.new_name} ({roll.new}): jobs go to the new release {when}."
    yield f"Workers of {roll.old_name} finish what waits for them, and leave."
    if not is_back:
        yield "`comfypin fleet roll --back` takes it back."
    yield "On Runpod a running `comfypin fleet scale` makes the new pods. Elsewhere start:"
    for gpu_class, count in sorted(to_start.items()):
        flag = "" if gpu_class == "any" else f" --class {gpu_class}"
        yield f"  {count} x comfypin worker --queue {address} --release {roll.new_name}{flag}"
    if not to_start:
        yield f"  comfypin worker --queue {address} --release {roll.new_name}"
    yield (
        f"In Kubernetes apply the workers' manifests once more with the new image and names, and {roll.new} in place "
        f"of {roll.old} in the consumers of the ScaledObject; while KEDA keeps none of the new ones, roll with --now."
    )
