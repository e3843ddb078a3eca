"""The store of blobs: model bytes by sha256, once for all releases, with links from ComfyUI's folders to them.

Below its root (`MODELS_DIR/.comfypin`, or a folder of a volume):
`blobs/sha256/<2 hex>/<hex>` whole files, read only · `partial/<key>/` unfinished ones · `leases/` who works on which ·
`aside/` files that were in the way or had wrong bytes · `releases/` which release names which blob · `verified` digests
that are known. Everything that several processes may do at once is an atomic rename or happens under a lease.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from comfypin.atomic_files import free_bytes, fsync_folder
from comfypin.digest import Digest
from comfypin.errors import LeaseError
from comfypin.lease import Lease, acquire, is_dead, process_token, try_acquire
from comfypin.lock.model import ModelPin
from comfypin.models.digest_cache import Ledger
from comfypin.models.errors import DiskTooSmall, ModelDiffers
from comfypin.models.partial_file import Partial
from comfypin.models.release_index import Releases
from comfypin.models.temp_files import Scratch

LinkKind = Literal["symlink", "hardlink", "reflink", "copy"]

# Space that is left for others: logs, the engine's own files.
SPARE_BYTES = 64 << 20
# https://man7.org/linux/man-pages/man2/FICLONE.2const.html
_FICLONE = 0x40049409
_LOCAL_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay", "bcachefs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Durability:
    """When bytes are on the disk: `always` waits for it; else only where other machines may read them (network)."""

    always: bool = False


class BlobStore:
    """Blobs below one root, with the ledger of known digests and the records of releases."""

    def __init__(self, root: Path, *, durability: Durability | None = None) -> None:
        self.root = root
        self._scratch = Scratch(root / "tmp")
        self.ledger = Ledger(root / "verified", self._scratch)
        self.releases = Releases(root / "releases", self._scratch)
        self._durability = durability or Durability()

    # -- names

    def blob(self, digest: Digest) -> Path:
        """The path that a blob has, or would have."""
        return self.root / "blobs" / "sha256" / digest.hex[:2] / digest.hex

    def partial(self, key: str) -> Partial:
        """The unfinished file of a key: a digest's hex, or something else for a file whose digest is not known."""
        return Partial(self.root / "partial" / key)

    def lease_path(self, key: str) -> Path:
        return self.root / "leases" / f"{key}.lease"

    def try_lease(self, key: str) -> Lease | None:
        """The lease on one key, or None while somebody else has it. Raises `LeaseUnavailable`."""
        result = try_acquire(self.lease_path(key), purpose=f"bring {key[:12]}")
        return result if isinstance(result, Lease) else None

    def lease(self, key: str) -> Lease:
        """Wait for the lease on one key."""
        return acquire(self.lease_path(key), purpose=f"work on {key[:12]}")

    # -- blobs

    def has(self, digest: Digest) -> bool:
        """Whether the blob is there with the bytes that it had when it was verified."""
        path = self.blob(digest)
        try:
            status = path.stat()
        except OSError:
            return False
        return self.ledger.digest_of(path, status) == digest

    def check(self, digest: Digest) -> bool:
        """Like `has`, but a blob that the ledger does not know is hashed. A corrupt one is put aside."""
        path = self.blob(digest)
        if not path.is_file():
            return False
        if self.digest_of(path) == digest:
            return True
        self.put_aside(path)
        return False

    def digest_of(self, path: Path, *, deep: bool = False) -> Digest:
        """A file's digest, from the ledger where nothing changed. Raises `OSError`."""
        before = path.stat()
        if not deep:
            known = self.ledger.digest_of(path, before)
            if known is not None:
                return known
        digest = Digest.of_file(path)
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
            self.ledger.record(path, after, digest)
        return digest

    def blobs(self) -> Iterator[tuple[Digest, Path]]:
        """Every blob with its path."""
        for folder in _entries(self.root / "blobs" / "sha256"):
            for path in _entries(folder):
                with contextlib.suppress(ValueError):
                    yield Digest(path.name), path

    def partials(self) -> Iterator[tuple[str, float]]:
        """The keys of unfinished files, and when each last changed (seconds since 1970)."""
        for folder in _entries(self.root / "partial"):
            times = [path.stat().st_mtime for path in _entries(folder)]
            yield folder.name, max(times, default=folder.stat().st_mtime)

    def publish(self, partial: Partial, digest: Digest) -> Path:
        """Make an unfinished file a blob. The caller holds its lease and has hashed every byte of it."""
        path = self.blob(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        on_disk = self._flush(partial.data)
        partial.data.chmod(0o444)
        partial.data.replace(path)
        if on_disk:
            fsync_folder(path.parent)
        self.ledger.record(path, path.stat(), digest, on_disk=on_disk)
        partial.discard()
        return path

    def adopt(self, path: Path, digest: Digest) -> Path:
        """Make a file that was verified where it lies a blob, without copying where the file system can."""
        blob = self.blob(digest)
        blob.parent.mkdir(parents=True, exist_ok=True)
        if not blob.exists():
            try:
                os.link(path, blob)
            except FileExistsError:
                pass
            except OSError:
                self._copy_into(path, blob)
            self.ledger.record(blob, blob.stat(), digest)
        return blob

    def link(self, path: Path, digest: Digest) -> bool:
        """Make a file that nobody changes a blob by another name for it; False where that cannot be, or it differs."""
        blob = self.blob(digest)
        blob.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._scratch.name_for(blob)
        try:
            os.link(path, temporary)
            if self.digest_of(temporary, deep=True) != digest:
                return False
            temporary.replace(blob)
        except OSError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        self.ledger.record(blob, blob.stat(), digest)
        return True

    def put_aside(self, path: Path) -> Path:
        """Move a file out of the way, kept under a name that says when."""
        aside = self.root / "aside" / f"{path.name}.{time.strftime('%Y%m%dT%H%M%S')}.{process_token()[-12:]}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.rename(aside)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.move(path, aside)
        return aside

    # -- places

    def place(self, digest: Digest, target: Path, kind: LinkKind) -> None:
        """Put a blob at its path in ComfyUI's folders, atomically, replacing a link or file that was there."""
        blob = self.blob(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._scratch.name_for(target)
        try:
            self._make(blob, temporary, target, kind)
            temporary.replace(target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        if not target.exists():
            raise ModelDiffers(name=target.name, target=str(target), reason="does not lead to its blob after linking")
        if kind != "symlink":
            self.ledger.record(target, target.stat(), digest, on_disk=self._flush(target))

    def placed(self, digest: Digest, target: Path) -> bool:
        """Whether the path leads to the blob by a link, or is another name of the same file."""
        try:
            return target.samefile(self.blob(digest))
        except OSError:
            return False

    def is_copy(self, digest: Digest, target: Path) -> bool:
        """Whether the path is a file of its own that is known to have the blob's bytes."""
        return not target.is_symlink() and self.ledger.digest_of(target, target.stat()) == digest

    def remember_release(self, name: str, models: Iterable[ModelPin], *, create: bool = True) -> None:
        """Record that a release uses its models' blobs now; with `create` False only where the store is there already.

        Written before anything is fetched, so that a collection that runs meanwhile knows of it.
        """
        blobs: dict[Digest, tuple[str, ...]] = {}
        for pin in models:
            if pin.sha256 is not None:
                blobs[pin.sha256] = (*blobs.get(pin.sha256, ()), pin.target_path)
        if create or self.root.is_dir():
            # A store that is read only can serve; only its collector would want to know.
            with contextlib.suppress(OSError):
                self.releases.record(name, blobs)

    def sweep(self) -> None:
        """Remove what killed processes left: links half made, leases of the dead, parts of files that are whole."""
        self._scratch.sweep()
        for entry in _entries(self.root / "leases"):
            key = entry.name.removesuffix(".lease")
            if entry.name.endswith(".lease"):
                with contextlib.suppress(LeaseError):
                    held = self.try_lease(key)
                    if held is not None:
                        held.release()
            elif is_dead(entry.name.removesuffix(".claim").rpartition(".")[2]):
                shutil.rmtree(entry, ignore_errors=True)
        for entry in _entries(self.root / "partial"):
            if len(entry.name) == 64 and self.has(Digest(entry.name)):
                with contextlib.suppress(LeaseError):
                    held = self.try_lease(entry.name)
                    if held is not None:
                        with held:
                            self.partial(entry.name).discard()

    def require_space(self, needed_bytes: int) -> None:
        """Raise `DiskTooSmall` where that many bytes do not fit."""
        free = free_bytes(self.root)
        if needed_bytes + SPARE_BYTES > free:
            raise DiskTooSmall(folder=self.root, needed_bytes=needed_bytes, free_bytes=free)

    # -- inside

    def _make(self, blob: Path, temporary: Path, target: Path, kind: LinkKind) -> None:
        match kind:
            case "symlink":
                # Relative and through real folders: the same volume has another name on the next machine.
                temporary.symlink_to(os.path.relpath(blob.absolute(), target.parent.resolve()))
            case "hardlink":
                os.link(blob, temporary)
            case "reflink":
                _clone(blob, temporary)
            case "copy":
                self._copy_into(blob, temporary)

    def _copy_into(self, source: Path, destination: Path) -> None:
        temporary = self._scratch.name_for(destination)
        try:
            shutil.copyfile(source, temporary)
            self._flush(temporary)
            temporary.replace(destination)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _flush(self, path: Path) -> bool:
        """Wait until a file's bytes are on the disk, where that is asked for or other machines may read them."""
        if not self._durability.always and _file_system(path) in _LOCAL_FILE_SYSTEMS:
            return False
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return True


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _clone(source: Path, destination: Path) -> None:
    """Share the bytes of one file with another until one is written (btrfs, xfs). Raises `OSError` where impossible."""
    with source.open("rb") as reading, destination.open("xb") as writing:
        fcntl.ioctl(writing.fileno(), _FICLONE, reading.fileno())


def _file_system(path: Path) -> str:
    """The type of the file system that holds a path, from the mount table; empty where it is not known."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        if len(fields) > 2 and fields[2] == wanted and "-" in fields:
            return fields[fields.index("-") + 1]
    return ""
