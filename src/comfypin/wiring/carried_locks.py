"""Locks that reach a container by a variable: the lock itself as text, or its address with its digest."""

import re
from typing import TYPE_CHECKING

from comfypin.wiring.network import http_proxies

if TYPE_CHECKING:
    from comfypin.settings.environment import Settings

_PINNED_ADDRESS = re.compile(r"(?P<url>[^#\s]+)#sha256=(?P<digest>[0-9a-fA-F]{64})")


def fetch_carried_lock(settings: "Settings") -> tuple[str, bytes]:
    """Return the variable that names the lock, and the lock's bytes.

    A lock by address is kept in the cache by its digest: a worker that is started again asks nobody. Raises
    `LockError`, `DownloadFailed`, `DownloadWrong`.
    """
    from comfypin.lock.carried import read_carried_lock

    machine = settings.machine
    if machine.carried_lock is not None:
        return "COMFYPIN_LOCK_DATA", read_carried_lock(machine.carried_lock, where="COMFYPIN_LOCK_DATA")
    return "COMFYPIN_LOCK_URL", _fetch_by_address(machine.lock_url or "", settings)


def _fetch_by_address(address: str, settings: "Settings") -> bytes:
    from comfypin.digest import Digest
    from comfypin.lock.errors import LockAddressUnpinned
    from comfypin.tools.download import download_file

    pinned = _PINNED_ADDRESS.fullmatch(address)
    if pinned is None:
        raise LockAddressUnpinned(variable="COMFYPIN_LOCK_URL")
    digest = Digest(pinned["digest"].lower())
    kept_path = settings.env.cache_dir.absolute() / "locks" / f"{digest.hex}.lock.json"
    if not kept_path.is_file() or Digest.of_file(kept_path) != digest:
        download_file(pinned["url"], kept_path, [digest], proxies=http_proxies(settings))
    return kept_path.read_bytes()
