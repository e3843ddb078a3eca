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
from comfypin.env.layout import BYTECODE_FILE, COMFYUI_FOLDER, MANIFEST_FILE, RECEIPT_FILE, STATE_FOLDERS, VENV_FOLDER

# Below this a file is read by one call, above it through a buffer.
SMALL_BYTES = 1 << 20
# How a pipe, a socket or a device is listed: as a link that leads nowhere. Opening one could wait for ever.
NOT_A_FILE = "/dev/null/not-a-file"
_LEFT_OUT_FOLDERS = frozenset({"__pycache__"})
_STATE_PATHS = frozenset(f"{COMFYUI_FOLDER}/{folder_path}" for folder_path in STATE_FOLDERS)
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
        file_facts = {
            relative_path: [fact.size_bytes, fact.sha256, int(fact.executable)]
            for relative_path, fact in self.files.items()
        }
        return json.dumps(
            {"files": file_facts, "links": dict(self.links)}, sort_keys=True, separators=(",", ":")
        ).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> "FileManifest":
        """Read `canonical_bytes`. Raises `ValueError` for anything else."""
        try:
            parsed_json = json.loads(content)
            file_facts = {
                str(relative_path): FileFact(int(size_bytes), Digest(str(sha256)).hex, bool(executable))
                for relative_path, (size_bytes, sha256, executable) in parsed_json["files"].items()
            }
            link_targets = {
                str(relative_path): str(link_target) for relative_path, link_target in parsed_json["links"].items()
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a manifest: {error}") from error
        return cls(files=file_facts, links=link_targets)


# Size in bytes and time of change in ns.
FileStamp = tuple[int, int]


def hash_files(build_folder: Path) -> FileManifest:
    """Hash every file of a build, with as many threads as there are cores."""
    return hash_and_stamp_files(build_folder)[0]


def hash_and_stamp_files(build_folder: Path) -> tuple[FileManifest, dict[str, FileStamp]]:
    """Hash every file of a build, and say how each stood then, as `stamp_files` does."""
    file_facts: dict[str, FileFact] = {}
    file_stamps: dict[str, FileStamp] = {}
    small_batches: list[list[tuple[str, int, bool]]] = [[]]
    large_batches: list[list[tuple[str, int, bool]]] = []
    link_targets: dict[str, str] = {}
    batch_size_bytes = 0
    for relative_path, directory_entry in walk_files(build_folder):
        file_status = directory_entry.stat(follow_symlinks=False)
        file_stamps[relative_path] = (file_status.st_size, file_status.st_mtime_ns)
        if directory_entry.is_symlink():
            link_targets[relative_path] = os.readlink(directory_entry.path)  # noqa: PTH115  (a DirEntry, tens of thousands of them)
            continue
        if not stat.S_ISREG(file_status.st_mode):
            link_targets[relative_path] = NOT_A_FILE
            continue
        # Only the owner's bit: the others depend on the umask.
        batch_item = (relative_path, file_status.st_size, bool(file_status.st_mode & 0o100))
        if file_status.st_size > SMALL_BYTES:
            large_batches.append([batch_item])
            continue
        # Batches, so that handing over tasks costs little beside the hashing.
        if len(small_batches[-1]) >= 200 or batch_size_bytes > 8 * SMALL_BYTES:
            small_batches.append([])
            batch_size_bytes = 0
        small_batches[-1].append(batch_item)
        batch_size_bytes += file_status.st_size
    # The largest first, so that no thread starts a long file when the others are done.
    large_batches.sort(key=lambda file_batch: -file_batch[0][1])
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2, thread_name_prefix="hash") as thread_pool:
        for file_batch in thread_pool.map(
            lambda file_batch: _hash_batch(build_folder, file_batch), [*large_batches, *small_batches]
        ):
            file_facts.update(file_batch)
    return FileManifest(files=file_facts, links=link_targets), file_stamps


def stamp_files(build_folder: Path, subfolder: str = "") -> dict[str, FileStamp]:
    """Return size and mtime (ns) of every file that a manifest lists: enough to see what was written since.

    `subfolder` is a folder of the build, to look at its files only.
    """
    file_stamps = {}
    for relative_path, directory_entry in walk_files(build_folder, subfolder):
        file_status = directory_entry.stat(follow_symlinks=False)
        file_stamps[relative_path] = (file_status.st_size, file_status.st_mtime_ns)
    return file_stamps


def walk_files(build_folder: Path, subfolder: str = "") -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Yield every file and link that a manifest lists, in a build or in one of its folders, with its path in the
    build.
    """
    pending_folders = [(f"{subfolder}/" if subfolder else "", str(build_folder / subfolder))]
    while pending_folders:
        path_prefix, folder_path = pending_folders.pop()
        with os.scandir(folder_path) as entries:
            for directory_entry in entries:
                relative_path = path_prefix + directory_entry.name
                if directory_entry.is_dir(follow_symlinks=False):
                    if directory_entry.name not in _LEFT_OUT_FOLDERS and relative_path not in _STATE_PATHS:
                        pending_folders.append((relative_path + "/", directory_entry.path))
                elif relative_path not in _LEFT_OUT_FILES and not relative_path.startswith(f"{VENV_FOLDER}/bin/python"):
                    yield relative_path, directory_entry


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChanges:
    """Lists the differences between a build and its manifest."""

    edited: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.edited or self.missing or self.added)


def compare_manifests(expected_manifest: FileManifest, found_manifest: FileManifest) -> FileChanges:
    """Compare two manifests (pure)."""
    edited_paths = [
        relative_path
        for relative_path, fact in expected_manifest.files.items()
        if relative_path in found_manifest.files and found_manifest.files[relative_path] != fact
    ]
    edited_paths += [
        relative_path
        for relative_path, link_target in expected_manifest.links.items()
        if relative_path in found_manifest.links and found_manifest.links[relative_path] != link_target
    ]
    found_paths = found_manifest.files.keys() | found_manifest.links.keys()
    expected_paths = expected_manifest.files.keys() | expected_manifest.links.keys()
    # A file that became a link, or a link that became a file.
    edited_paths += sorted(
        (expected_manifest.files.keys() & found_manifest.links.keys())
        | (expected_manifest.links.keys() & found_manifest.files.keys())
    )
    return FileChanges(
        edited=tuple(sorted(edited_paths)),
        missing=tuple(sorted(expected_paths - found_paths)),
        added=tuple(sorted(found_paths - expected_paths)),
    )


def read_manifest(build_folder: Path) -> FileManifest | None:
    """Return the manifest of a build, or None if it is missing or damaged."""
    try:
        return FileManifest.from_bytes((build_folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def write_manifest(build_folder: Path, manifest: FileManifest) -> None:
    """Store a manifest in its build."""
    write_atomically(build_folder / MANIFEST_FILE, manifest.canonical_bytes)


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


def read_records(site_folder: Path) -> tuple[InstalledRecord, ...]:
    """Return the RECORD of every distribution in a site-packages folder, by name; paths are relative to that folder."""
    return tuple(
        InstalledRecord(folder=dist_info.name, files=dict(_read_record_rows(dist_info / "RECORD")))
        for dist_info in sorted(site_folder.glob("*.dist-info"))
    )


def find_record_mismatches(
    records: Sequence[InstalledRecord], site_prefix: str, manifest: FileManifest
) -> dict[str, list[str]]:
    """Return the files that do not match their RECORD, by distribution (pure).

    This catches a file that was edited through a hard link in uv's cache: hashes guard uv's downloads, but nothing
    guards what it has unpacked. `site_prefix` is the site-packages folder relative to the build.
    """
    mismatched_paths: dict[str, list[str]] = {}
    contested_paths = find_contested_files(records)
    for record in records:
        for relative_path, sha256 in record.files.items():
            if sha256 is None or "__pycache__/" in relative_path or relative_path in contested_paths:
                continue
            fact = manifest.files.get(
                os.path.normpath(f"{site_prefix}/{relative_path}")
                if ".." in relative_path
                else f"{site_prefix}/{relative_path}"
            )
            if fact is None or fact.sha256 != sha256:
                mismatched_paths.setdefault(record.folder, []).append(relative_path)
    for relative_path in sorted(contested_paths):
        claiming_folders = [
            (record.folder, record.files[relative_path]) for record in records if relative_path in record.files
        ]
        fact = manifest.files.get(os.path.normpath(f"{site_prefix}/{relative_path}"))
        if fact is None or fact.sha256 not in {sha256 for _, sha256 in claiming_folders}:
            for folder_path, _ in claiming_folders:
                mismatched_paths.setdefault(folder_path, []).append(relative_path)
    return mismatched_paths


def find_contested_files(records: Iterable[InstalledRecord]) -> frozenset[str]:
    """Return the files that several packages claim with different content; only one version exists (pure)."""
    claimed_digests: dict[str, str | None] = {}
    contested_paths = set()
    for record in records:
        for relative_path, sha256 in record.files.items():
            if claimed_digests.setdefault(relative_path, sha256) != sha256:
                contested_paths.add(relative_path)
    return frozenset(contested_paths)


def _read_record_rows(record_path: Path) -> Iterator[tuple[str, str | None]]:
    try:
        with record_path.open(newline="", encoding="utf-8") as file:
            for record_row in csv.reader(file):
                if len(record_row) == 3:
                    yield record_row[0], _parse_record_digest(record_row[1])
    except (OSError, ValueError, csv.Error):
        return


def _parse_record_digest(digest_text: str) -> str | None:
    algorithm, _, encoded_digest = digest_text.partition("=")
    if algorithm != "sha256":
        return None
    try:
        # RECORD drops the padding: https://packaging.python.org/en/latest/specifications/recording-installed-packages/
        return base64.urlsafe_b64decode(encoded_digest + "=" * (-len(encoded_digest) % 4)).hex()
    except (binascii.Error, ValueError):
        return None


def _hash_batch(build_folder: Path, file_batch: list[tuple[str, int, bool]]) -> list[tuple[str, FileFact]]:
    facts = []
    build_root = str(build_folder)
    for relative_path, size_bytes, executable in file_batch:
        descriptor = os.open(f"{build_root}/{relative_path}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            facts.append((relative_path, FileFact(size_bytes, hash_descriptor(descriptor, size_bytes), executable)))
        finally:
            os.close(descriptor)
    return facts


def hash_descriptor(descriptor: int, size_bytes: int) -> str:
    """Return the sha256, as hex, of an open file that had this size a moment ago."""
    if size_bytes <= SMALL_BYTES:
        # One byte more than it had: a file that grew meanwhile has another digest, whatever it begins with.
        return hashlib.sha256(os.read(descriptor, size_bytes + 1)).hexdigest()
    hasher, read_buffer = hashlib.sha256(), thread_buffer()
    while read_count := os.readv(descriptor, [read_buffer]):
        hasher.update(read_buffer[:read_count])
    return hasher.hexdigest()
