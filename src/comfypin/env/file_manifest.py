"""Every file of a build by sha256: written when a build is made, compared when it is checked.

Byte-code is left out (it is a cache of the sources, and Python rewrites it), and so is what belongs to a machine
rather than to the lock: the venv's link to its interpreter, and ComfyUI's own state.
"""

import base64
import binascii
import csv
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from comfypin.atomic_files import reading_buffer, write_atomically
from comfypin.digest import Digest
from comfypin.env.layout import BYTECODE_FILE, COMFYUI_FOLDER, MANIFEST_FILE, RECEIPT_FILE, STATE_FOLDERS, VENV_FOLDER

# Below this a file is read by one call, above it through a buffer.
SMALL_BYTES = 1 << 20
# How a pipe, a socket or a device is listed: as a link that leads nowhere. Opening one could wait for ever.
NOT_A_FILE = "/dev/null/not-a-file"
_LEFT_OUT_FOLDERS = frozenset({"__pycache__"})
_STATE_PATHS = frozenset(f"{COMFYUI_FOLDER}/{folder}" for folder in STATE_FOLDERS)
_LEFT_OUT_FILES = frozenset(
    {
        RECEIPT_FILE,
        MANIFEST_FILE,
        BYTECODE_FILE,
        f"{VENV_FOLDER}/pyvenv.cfg",
        f"{VENV_FOLDER}/.lock",
        f"{COMFYUI_FOLDER}/extra_model_paths.yaml",
    }
)


@dataclass(frozen=True, slots=True)
class FileFact:
    """Holds a file's size in bytes, the sha256 of its content as hex, and whether it is executable."""

    size_bytes: int
    sha256: str
    executable: bool = False


@dataclass(frozen=True, kw_only=True)
class FileManifest:
    """Lists the files and links of a build, by path relative to it, with `/`."""

    files: Mapping[str, FileFact]
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """Return one digest of the whole manifest."""
        return Digest.of(self.canonical_bytes)

    @property
    def size_bytes(self) -> int:
        """Return the size of all files together."""
        return sum(fact.size_bytes for fact in self.files.values())

    @cached_property
    def canonical_bytes(self) -> bytes:
        """As it is stored, canonical and compact: there can be 40,000 files."""
        files = {path: [fact.size_bytes, fact.sha256, int(fact.executable)] for path, fact in self.files.items()}
        return json.dumps({"files": files, "links": dict(self.links)}, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "FileManifest":
        """Read `canonical_bytes`. Raises `ValueError` for anything else."""
        try:
            tree = json.loads(data)
            files = {
                str(path): FileFact(int(size), Digest(str(sha256)).hex, bool(executable))
                for path, (size, sha256, executable) in tree["files"].items()
            }
            links = {str(path): str(target) for path, target in tree["links"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a manifest: {error}") from error
        return cls(files=files, links=links)


# Size in bytes and time of change in ns.
FileStamp = tuple[int, int]


def hash_files(build: Path) -> FileManifest:
    """Hash every file of a build, with as many threads as there are cores."""
    return hash_and_stamp_files(build)[0]


def hash_and_stamp_files(build: Path) -> tuple[FileManifest, dict[str, FileStamp]]:
    """Hash every file of a build, and say how each stood then, as `stamp_files` does."""
    files: dict[str, FileFact] = {}
    seen: dict[str, FileStamp] = {}
    small: list[list[tuple[str, int, bool]]] = [[]]
    large: list[list[tuple[str, int, bool]]] = []
    links: dict[str, str] = {}
    batch_bytes = 0
    for path, entry in walk_files(build):
        status = entry.stat(follow_symlinks=False)
        seen[path] = (status.st_size, status.st_mtime_ns)
        if entry.is_symlink():
            links[path] = os.readlink(entry.path)  # noqa: PTH115  (a DirEntry, tens of thousands of them)
            continue
        if not stat.S_ISREG(status.st_mode):
            links[path] = NOT_A_FILE
            continue
        # Only the owner's bit: the others depend on the umask.
        item = (path, status.st_size, bool(status.st_mode & 0o100))
        if status.st_size > SMALL_BYTES:
            large.append([item])
            continue
        # Batches, so that handing over tasks costs little beside the hashing.
        if len(small[-1]) >= 200 or batch_bytes > 8 * SMALL_BYTES:
            small.append([])
            batch_bytes = 0
        small[-1].append(item)
        batch_bytes += status.st_size
    # The largest first, so that no thread starts a long file when the others are done.
    large.sort(key=lambda batch: -batch[0][1])
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2, thread_name_prefix="hash") as pool:
        for batch in pool.map(lambda batch: _hash_batch(build, batch), [*large, *small]):
            files.update(batch)
    return FileManifest(files=files, links=links), seen


def stamp_files(build: Path, under: str = "") -> dict[str, FileStamp]:
    """Return size and mtime (ns) of every file that a manifest lists: enough to see what was written since.

    `under` is a folder of the build, to look at its files only.
    """
    found = {}
    for path, entry in walk_files(build, under):
        status = entry.stat(follow_symlinks=False)
        found[path] = (status.st_size, status.st_mtime_ns)
    return found


def walk_files(build: Path, under: str = "") -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Yield every file and link that a manifest lists, in a build or in one of its folders, with its path in the
    build.
    """
    waiting = [(f"{under}/" if under else "", str(build / under))]
    while waiting:
        prefix, folder = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _LEFT_OUT_FOLDERS and path not in _STATE_PATHS:
                        waiting.append((path + "/", entry.path))
                elif path not in _LEFT_OUT_FILES and not path.startswith(f"{VENV_FOLDER}/bin/python"):
                    yield path, entry


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChanges:
    """Lists the differences between a build and its manifest."""

    edited: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.edited or self.missing or self.added)


def compare_manifests(wanted: FileManifest, found: FileManifest) -> FileChanges:
    """Compare two manifests (pure)."""
    edited = [path for path, fact in wanted.files.items() if path in found.files and found.files[path] != fact]
    edited += [path for path, target in wanted.links.items() if path in found.links and found.links[path] != target]
    here = found.files.keys() | found.links.keys()
    there = wanted.files.keys() | wanted.links.keys()
    # A file that became a link, or a link that became a file.
    edited += sorted((wanted.files.keys() & found.links.keys()) | (wanted.links.keys() & found.files.keys()))
    return FileChanges(
        edited=tuple(sorted(edited)), missing=tuple(sorted(there - here)), added=tuple(sorted(here - there))
    )


def read_manifest(build: Path) -> FileManifest | None:
    """Return the manifest of a build, or None if it is missing or damaged."""
    try:
        return FileManifest.from_bytes((build / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def write_manifest(build: Path, manifest: FileManifest) -> None:
    """Store a manifest in its build."""
    write_atomically(build / MANIFEST_FILE, manifest.canonical_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledRecord:
    """Holds the RECORD of an installed distribution: its folder's name, and each listed file with its sha256 (or
    None).
    """

    folder: str
    files: Mapping[str, str | None]

    @property
    def package_name(self) -> str:
        """Return the distribution's name as its folder spells it."""
        return self.folder.removesuffix(".dist-info").rpartition("-")[0]

    @property
    def version(self) -> str:
        """Return the distribution's version."""
        return self.folder.removesuffix(".dist-info").rpartition("-")[2]


def read_records(site: Path) -> tuple[InstalledRecord, ...]:
    """Return the RECORD of every distribution in a site-packages folder, by name; paths are relative to that folder."""
    return tuple(
        InstalledRecord(folder=folder.name, files=dict(_read_record_rows(folder / "RECORD")))
        for folder in sorted(site.glob("*.dist-info"))
    )


def find_record_mismatches(
    records: Sequence[InstalledRecord], site: str, manifest: FileManifest
) -> dict[str, list[str]]:
    """Return the files that do not match their RECORD, by distribution (pure).

    This catches a file that was edited through a hard link in uv's cache: hashes guard uv's downloads, but nothing
    guards what it has unpacked. `site` is the site-packages folder relative to the build.
    """
    wrong: dict[str, list[str]] = {}
    fought = find_contested_files(records)
    for record in records:
        for path, sha256 in record.files.items():
            if sha256 is None or "__pycache__/" in path or path in fought:
                continue
            fact = manifest.files.get(os.path.normpath(f"{site}/{path}") if ".." in path else f"{site}/{path}")
            if fact is None or fact.sha256 != sha256:
                wrong.setdefault(record.folder, []).append(path)
    for path in sorted(fought):
        claims = [(record.folder, record.files[path]) for record in records if path in record.files]
        fact = manifest.files.get(os.path.normpath(f"{site}/{path}"))
        if fact is None or fact.sha256 not in {sha256 for _, sha256 in claims}:
            for folder, _ in claims:
                wrong.setdefault(folder, []).append(path)
    return wrong


def find_contested_files(records: Iterable[InstalledRecord]) -> frozenset[str]:
    """Return the files that several packages claim with different content; only one version exists (pure)."""
    claims: dict[str, str | None] = {}
    found = set()
    for record in records:
        for path, sha256 in record.files.items():
            if claims.setdefault(path, sha256) != sha256:
                found.add(path)
    return frozenset(found)


def _read_record_rows(path: Path) -> Iterator[tuple[str, str | None]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                if len(row) == 3:
                    yield row[0], _parse_record_digest(row[1])
    except (OSError, ValueError, csv.Error):
        return


def _parse_record_digest(text: str) -> str | None:
    algorithm, _, value = text.partition("=")
    if algorithm != "sha256":
        return None
    try:
        # RECORD drops the padding: https://packaging.python.org/en/latest/specifications/recording-installed-packages/
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
    except (binascii.Error, ValueError):
        return None


def _hash_batch(build: Path, batch: list[tuple[str, int, bool]]) -> list[tuple[str, FileFact]]:
    facts = []
    root = str(build)
    for path, size, executable in batch:
        descriptor = os.open(f"{root}/{path}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            facts.append((path, FileFact(size, hash_descriptor(descriptor, size), executable)))
        finally:
            os.close(descriptor)
    return facts


def hash_descriptor(descriptor: int, size_bytes: int) -> str:
    """Return the sha256, as hex, of an open file that had this size a moment ago."""
    if size_bytes <= SMALL_BYTES:
        # One byte more than it had: a file that grew meanwhile has another digest, whatever it begins with.
        return hashlib.sha256(os.read(descriptor, size_bytes + 1)).hexdigest()
    hasher, buffer = hashlib.sha256(), reading_buffer()
    while count := os.readv(descriptor, [buffer]):
        hasher.update(buffer[:count])
    return hasher.hexdigest()
