"""Chooses the line in which a job waits: that of the release, class and priority which it asks for."""

from dataclasses import dataclass, replace

from comfypin.queue.errors import RouteUnknown
from comfypin.queue.interface import JobRoute
from comfypin.queue.nats.buckets import Bucket
from comfypin.queue.nats.failures import as_storage_failure
from comfypin.queue.nats.names import ANY_CLASS, RELEASE_LETTERS, Lane, is_class_name
from comfypin.queue.nats.releases import release_names
from comfypin.queue.nats.rolls import Rolls


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenLane:
    """Where a job waits. `is_pinned`: it named the release by its digest."""

    lane: Lane
    release_name: str | None
    is_pinned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownReleases:
    """The release of the server that takes a job, and what was rolled."""

    own: str
    own_name: str | None
    rolls: Rolls


async def choose_lane(route: JobRoute, known: KnownReleases, releases: Bucket) -> ChosenLane:
    """Return the lane that a job asks for. Raises `RouteUnknown`, `JobsNotStored`."""
    gpu_class = route.gpu_class or ANY_CLASS
    if not is_class_name(gpu_class):
        raise RouteUnknown(what="class", name=gpu_class, known="names of letters, digits and dashes")
    if route.release in (None, known.own_name):
        own_lane = Lane(release=known.own, gpu_class=gpu_class, priority=route.priority)
        return _rolled(own_lane, known.own_name, known.rolls)
    with as_storage_failure():
        names = await release_names(releases)
    wanted_release = str(route.release)
    digits = wanted_release.removeprefix("sha256:")[:RELEASE_LETTERS]
    for release, release_name in {known.own: known.own_name, **names}.items():
        lane = Lane(release=release, gpu_class=gpu_class, priority=route.priority)
        if digits == release:
            return ChosenLane(lane=lane, release_name=release_name, is_pinned=True)
        if wanted_release == release_name:
            return _rolled(lane, release_name, known.rolls)
    listed = ", ".join(sorted({str(known.own_name), *names.values()}))
    raise RouteUnknown(what="release", name=wanted_release, known=listed)


def _rolled(lane: Lane, name: str | None, rolls: Rolls) -> ChosenLane:
    """Return the lane of the release that has this one's place now, as a roll may say."""
    release = rolls.successor(lane.release)
    release_name = rolls.names().get(release, name)
    return ChosenLane(lane=replace(lane, release=release), release_name=release_name, is_pinned=False)
