"""Where a release of `comfypin runpod up` goes: what the deployment has already stays, the rest is chosen."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfypin.lock.model import Lock
    from comfypin.runpod.deployment_plan import LiveResources
    from comfypin.runpod.management_api import ManagementApi
    from comfypin.runpod.release_facts import ReleaseFacts
    from comfypin.runpod.up.choices import Place
    from comfypin.runpod.up.errors import NoPlaceAvailable
    from comfypin.runpod.up.state import UpRelease, UpState

# In the place of what only Runpod knows, in a plan that is only shown.
_UNKNOWN_POOL = "the cheapest GPU that fits and is available (--gpu)"
_UNKNOWN_CENTER = "a data centre that has it (--data-center)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceNeeds:
    """What a release needs of its place: the largest model in GB, and the volume's size if it has one."""

    model_gb: float
    volume_gb: int | None


def place_needs(release: "UpRelease", lock: "Lock", facts: "ReleaseFacts") -> PlaceNeeds:
    """Return what the lock's release needs, with the volume's size that was named, if one was."""
    from comfypin.runpod.release_facts import to_gigabytes
    from comfypin.runpod.up.plan import needs_volume, volume_size_gb

    engine_kind = lock.engine.kind
    size = release.volume_gb
    if size is None and needs_volume(engine_kind, facts):
        size = volume_size_gb(facts, builds_env=engine_kind == "comfyui")
    return PlaceNeeds(model_gb=to_gigabytes(facts.largest_model_bytes), volume_gb=size)


def choose_release_place(
    management_api: "ManagementApi", release: "UpRelease", needs: PlaceNeeds, live: "LiveResources", state: "UpState"
) -> "tuple[Place | None, UpRelease]":
    """Choose the place and number the release; what the deployment has already stays where it is.

    Raises `NoPlaceAvailable`.
    """
    from comfypin.runpod.up.catalogs import read_catalogs
    from comfypin.runpod.up.choices import PlaceWish, choose_place
    from comfypin.runpod.up.errors import NoPlaceAvailable
    from comfypin.runpod.up.numbering import number_release
    from comfypin.runpod.up.plan import find_volume, place_release

    latest, volume = state.latest, find_volume(state.name, live)
    pools = release.gpu_pools or (latest.gpu_pools if latest is not None else ())
    center = release.data_center or (None if volume is None else str(volume["dataCenter"]))
    if center is None and latest is not None:
        center = latest.data_center
    wish = PlaceWish(model_gb=needs.model_gb, needs_volume=needs.volume_gb is not None, pools=pools, data_center=center)
    try:
        place = choose_place(*read_catalogs(management_api), wish)
    except NoPlaceAvailable:
        # What exists goes on, whatever is available for others now.
        if latest is None or latest.stage == "planned" or release.gpu_pools not in ((), latest.gpu_pools):
            raise
        chosen_release = replace(release, gpu_pools=pools, data_center=center, volume_gb=needs.volume_gb)
        return None, number_release(chosen_release, state)
    return place, number_release(place_release(release, place, needs.volume_gb), state)


def without_place(release: "UpRelease", volume_gb: int | None) -> "UpRelease":
    """Return the release with words where only Runpod knows a place, for a plan that is only shown."""
    center = release.data_center or (_UNKNOWN_CENTER if volume_gb is not None else None)
    return replace(release, gpu_pools=release.gpu_pools or (_UNKNOWN_POOL,), data_center=center, volume_gb=volume_gb)


def place_finding(unavailable: "NoPlaceAvailable") -> str:
    """Return the finding for a place that cannot be had, with what is available instead."""
    return "the GPU: " + unavailable.message.rstrip(".").replace("\n", "\n  ")
