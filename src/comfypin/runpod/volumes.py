"""The account's network volumes, and what `comfypin runpod volume` does with all those it was told of at once."""

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
    """A network volume as RunPod lists it."""

    identifier: str
    name: str
    data_center: str
    size_gb: int

    def __str__(self) -> str:
        return f"{self.name} in {self.data_center}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushDestination:
    """A volume, what brings a release there, and what it still needs."""

    volume: NetworkVolume
    pusher: VolumePusher


def find_volumes(
    api: ManagementApi, wanted: Sequence[str], *, centers: Sequence[str] = (), deployment: str | None = None
) -> list[NetworkVolume]:
    """The volumes of these names (on RunPod or in runpod.toml) or ids, in these data centres or in all.

    Names need not be unique on RunPod: one name in several data centres is several volumes. Raises `VolumeUnknown`.
    """
    every = [
        NetworkVolume(
            identifier=str(item["id"]),
            name=str(item.get("name")),
            data_center=str(item.get("dataCenter")),
            size_gb=int(str(item.get("size", 0))),
        )
        for item in api.list_resources("volume")
    ]
    places = {center.upper() for center in centers}
    found: dict[str, NetworkVolume] = {}
    for name in wanted:
        names = {name, remote_name(deployment, name)} if deployment else {name}
        matching = [
            volume
            for volume in every
            if (volume.name in names or volume.identifier == name)
            and (not places or volume.data_center.upper() in places)
        ]
        if not matching:
            raise VolumeUnknown(wanted=name, centers=sorted(places), known=sorted(map(str, every)))
        found |= {volume.identifier: volume for volume in matching}
    if unserved := places - {volume.data_center.upper() for volume in found.values()}:
        raise VolumeUnknown(wanted=", ".join(wanted), centers=sorted(unserved), known=sorted(map(str, every)))
    return list(found.values())


def run_on_all(
    items: Sequence[Result], work: Callable[[Result], object], *, abandon: Callable[[], None]
) -> list[tuple[Result, ComfypinError]]:
    """Do something with all at once; those that failed, and why.

    Others than our own failures (an interrupt) go up, after `abandon` has told the work to end.
    """
    failed = []
    pool = ThreadPoolExecutor(max(1, len(items)), thread_name_prefix="volume")
    futures = [pool.submit(work, item) for item in items]
    try:
        for item, future in zip(items, futures, strict=True):
            try:
                future.result()
            except ComfypinError as error:
                failed.append((item, error))
    except BaseException:
        abandon()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return failed


def require_space(destination: PushDestination, files: Iterable[FileToPush]) -> None:
    """Raise `VolumeTooSmall` where the files would not fit beside what the volume's releases have."""
    needed = sum(file.size_bytes for file in files)
    if not needed:
        return
    bucket = destination.pusher.bucket
    used = sum(item.size_bytes for prefix in (MODELS, PACKS) for item in bucket.list_objects(f"{prefix}/"))
    if needed + used > destination.volume.size_gb * _GB:
        raise VolumeTooSmall(
            volume=str(destination.volume),
            needed_bytes=needed,
            used_bytes=used,
            size_gb=destination.volume.size_gb,
        )


def push_to_all(
    owed: Sequence[tuple[PushDestination, Sequence[FileToPush]]], *, finish: Callable[[PushDestination], None]
) -> dict[str, list[PushedFile]]:
    """Send each destination its files, all destinations at once, the largest file first; what was done, by volume id.

    Raises `VolumePushFailed`, or the failure itself where there is but one volume; the other volumes are whole then.
    """
    done: dict[str, list[PushedFile]] = {}

    def push_files(item: tuple[PushDestination, Sequence[FileToPush]]) -> None:
        destination, files = item
        pushed = done.setdefault(destination.volume.identifier, [])
        require_space(destination, files)
        for file in sorted(files, key=lambda file: -file.size_bytes):
            pushed.append(destination.pusher.push_file(file))
        finish(destination)

    def stop_pushers() -> None:
        for destination, _ in owed:
            destination.pusher.stop()

    failed = run_on_all(owed, push_files, abandon=stop_pushers)
    if failed and len(owed) == 1:
        raise failed[0][1]
    if failed:
        failures = [{"volume": str(destination.volume), "reason": error.message} for (destination, _), error in failed]
        raise VolumePushFailed(failures=failures, total=len(owed)) from failed[0][1]
    return done
