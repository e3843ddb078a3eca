"""Installed packages, each kept once and hard-linked into every env that needs it.

`<root>/<key>/<sha256 of its RECORD>/` holds a package's files as they lie in a venv, its RECORD among them. A link
shares later edits, so nothing here is trusted: whoever links a package hashes its files in the env and compares them
with the RECORD, and the RECORD with the name of its folder.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.digest import Digest
from comfypin.env.cache.kept_bytecode import drop_unlisted, keep_bytecode, read_listing
from comfypin.env.file_manifest import InstalledRecord
from comfypin.env.package_selection import normalize_name, package_file_name
from comfypin.lease import is_dead, process_token
from comfypin.lock.model import PackagePin

# Files whose content a RECORD has wrong, with the sha256 that they do have, and that RECORD's own.
RecordFaults = Mapping[str, str | None]
_TEMPORARY_PREFIX = ".tmp-"
# Where the cache is on another file system, where links are not allowed, or a file has too many.
_LINK_ERRORS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageCache:
    """Keeps the packages that were installed for one kind of Python and machine (`platform`)."""

    root: Path
    platform: str

    def link_packages(self, packages: Iterable[PackagePin], venv_folder: Path) -> dict[str, str]:
        """Put what is kept into a venv. Returns the sha256 that each package's RECORD must have, by normalized name.

        A package of which a file is there already, from another package, is left out.
        """
        kept_folders = {
            normalize_name(package_pin.name): kept_folder
            for package_pin in packages
            if (kept_folder := self._find_kept(package_pin)) is not None
        }
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 2, thread_name_prefix="link") as thread_pool:
            link_results = thread_pool.map(
                lambda kept_folder: _link_package(kept_folder, venv_folder), kept_folders.values()
            )
            return {
                package_name: kept_folder.name
                for (package_name, kept_folder), is_complete in zip(kept_folders.items(), link_results, strict=True)
                if is_complete
            }

    def keep_packages(
        self, packages: Iterable[tuple[PackagePin, InstalledRecord]], site_folder: Path, venv_folder: Path
    ) -> None:
        """Keep packages that were installed and verified; do nothing if the cache cannot share files with the venv.

        `site_folder` is the site-packages folder of the venv.
        """
        missing_packages = [
            (package_pin, record) for package_pin, record in packages if not self._package_folder(package_pin).is_dir()
        ]
        if missing_packages:
            self.root.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
        for package_pin, record in missing_packages:
            self._keep_package(package_pin, record, site_folder, venv_folder)

    def _keep_package(
        self, package_pin: PackagePin, record: InstalledRecord, site_folder: Path, venv_folder: Path
    ) -> None:
        package_folder = self._package_folder(package_pin)
        # Only what a RECORD vouches for can be verified when it is linked again.
        recorded_paths = [
            recorded_path
            for recorded_path, sha256 in record.files.items()
            if sha256 is not None and "__pycache__/" not in recorded_path
        ]
        record_path = f"{record.folder}/RECORD"
        # A file without a digest could not be verified when it is linked.
        if any(digest is None and recorded_path != record_path for recorded_path, digest in record.files.items()):
            return
        temporary_folder = self.root / f"{_TEMPORARY_PREFIX}{process_token()}"
        staged_folder = temporary_folder / Digest.of_file(site_folder / record_path).hex
        site_prefix = f"{site_folder}/".removeprefix(f"{venv_folder}/")
        try:
            for recorded_path in (*recorded_paths, record_path):
                relative_path = (
                    os.path.normpath(site_prefix + recorded_path)
                    if ".." in recorded_path
                    else site_prefix + recorded_path
                )
                if relative_path.startswith(".."):
                    return
                _link_into(f"{site_folder}/{recorded_path}", f"{staged_folder}/{relative_path}")
            # One rename: other processes see the whole package or nothing.
            temporary_folder.rename(package_folder)
        except OSError as error:
            # Somebody else kept it meanwhile, links are not possible here, or a node that is being imported removed a
            # file: then uv brings it the next time too.
            if error.errno not in _LINK_ERRORS | {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
                raise
        finally:
            shutil.rmtree(temporary_folder, ignore_errors=True)

    def keep_bytecode(
        self, packages: Iterable[tuple[PackagePin, InstalledRecord]], site_folder: Path, venv_folder: Path
    ) -> None:
        """Keep the byte-code that was made in a venv of packages whose files it shares with this cache."""
        site_prefix = f"{site_folder.relative_to(venv_folder)}/"
        for package_pin, record in packages:
            kept_folder = self._find_kept(package_pin)
            record_path = f"{record.folder}/RECORD"
            with contextlib.suppress(OSError):  # as in `keep_packages`
                if kept_folder is not None and (site_folder / record_path).samefile(
                    kept_folder / site_prefix / record_path
                ):
                    relative_paths = [
                        site_prefix + relative_path for relative_path in record.files if ".." not in relative_path
                    ]
                    keep_bytecode(relative_paths, venv_folder, kept_folder, _bytecode_listing(kept_folder.parent))

    def has_package(self, package_pin: PackagePin) -> bool:
        """Return whether a package is kept."""
        return self._find_kept(package_pin) is not None

    def drop_packages(self, packages: Iterable[PackagePin]) -> None:
        """Forget packages whose files are not what they were."""
        for package_pin in packages:
            remove_package(self._package_folder(package_pin))

    def read_faults(self, package_pin: PackagePin) -> RecordFaults | None:
        """Return what a wheel's own RECORD has wrong, as noted right after a download."""
        try:
            record_faults = json.loads(self._faults_path(package_pin).read_bytes())
        except (OSError, ValueError):
            return None
        return record_faults if isinstance(record_faults, dict) else None

    def note_faults(self, package_pin: PackagePin, record_faults: RecordFaults) -> None:
        """Remember what a wheel's own RECORD has wrong, so that it is not downloaded for that again."""
        write_atomically(
            self._faults_path(package_pin), json.dumps(record_faults, sort_keys=True).encode(), durable=False
        )

    def _find_kept(self, package_pin: PackagePin) -> Path | None:
        try:
            folders = list(self._package_folder(package_pin).iterdir())
        except OSError:
            return None
        # More than one folder means that somebody else wrote here; then the package is not trusted.
        return folders[0] if len(folders) == 1 and len(folders[0].name) == 64 else None

    def _package_folder(self, package_pin: PackagePin) -> Path:
        return self.root / package_key(package_pin, self.platform)

    def _faults_path(self, package_pin: PackagePin) -> Path:
        return self.root / f"{package_key(package_pin, self.platform)}.json"

    def _remove_leftovers(self) -> None:
        """Remove what runs that were killed on this machine left behind."""
        for directory_entry in os.scandir(self.root):
            if directory_entry.name.startswith(_TEMPORARY_PREFIX) and is_dead(
                directory_entry.name.removeprefix(_TEMPORARY_PREFIX)
            ):
                shutil.rmtree(directory_entry.path, ignore_errors=True)


def list_cached_folders(tree_root: Path) -> list[Path]:
    """Return the folders of all packages that are kept below `tree_root`, for every kind of Python."""
    return sorted(path for path in tree_root.glob("*") if path.is_dir() and not path.name.startswith(_TEMPORARY_PREFIX))


def remove_package(kept_folder: Path) -> None:
    """Forget one kept package and its note: out of its place at once, so that nobody links half of it."""
    # The notes first: without them, what is left after a kill is only downloaded again.
    kept_folder.with_name(f"{kept_folder.name}.json").unlink(missing_ok=True)
    _bytecode_listing(kept_folder).unlink(missing_ok=True)
    aside_folder = kept_folder.with_name(f"{_TEMPORARY_PREFIX}{process_token()}")
    with contextlib.suppress(FileNotFoundError):
        kept_folder.rename(aside_folder)
        shutil.rmtree(aside_folder, ignore_errors=True)


def package_key(package_pin: PackagePin, platform: str) -> str:
    """Return a package's name in the cache: readable, then a digest of everything that decides its bytes."""
    identity_facts = (
        normalize_name(package_pin.name),
        package_pin.version,
        package_file_name(package_pin) or "",
        platform,
        *sorted(digest.hex for digest in package_pin.sha256),
    )
    return f"{normalize_name(package_pin.name)}-{Digest.of(chr(0).join(identity_facts).encode()).hex[:32]}"


def _bytecode_listing(kept_folder: Path) -> Path:
    """Return the path of the listing that says which byte-code is kept with a package."""
    return kept_folder.with_name(f"{kept_folder.name}.pyc.json")


def _link_package(kept_folder: Path, venv_folder: Path) -> bool:
    """Link a kept package into the venv with its listed byte-code; return False if that is not possible."""
    linked_paths = _link_tree(kept_folder, venv_folder)
    drop_unlisted(linked_paths or (), venv_folder, read_listing(_bytecode_listing(kept_folder.parent)))
    return linked_paths is not None


def _link_tree(kept_folder: Path, venv_folder: Path) -> list[str] | None:
    """Link a tree's files into the venv; return None, and leave nothing, if a file exists already or is gone."""
    # Strings throughout: there are tens of thousands of files.
    tree_root, target_folder = str(kept_folder), str(venv_folder)
    linked_paths: list[str] = []
    try:
        for relative_path in _walk_tree(tree_root, target_folder):
            _link_file(f"{tree_root}/{relative_path}", f"{target_folder}/{relative_path}")
            linked_paths.append(relative_path)
    except (FileExistsError, FileNotFoundError, NotADirectoryError):
        for relative_path in linked_paths:
            os.unlink(f"{target_folder}/{relative_path}")  # noqa: PTH108
        return None
    return linked_paths


def _link_into(source_path: str, target_path: str) -> None:
    try:
        os.link(source_path, target_path, follow_symlinks=False)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target_path), exist_ok=True)  # noqa: PTH103, PTH120
        os.link(source_path, target_path, follow_symlinks=False)


def _link_file(source_path: str, target_path: str) -> None:
    try:
        os.link(source_path, target_path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _LINK_ERRORS:
            raise
        if os.path.lexists(target_path):
            raise FileExistsError(target_path) from error
        # A copy works as well as a link; it only takes space.
        shutil.copy2(source_path, target_path, follow_symlinks=False)


def _walk_tree(tree_root: str, target_folder: str) -> Iterator[str]:
    """Yield every regular file of a tree by its relative name, after making its folder under `target_folder`."""
    pending_prefixes = [""]
    while pending_prefixes:
        path_prefix = pending_prefixes.pop()
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{target_folder}/{path_prefix}")  # noqa: PTH102
        with os.scandir(f"{tree_root}/{path_prefix}") as entries:
            for directory_entry in entries:
                if directory_entry.is_dir(follow_symlinks=False):
                    pending_prefixes.append(f"{path_prefix}{directory_entry.name}/")
                elif directory_entry.is_file(follow_symlinks=False):
                    yield path_prefix + directory_entry.name
