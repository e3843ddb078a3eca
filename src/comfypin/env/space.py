"""How much disk an env will need, asked before anything is made."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

from comfypin.env.plan import SOURCE_BYTES, UNPACKED_PER_WHEEL
from comfypin.errors.env import DiskTooSmall
from comfypin.files import free_bytes
from comfypin.lock.model import PackagePin

# With this much free nobody asks sixty servers for the sizes of their wheels.
PLENTY_BYTES = 60_000_000_000
MARGIN_BYTES = 50_000_000
_HEAD_TIMEOUT_S = 10.0


def require_space(folder: Path, need_bytes: int, *, what: str) -> None:
    """Raise `DiskTooSmall` unless the file system that holds the folder has this much left."""
    free = free_bytes(folder)
    if free < need_bytes:
        raise DiskTooSmall(where=folder, need_bytes=need_bytes, free_bytes=free, what=what)


def require_space_to_build(home: Path, cache: Path, packages: Sequence[PackagePin], *, offline: bool) -> None:
    """Raise `DiskTooSmall` where the home cannot hold the env, or uv's cache cannot hold its packages."""
    if min(free_bytes(home), free_bytes(cache)) >= PLENTY_BYTES:
        return
    unpacked = int(sum(wheel_sizes(packages, offline=offline)) * UNPACKED_PER_WHEEL)
    shared = _device(home) == _device(cache)
    require_space(home, SOURCE_BYTES + unpacked * (2 if shared else 1), what="Realizing this lock")
    if not shared:
        require_space(cache, MARGIN_BYTES + unpacked, what="uv's cache for this lock")


def wheel_sizes(packages: Sequence[PackagePin], *, offline: bool) -> list[int]:
    """The sizes of the packages' files in bytes: from the disk, or asked of their servers; 0 where nobody says."""
    import urllib3

    def size(pin: PackagePin) -> int:
        parts = urlsplit(pin.url or "")
        if parts.scheme == "file":
            path = Path(unquote(parts.path))
            return path.stat().st_size if path.is_file() else 0
        if offline or parts.scheme not in {"http", "https"}:
            return 0
        try:
            answer = pool.request("HEAD", pin.url or "", timeout=_HEAD_TIMEOUT_S, retries=1)
        except urllib3.exceptions.HTTPError:
            return 0
        length = answer.headers.get("Content-Length", "")
        return int(length) if answer.status == 200 and length.isdigit() else 0

    with urllib3.PoolManager(maxsize=16) as pool, ThreadPoolExecutor(max_workers=16) as threads:
        return list(threads.map(size, packages))


def _device(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return path.stat().st_dev
