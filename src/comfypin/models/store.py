"""Stores blobs: model bytes by sha256, once for all releases, with links from ComfyUI's folders to them.

Below its root (`MODELS_DIR/.comfypin`, or a folder of a volume): `blobs/sha256/<2 hex>/<hex>` whole files, read only ·
`partial/<key>/` unfinished ones · `leases/` who works on which · `aside/` files that were in the way or had wrong bytes
· `releases/` which release names which blob · `verified` digests that are known. Everything that several processes may
do at once is an atomic rename or happens under a lease. `receipts/` has the digests of blobs that came with an image.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from comfypin.atomic_files import free_bytes, fsync_folder
from comfypin.digest import Digest
from comfypin.digest_cache import DigestCache
from comfypin.errors import LeaseError
from comfypin.lease import Lease, acquire_lease, is_dead, process_token, try_acquire_lease
from comfypin.lock.model import ModelPin
from comfypin.models.errors import DiskTooSmall, ModelDiffers
from comfypin.models.partial_file import PartialFile
from comfypin.models.release_index import ReleaseIndex
from comfypin.models.temp_files import TempFiles

RECEIPTS_FOLDER = "receipts"
LinkKind = Literal["symlink", "hardlink", "reflink", "copy"]

# Space that is left for others: logs, the engine's own files.
SPARE_BYTES = 64 << 20
# https://man7.org/linux/man-pages/man2/FICLONE.2const.html
_FICLONE = 0x40049409
# Hearts of leases beat every few seconds, and clocks of machines differ.
_FORGOTTEN_S = 3600
_LOCAL_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay", "bcachefs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Durability:
    """When bytes are flushed to the disk: `always`, else only if other machines may read them (network volumes)."""

    always: bool = False


class BlobStore:
    """Blobs below one root, with the cache of known digests and the records of releases."""

    def __init__(self, root: Path, *, durability: Durability | None = None, spare_notes: Path | None = None) -> None:
        """Open the store; `spare_notes` is a folder for the digests of a store that cannot be written."""
        self.root = root
        self._temp_files = TempFiles(root / "tmp")
        # One file a store: whatever is mounted at another path is another store.
        spare_path = None if spare_notes is None else spare_notes / Digest.of(os.fsencode(root)).hex[:32]
        self.digests = DigestCache(
            root / "verified",
            write_file=self._temp_files.write_file,
            spare=None if spare_path is None else DigestCache(spare_path, root=root),
            receipts=root / RECEIPTS_FOLDER,
        )
        self.releases = ReleaseIndex(root / "releases", self._temp_files)
        self._durability = durability or Durability()

    # -- names

    def blob_path(self, digest: Digest) -> Path:
        """Return the path that a blob has, or would have."""
        return self.root / "blobs" / "sha256" / digest.hex[:2] / digest.hex

    def partial_file(self, key: str) -> PartialFile:
        """Return the unfinished file of a key: a digest's hex, or another name if the digest is not known."""
        return PartialFile(self.root / "partial" / key)

    def lease_path(self, key: str) -> Path:
        return self.root / "leases" / f"{key}.lease"

    def try_lease(self, blob_key: str) -> Lease | None:
        """Take the lease on one key, or return None if somebody else has it. Raises `LeaseUnavailable`."""
        lease_or_holder = try_acquire_lease(self.lease_path(blob_key), purpose=f"bring {blob_key[:12]}")
        return lease_or_holder if isinstance(lease_or_holder, Lease) else None

    def wait_for_lease(self, blob_key: str) -> Lease:
        """Wait for the lease on one key."""
        return acquire_lease(self.lease_path(blob_key), purpose=f"work on {blob_key[:12]}")

    def lease_use(self, digest: Digest) -> Lease:
        """Keep a blob from being collected while a job uses it; many may at once. The caller holds the blob's lease."""
        return acquire_lease(self.lease_path(f"use-{digest.hex}-{secrets.token_hex(6)}"), purpose="run a job")

    def is_used(self, digest: Digest) -> bool:
        """Return whether a running job uses the blob, in any process."""
        for folder_entry in _list_entries(self.root / "leases"):
            key = folder_entry.name.removesuffix(".lease")
            if folder_entry.name.endswith(".lease") and key.startswith(f"use-{digest.hex}-"):
                held_lease = self.try_lease(key)
                if held_lease is not None:
                    held_lease.release()
                elif not _is_forgotten(folder_entry):
                    return True
        return False

    # -- blobs

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the blob exists, unchanged since it was verified."""
        file_path = self.blob_path(digest)
        try:
            file_status = file_path.stat()
        except OSError:
            return False
        return self.digests.known_digest(file_path, file_status) == digest

    def check_blob(self, digest: Digest) -> bool:
        """Return whether the blob exists and is right, hashing it if its digest is not cached. A corrupt one is put
        aside.
        """
        file_path = self.blob_path(digest)
        if not file_path.is_file():
            return False
        if self.digest_of(file_path) == digest:
            return True
        self.put_aside(file_path)
        return False

    def digest_of(self, file_path: Path, *, deep: bool = False) -> Digest:
        """Return a file's digest, from the cache if nothing changed. Raises `OSError`."""
        return self.digests.digest_of(file_path, read_all_bytes=deep)

    def list_blobs(self) -> Iterator[tuple[Digest, Path]]:
        """Yield every blob with its path."""
        for blob_folder in _list_entries(self.root / "blobs" / "sha256"):
            for file_path in _list_entries(blob_folder):
                with contextlib.suppress(ValueError):
                    yield Digest(file_path.name), file_path

    def list_partials(self) -> Iterator[tuple[str, float]]:
        """Yield the keys of unfinished files, and when each last changed (seconds since 1970)."""
        for blob_folder in _list_entries(self.root / "partial"):
            times = [file_path.stat().st_mtime for file_path in _list_entries(blob_folder)]
            yield blob_folder.name, max(times, default=blob_folder.stat().st_mtime)

    def publish_partial(self, unfinished_file: PartialFile, digest: Digest) -> Path:
        """Make an unfinished file a blob. The caller holds its lease and has hashed every byte of it."""
        file_path = self.blob_path(digest)
        file_path.parent.mkdir(parents=True, exist_ok=True)
        on_disk = self._flush_file(unfinished_file.data)
        # Nothing should write into a blob: every release that names it would change.
        unfinished_file.data.chmod(0o444)
        unfinished_file.data.replace(file_path)
        if on_disk:
            fsync_folder(file_path.parent)
        self.digests.record_digest(file_path, file_path.stat(), digest, on_disk=on_disk)
        unfinished_file.discard()
        return file_path

    def adopt_file(self, file_path: Path, digest: Digest) -> Path:
        """Make a verified file a blob, without copying it if the file system can link."""
        blob_path = self.blob_path(digest)
        blob_path.parent.mkdir(parents=True, exist_ok=True)
        if not blob_path.exists():
            try:
                os.link(file_path, blob_path)
            # Another process was faster with the same bytes.
            except FileExistsError:
                pass
            # Another file system, or one without hard links.
            except OSError:
                self._copy_into(file_path, blob_path)
            self.digests.record_digest(blob_path, blob_path.stat(), digest)
        return blob_path

    def link_file(self, path: Path, digest: Digest) -> bool:
        """Link a file that nobody changes as a blob; return False if it cannot be linked, or differs."""
        blob_path = self.blob_path(digest)
        blob_path.parent.mkdir(parents=True, exist_ok=True)
        temp_path = self._temp_files.temp_name_for(blob_path)
        try:
            os.link(path, temp_path)
            # Hashed after linking: the name that was hashed is the one that is published.
            if self.digest_of(temp_path, deep=True) != digest:
                return False
            temp_path.replace(blob_path)
        except OSError:
            return False
        finally:
            temp_path.unlink(missing_ok=True)
        self.digests.record_digest(blob_path, blob_path.stat(), digest)
        return True

    def put_aside(self, file_path: Path) -> Path:
        """Move a file out of the way, kept under a name that says when."""
        aside_path = self.root / "aside" / f"{file_path.name}.{time.strftime('%Y%m%dT%H%M%S')}.{process_token()[-12:]}"
        aside_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file_path.rename(aside_path)
        except OSError as error:
            # `shutil.move` copies between file systems, which a rename cannot.
            if error.errno != errno.EXDEV:
                raise
            shutil.move(file_path, aside_path)
        return aside_path

    # -- places

    def place_blob(self, digest: Digest, target_path: Path, link_kind: LinkKind) -> None:
        """Put a blob at its path in ComfyUI's folders, atomically, replacing a link or file that was there."""
        blob = self.blob_path(digest)
        target_path.parent.mkdir(parents=True, exist_ok=True)
        temp_path = self._temp_files.temp_name_for(target_path)
        try:
            self._make_target(blob, temp_path, target_path, link_kind)
            temp_path.replace(target_path)
        finally:
            with contextlib.suppress(OSError):
                temp_path.unlink()
        # Some network volumes take a symlink and cannot follow it.
        if not target_path.exists():
            raise ModelDiffers(
                name=target_path.name,
                target=str(target_path),
                reason="is not what was just linked: another process changed it; pull again",
            )
        if link_kind != "symlink":
            self.digests.record_digest(target_path, target_path.stat(), digest, on_disk=self._flush_file(target_path))

    def leads_to_blob(self, digest: Digest, target: Path) -> bool:
        """Return whether the path is a link to the blob, or another name of the same file."""
        try:
            return target.samefile(self.blob_path(digest))
        except OSError:
            return False

    def is_copy(self, digest: Digest, target_path: Path) -> bool:
        """Return whether the path is a separate file that is known to have the blob's bytes."""
        return not target_path.is_symlink() and self.digests.known_digest(target_path, target_path.stat()) == digest

    def remember_release(self, release_name: str, models: Iterable[ModelPin], *, create: bool = True) -> None:
        """Record that a release uses its models' blobs now; with `create` False only if the store already exists.

        Written before anything is fetched, so that garbage collection at the same time knows of it.
        """
        blobs: dict[Digest, tuple[str, ...]] = {}
        for model_pin in models:
            if model_pin.sha256 is not None:
                blobs[model_pin.sha256] = (*blobs.get(model_pin.sha256, ()), model_pin.target_path)
        if create or self.root.is_dir():
            # A store that is read only can serve; only its collector would want to know.
            with contextlib.suppress(OSError):
                self.releases.record_release(release_name, blobs)

    def sweep_leftovers(self) -> None:
        """Remove what killed processes left: half-made links, leases of the dead, parts of files that are complete."""
        self._temp_files.sweep_dead()
        for folder_entry in _list_entries(self.root / "leases"):
            blob_key = folder_entry.name.removesuffix(".lease")
            if folder_entry.name.endswith(".lease"):
                with contextlib.suppress(LeaseError):
                    held_lease = self.try_lease(blob_key)
                    if held_lease is not None:
                        held_lease.release()
            elif is_dead(folder_entry.name.removesuffix(".claim").rpartition(".")[2]):
                shutil.rmtree(folder_entry, ignore_errors=True)
        for folder_entry in _list_entries(self.root / "partial"):
            # Only names that are digests: unpinned files have keys of other lengths.
            if len(folder_entry.name) == 64 and self.has_blob(Digest(folder_entry.name)):
                with contextlib.suppress(LeaseError):
                    held_lease = self.try_lease(folder_entry.name)
                    if held_lease is not None:
                        with held_lease:
                            self.partial_file(folder_entry.name).discard()

    def require_space(self, needed_bytes: int) -> None:
        """Raise `DiskTooSmall` if that many bytes do not fit."""
        free_space = free_bytes(self.root)
        if needed_bytes + SPARE_BYTES > free_space:
            raise DiskTooSmall(folder=self.root, needed_bytes=needed_bytes, free_bytes=free_space)

    # -- inside

    def _make_target(self, blob_path: Path, temp_path: Path, target: Path, kind: LinkKind) -> None:
        match kind:
            case "symlink":
                # Relative and through real folders: the same volume has another name on the next machine.
                temp_path.symlink_to(os.path.relpath(blob_path.absolute(), target.parent.resolve()))
            case "hardlink":
                os.link(blob_path, temp_path)
            case "reflink":
                _clone_file(blob_path, temp_path)
            case "copy":
                self._copy_into(blob_path, temp_path)

    def _copy_into(self, source: Path, destination: Path) -> None:
        temp_path = self._temp_files.temp_name_for(destination)
        try:
            shutil.copyfile(source, temp_path)
            self._flush_file(temp_path)
            temp_path.replace(destination)
        finally:
            with contextlib.suppress(OSError):
                temp_path.unlink()

    def _flush_file(self, file_path: Path) -> bool:
        """Flush a file's bytes to the disk if durability asks for it, or if other machines may read them."""
        if not self._durability.always and _file_system_of(file_path) in _LOCAL_FILE_SYSTEMS:
            return False
        descriptor = os.open(file_path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return True


def _is_forgotten(lease_folder: Path) -> bool:
    """Return whether a lease has shown no sign of life for an hour: its machine is gone, which nobody else can tell."""
    try:
        signs = [lease_folder.stat().st_mtime, *(entry.stat().st_mtime for entry in _list_entries(lease_folder))]
    except OSError:
        return False
    return time.time() - max(signs) > _FORGOTTEN_S


def _list_entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _clone_file(source: Path, destination: Path) -> None:
    """Share the bytes of one file with another until one is written (btrfs, xfs). Raises `OSError` if impossible."""
    with source.open("rb") as reading, destination.open("xb") as writing:
        fcntl.ioctl(writing.fileno(), _FICLONE, reading.fileno())


def _file_system_of(path: Path) -> str:
    """Return the type of the file system that holds a path, from the mount table; empty if unknown."""
    device_number = path.stat().st_dev
    wanted = f"{os.major(device_number)}:{os.minor(device_number)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        mount_fields = line.split()
        if len(mount_fields) > 2 and mount_fields[2] == wanted and "-" in mount_fields:
            return mount_fields[mount_fields.index("-") + 1]
    return ""
