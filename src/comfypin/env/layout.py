"""The layout of a realized env under COMFY_HOME; docs/architecture.md, "Env", explains it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from comfypin.lease import is_dead, process_token

TEMPORARY_PREFIX = ".tmp-"
PACKING_PREFIX = f"{TEMPORARY_PREFIX}pack-"
RECEIPT_FILE = "receipt.json"
BYTECODE_FILE = "bytecode.json"
MANIFEST_FILE = "manifest.json"
COMFYUI_FOLDER = "ComfyUI"
CUSTOM_NODES_FOLDER = "ComfyUI/custom_nodes"
VENV_FOLDER = "venv"
LOCK_COPY = "current.lock.json"
# ComfyUI's own state inside its folder: never part of what a lock says.
STATE_FOLDERS = ("output", "input", "temp", "user", "models")


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Names the paths under COMFY_HOME: builds by env digest, and links to the current one."""

    root: Path

    @property
    def builds_folder(self) -> Path:
        """Return the folder of all builds, each complete (with a receipt) or to be thrown away."""
        return self.root / "builds"

    def build_folder(self, build_key: str) -> Path:
        """Return the folder of one build."""
        return self.builds_folder / build_key

    def new_temporary_folder(self, build_key: str) -> Path:
        """Return a new path for an unfinished build, which names its key and the process that makes it."""
        return self.builds_folder / f"{TEMPORARY_PREFIX}{build_key}@{process_token()}"

    def list_temporary_folders(self, build_key: str) -> list[Path]:
        """Return what this and other runs for the key have begun."""
        return sorted(self.builds_folder.glob(f"{TEMPORARY_PREFIX}{build_key}@*"))

    @property
    def current_link(self) -> Path:
        """Return the link to the build that was realized last."""
        return self.root / "current"

    def lease_path(self, build_key: str) -> Path:
        """Return the lease of whoever makes this build."""
        return self.root / "leases" / f"build-{build_key}"

    @property
    def lock_copy(self) -> Path:
        """Return the copy of the lock that was realized last, so that `env status` needs no other."""
        return self.root / LOCK_COPY


@contextmanager
def packing_folder(build_folder: Path) -> Iterator[Path]:
    """Yield a folder beside a build for its pack, and remove what killed runs of this machine left there.

    Once before, to have their room, and once after: what they had started may have gone on writing for a while.
    """
    remove_stale_packings(build_folder.parent)
    # On a read-only home the system's temporary folder has to do.
    parent_folder = build_folder.parent if os.access(build_folder.parent, os.W_OK) else None
    with tempfile.TemporaryDirectory(
        prefix=PACKING_PREFIX, suffix=f"@{process_token()}", dir=parent_folder
    ) as temporary_folder:
        yield Path(temporary_folder)
    remove_stale_packings(build_folder.parent)


def remove_stale_packings(builds_folder: Path) -> None:
    """Remove what killed packings of this machine left."""
    for leftover_folder in builds_folder.glob(f"{PACKING_PREFIX}*"):
        if is_dead(leftover_folder.name.rpartition("@")[2]):
            shutil.rmtree(leftover_folder, ignore_errors=True)


def site_packages(build_folder: Path) -> Path:
    """Return the folder of a build's packages. Raises `StopIteration` if there is no venv."""
    return next(iter(sorted((build_folder / VENV_FOLDER / "lib").glob("python3.*/site-packages"))))


def venv_python(build_folder: Path) -> Path:
    """Return the interpreter of a build."""
    return build_folder / VENV_FOLDER / "bin" / "python"
