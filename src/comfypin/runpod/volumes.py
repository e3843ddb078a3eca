"""Finds the account's network volumes, and pushes to several at once."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from comfypin.errors import ComfypinError
from comfypin.runpod.desired_state import remote_name
from comfypin.runpod.errors import VolumePushFailed, VolumeTooSmall, VolumeUnknown
from comfypin.runpod.management_api import ManagementApi
from comfypin.runpod.volume_push import PushedFile, VolumePusher
from comfypin.runpod.volume_release import MODELS, PACKS, FileToPush

Result = TypeVar("Result")
_GB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkVolume:
    """One network volume as Runpod lists it."""

    identifier: str
    name: str
    data_center: str
    size_gb: int

    def __str__(self) -> str:
        return f"{self.name} in {self.data_center}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushDestination:
    """One volume and the pusher that brings a release there."""

    volume: NetworkVolume
    pusher: VolumePusher


def find_volumes(
    api: ManagementApi, volume_names: Sequence[str], *, centers: Sequence[str] = (), deployment: str | None = None
) -> list[NetworkVolume]:
    """Find volumes by name (on Runpod or in runpod.toml) or id, in these data centres or in all.

    Names need not be unique on Runpod: one name in several data centres is several volumes. Raises `VolumeUnknown`.
    """
    all_volumes = [
        NetworkVolume(
            identifier=str(listed["id"]),
            name=str(listed.get("name")),
            data_center=str(listed.get("dataCenter")),
            size_gb=int(str(listed.get("size", 0))),
        )
        for listed in api.list_resources("volume")
    ]
    wanted_centers = {center.upper() for center in centers}
    found_volumes: dict[str, NetworkVolume] = {}
    for wanted_name in volume_names:
        # In runpod.toml a volume has a short name, which on Runpod carries the deployment's.
        names = {wanted_name, remote_name(deployment, wanted_name)} if deployment else {wanted_name}
        matching = [
            volume
            for volume in all_volumes
            if (volume.name in names or volume.identifier == wanted_name)
            and (not wanted_centers or volume.data_center.upper() in wanted_centers)
        ]
        if not matching:
            raise VolumeUnknown(wanted=wanted_name, centers=sorted(wanted_centers), known=sorted(map(str, all_volumes)))
        found_volumes |= {volume.identifier: volume for volume in matching}
    # A name that was found in one data centre says nothing of the others that were named.
    if unserved := wanted_centers - {volume.data_center.upper() for volume in found_volumes.values()}:
        raise VolumeUnknown(
            wanted=", ".join(volume_names), centers=sorted(unserved), known=sorted(map(str, all_volumes))
        )
    return list(found_volumes.values())


def run_on_all(
    items: Sequence[Result], work: Callable[[Result], object], *, abandon: Callable[[], None]
) -> list[tuple[Result, ComfypinError]]:
    """Run the work on all items at once; return those that failed, and why.

    Others than our own failures (an interrupt) go up, after `abandon` has told the work to end.
    """
    failures = []
    # One thread each: a slow data centre must not hold up the others.
    pool = ThreadPoolExecutor(max(1, len(items)), thread_name_prefix="volume")
    futures = [pool.submit(work, item) for item in items]
    try:
        for item, future in zip(items, futures, strict=True):
            try:
                future.result()
            except ComfypinError as error:
                failures.append((item, error))
    # Ctrl-C too: threads that upload would go on to their end otherwise.
    except BaseException:
        abandon()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return failures


def require_space(destination: PushDestination, files: Iterable[FileToPush]) -> None:
    """Raise `VolumeTooSmall` if the files would not fit beside what the volume's releases have."""
    needed_bytes = sum(push_file.size_bytes for push_file in files)
    if not needed_bytes:
        return
    bucket = destination.pusher.bucket
    used_bytes = sum(
        stored_object.size_bytes for prefix in (MODELS, PACKS) for stored_object in bucket.list_objects(f"{prefix}/")
    )
    # Counted, not asked: the S3 API of volumes does not tell the free space.
    if needed_bytes + used_bytes > destination.volume.size_gb * _GB:
        raise VolumeTooSmall(
            volume=str(destination.volume),
            needed_bytes=needed_bytes,
            used_bytes=used_bytes,
            size_gb=destination.volume.size_gb,
        )


def push_to_all(
    files_by_destination: Sequence[tuple[PushDestination, Sequence[FileToPush]]],
    *,
    finish: Callable[[PushDestination], None],
) -> dict[str, list[PushedFile]]:
    """Push to all destinations at once, the largest file first; return the pushed files by volume id.

    Raises `VolumePushFailed`, or the failure itself if there is only one volume. The other volumes are complete then.
    """
    pushed_files: dict[str, list[PushedFile]] = {}

    def push_files(owed_files: tuple[PushDestination, Sequence[FileToPush]]) -> None:
        destination, files = owed_files
        pushed = pushed_files.setdefault(destination.volume.identifier, [])
        require_space(destination, files)
        for push_file in sorted(files, key=lambda push_file: -push_file.size_bytes):
            pushed.append(destination.pusher.push_file(push_file))
        finish(destination)

    def stop_pushers() -> None:
        for destination, _ in files_by_destination:
            destination.pusher.stop()

    failed = run_on_all(files_by_destination, push_files, abandon=stop_pushers)
    if failed and len(files_by_destination) == 1:
        raise failed[0][1]
    if failed:
        failures = [{"volume": str(destination.volume), "reason": error.message} for (destination, _), error in failed]
        raise VolumePushFailed(failures=failures, total=len(files_by_destination)) from failed[0][1]
    return pushed_files
