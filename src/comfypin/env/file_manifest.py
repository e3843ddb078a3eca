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

from comfypin.atomic_files import thread_buffer, write_atomically
from comfypin.digest import Digest
from comfypin.env.layout import BYTECODE, COMFYUI, MANIFEST, RECEIPT, STATE_FOLDERS, VENV

SMALL_BYTES = 1 << 20
# How a pipe, a socket or a device is listed: as a link that leads nowhere. Opening one could wait for ever.
NO_FILE = "/dev/null/not-a-file"
_LEFT_OUT_FOLDERS = frozenset({"__pycache__"})
_STATE = frozenset(f"{COMFYUI}/{folder}" for folder in STATE_FOLDERS)
_LEFT_OUT_FILES = frozenset(
    {RECEIPT, MANIFEST, BYTECODE, f"{VENV}/pyvenv.cfg", f"{VENV}/.lock", f"{COMFYUI}/extra_model_paths.yaml"}
)


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file's size in bytes, the sha256 of its content as hex, and whether it may be executed."""

    size_bytes: int
    sha256: str
    executable: bool = False


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The files and links of a build, by path relative to it, with `/`."""

    files: Mapping[str, FileFact]
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """One digest of all of it."""
        return Digest.of(self.data)

    @property
    def size_bytes(self) -> int:
        """The size of all files together."""
        return sum(fact.size_bytes for fact in self.files.values())

    @cached_property
    def data(self) -> bytes:
        """As it is stored, canonical and compact: there can be 40,000 files."""
        files = {path: [fact.size_bytes, fact.sha256, int(fact.executable)] for path, fact in self.files.items()}
        return json.dumps({"files": files, "links": dict(self.links)}, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read `data`. Raises `ValueError` for anything else."""
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
Stamp = tuple[int, int]


def survey(build: Path) -> Manifest:
    """Hash every file of a build, with as many threads as there are cores."""
    return survey_and_stamp(build)[0]


def survey_and_stamp(build: Path) -> tuple[Manifest, dict[str, Stamp]]:
    """Hash every file of a build, and say how each stood then, as `stamps` does."""
    files: dict[str, FileFact] = {}
    seen: dict[str, Stamp] = {}
    small: list[list[tuple[str, int, bool]]] = [[]]
    large: list[list[tuple[str, int, bool]]] = []
    links: dict[str, str] = {}
    batch_bytes = 0
    for path, entry in walk(build):
        status = entry.stat(follow_symlinks=False)
        seen[path] = (status.st_size, status.st_mtime_ns)
        if entry.is_symlink():
            links[path] = os.readlink(entry.path)  # noqa: PTH115  (a DirEntry, tens of thousands of them)
            continue
        if not stat.S_ISREG(status.st_mode):
            links[path] = NO_FILE
            continue
        item = (path, status.st_size, bool(status.st_mode & 0o100))
        if status.st_size > SMALL_BYTES:
            large.append([item])
            continue
        if len(small[-1]) >= 200 or batch_bytes > 8 * SMALL_BYTES:
            small.append([])
            batch_bytes = 0
        small[-1].append(item)
        batch_bytes += status.st_size
    large.sort(key=lambda batch: -batch[0][1])
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2, thread_name_prefix="hash") as pool:
        for batch in pool.map(lambda batch: _hash_batch(build, batch), [*large, *small]):
            files.update(batch)
    return Manifest(files=files, links=links), seen


def stamps(build: Path, under: str = "") -> dict[str, Stamp]:
    """Size and mtime (ns) of every file that a manifest lists: enough to see who wrote since a moment ago.

    `under` is a folder of the build, if only its files are asked for.
    """
    found = {}
    for path, entry in walk(build, under):
        status = entry.stat(follow_symlinks=False)
        found[path] = (status.st_size, status.st_mtime_ns)
    return found


def walk(build: Path, under: str = "") -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Every file and link of a build, or of one of its folders, that a manifest lists, with its path in the build."""
    waiting = [(f"{under}/" if under else "", str(build / under))]
    while waiting:
        prefix, folder = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _LEFT_OUT_FOLDERS and path not in _STATE:
                        waiting.append((path + "/", entry.path))
                elif path not in _LEFT_OUT_FILES and not path.startswith(f"{VENV}/bin/python"):
                    yield path, entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a build has that its manifest has not, and the other way round."""

    edited: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.edited or self.missing or self.added)


def compare(wanted: Manifest, found: Manifest) -> Changes:
    """Compare two manifests (pure)."""
    edited = [path for path, fact in wanted.files.items() if path in found.files and found.files[path] != fact]
    edited += [path for path, target in wanted.links.items() if path in found.links and found.links[path] != target]
    here = found.files.keys() | found.links.keys()
    there = wanted.files.keys() | wanted.links.keys()
    # A file that became a link, or a link that became a file.
    edited += sorted((wanted.files.keys() & found.links.keys()) | (wanted.links.keys() & found.files.keys()))
    return Changes(edited=tuple(sorted(edited)), missing=tuple(sorted(there - here)), added=tuple(sorted(here - there)))


def read_manifest(build: Path) -> Manifest | None:
    """The manifest of a build, or None where it is missing or damaged."""
    try:
        return Manifest.from_bytes((build / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None


def write_manifest(build: Path, manifest: Manifest) -> None:
    """Store a manifest in its build."""
    write_atomically(build / MANIFEST, manifest.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The RECORD of an installed distribution: its folder's name and each listed file with its sha256 (or None)."""

    folder: str
    files: Mapping[str, str | None]

    @property
    def name(self) -> str:
        """The distribution's name as its folder spells it."""
        return self.folder.removesuffix(".dist-info").rpartition("-")[0]

    @property
    def version(self) -> str:
        """The distribution's version."""
        return self.folder.removesuffix(".dist-info").rpartition("-")[2]


def read_records(site: Path) -> tuple[Record, ...]:
    """The RECORD of every distribution in a site-packages folder, by name; paths are relative to that folder."""
    return tuple(
        Record(folder=folder.name, files=dict(_record_rows(folder / "RECORD")))
        for folder in sorted(site.glob("*.dist-info"))
    )


def record_mismatches(records: Sequence[Record], site: str, manifest: Manifest) -> dict[str, list[str]]:
    """Files that are not what their RECORD says, by distribution (pure).

    This is what catches a file that was edited through a hard link in uv's cache: hashes guard uv's downloads, nothing
    guards what it has unpacked. `site` is the site-packages folder relative to the build.
    """
    wrong: dict[str, list[str]] = {}
    fought = contested(records)
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


def contested(records: Iterable[Record]) -> frozenset[str]:
    """The files that several packages say are theirs, with different content: one of them is there (pure)."""
    claims: dict[str, str | None] = {}
    found = set()
    for record in records:
        for path, sha256 in record.files.items():
            if claims.setdefault(path, sha256) != sha256:
                found.add(path)
    return frozenset(found)


def _record_rows(path: Path) -> Iterator[tuple[str, str | None]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                if len(row) == 3:
                    yield row[0], _record_digest(row[1])
    except (OSError, ValueError, csv.Error):
        return


def _record_digest(text: str) -> str | None:
    algorithm, _, value = text.partition("=")
    if algorithm != "sha256":
        return None
    try:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
    except (binascii.Error, ValueError):
        return None


def _hash_batch(build: Path, batch: list[tuple[str, int, bool]]) -> list[tuple[str, FileFact]]:
    facts = []
    root = str(build)
    for path, size, executable in batch:
        descriptor = os.open(f"{root}/{path}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            facts.append((path, FileFact(size, hash_open(descriptor, size), executable)))
        finally:
            os.close(descriptor)
    return facts


def hash_open(descriptor: int, size_bytes: int) -> str:
    """The sha256, as hex, of an open file that had this size a moment ago."""
    if size_bytes <= SMALL_BYTES:
        # One byte more than it had: a file that grew meanwhile has another digest, whatever it begins with.
        return hashlib.sha256(os.read(descriptor, size_bytes + 1)).hexdigest()
    hasher, buffer = hashlib.sha256(), thread_buffer()
    while count := os.readv(descriptor, [buffer]):
        hasher.update(buffer[:count])
    return hasher.hexdigest()
