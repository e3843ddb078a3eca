"""How much disk an env will need, asked before anything is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comfypin.atomic_files import free_bytes
from comfypin.env.errors import NoRoomForEnv
from comfypin.env.install.wheel_size import unpacked_sizes
from comfypin.http.proxies import Proxies
from comfypin.lock.model import PackagePin

# With this much free nobody asks sixty servers about their wheels.
PLENTY_BYTES = 30_000_000_000
# ComfyUI, nodes, and the byte-code of what is imported to try the env.
SOURCE_BYTES = 300_000_000
# Room for small files that nobody counts.
MARGIN_BYTES = 50_000_000


def require_space(folder: Path, need_bytes: int, *, what: str) -> None:
    """Raise `NoRoomForEnv` unless the file system that holds the folder has this much left."""
    available_bytes = free_bytes(folder)
    if available_bytes < need_bytes:
        raise NoRoomForEnv(where=folder, need_bytes=need_bytes, free_bytes=available_bytes, what=what)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceNeed:
    """Says how many bytes a folder needs, and for what."""

    folder: Path
    size_bytes: int
    what: str


def require_space_to_build(
    home_folder: Path,
    uv_cache: Path,
    packages: Sequence[PackagePin],
    *,
    offline: bool,
    proxies: Proxies | None = None,
) -> None:
    """Raise `NoRoomForEnv` unless `list_space_needs` are met."""
    if min(free_bytes(home_folder), free_bytes(uv_cache)) >= PLENTY_BYTES:
        return
    for space_need in list_space_needs(home_folder, uv_cache, packages, offline=offline, proxies=proxies):
        require_space(space_need.folder, space_need.size_bytes, what=space_need.what)


def list_space_needs(
    home_folder: Path,
    uv_cache: Path,
    packages: Sequence[PackagePin],
    *,
    offline: bool,
    proxies: Proxies | None = None,
) -> list[SpaceNeed]:
    """Return what an env needs in its home, and in uv's cache for the packages that are not there yet.

    On one file system a package that uv unpacks is linked into the env, so it takes its space once.
    """
    unpacked_bytes = sum(unpacked_sizes(packages, offline=offline, proxies=proxies))
    space_needs = [SpaceNeed(folder=home_folder, size_bytes=SOURCE_BYTES + unpacked_bytes, what="Realizing this lock")]
    if file_system_id(home_folder) != file_system_id(uv_cache):
        space_needs.append(
            SpaceNeed(folder=uv_cache, size_bytes=MARGIN_BYTES + unpacked_bytes, what="uv's cache for this lock")
        )
    return space_needs


def file_system_id(checked_path: Path) -> int:
    """Return the device number of the file system that holds a path, or would hold it."""
    # A home that does not exist yet will be made on the file system of its parent.
    while not checked_path.exists():
        checked_path = checked_path.parent
    return checked_path.stat().st_dev
