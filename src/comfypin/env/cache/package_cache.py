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

    def link_packages(self, packages: Iterable[PackagePin], venv: Path) -> dict[str, str]:
        """Put what is kept into a venv. Returns the sha256 that each package's RECORD must have, by normalized name.

        A package of which a file is there already, from another package, is left out.
        """
        kept = {normalize_name(pin.name): folder for pin in packages if (folder := self._find_kept(pin)) is not None}
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 2, thread_name_prefix="link") as pool:
            linked = pool.map(lambda folder: _link_package(folder, venv), kept.values())
            return {name: folder.name for (name, folder), whole in zip(kept.items(), linked, strict=True) if whole}

    def keep_packages(self, packages: Iterable[tuple[PackagePin, InstalledRecord]], site: Path, venv: Path) -> None:
        """Keep packages that were installed and verified; do nothing if the cache cannot share files with the venv.

        `site` is the site-packages folder of the venv.
        """
        missing = [(pin, record) for pin, record in packages if not self._package_folder(pin).is_dir()]
        if missing:
            self.root.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
        for pin, record in missing:
            self._keep_package(pin, record, site, venv)

    def _keep_package(self, pin: PackagePin, record: InstalledRecord, site: Path, venv: Path) -> None:
        place = self._package_folder(pin)
        # Only what a RECORD vouches for can be verified when it is linked again.
        names = [name for name, sha256 in record.files.items() if sha256 is not None and "__pycache__/" not in name]
        listing = f"{record.folder}/RECORD"
        # A file without a digest could not be verified when it is linked.
        if any(sha is None and name != listing for name, sha in record.files.items()):
            return
        temporary = self.root / f"{_TEMPORARY_PREFIX}{process_token()}"
        files = temporary / Digest.of_file(site / listing).hex
        inside = f"{site}/".removeprefix(f"{venv}/")
        try:
            for name in (*names, listing):
                relative = os.path.normpath(inside + name) if ".." in name else inside + name
                if relative.startswith(".."):
                    return
                _link_into(f"{site}/{name}", f"{files}/{relative}")
            # One rename: other processes see the whole package or nothing.
            temporary.rename(place)
        except OSError as error:
            # Somebody else kept it meanwhile, links are not possible here, or a node that is being imported removed a
            # file: then uv brings it the next time too.
            if error.errno not in _LINK_ERRORS | {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def keep_bytecode(self, packages: Iterable[tuple[PackagePin, InstalledRecord]], site: Path, venv: Path) -> None:
        """Keep the byte-code that was made in a venv of packages whose files it shares with this cache."""
        inside = f"{site.relative_to(venv)}/"
        for pin, record in packages:
            folder = self._find_kept(pin)
            listing = f"{record.folder}/RECORD"
            with contextlib.suppress(OSError):  # as in `keep_packages`
                if folder is not None and (site / listing).samefile(folder / inside / listing):
                    names = [inside + name for name in record.files if ".." not in name]
                    keep_bytecode(names, venv, folder, _bytecode_listing(folder.parent))

    def has_package(self, pin: PackagePin) -> bool:
        """Return whether a package is kept."""
        return self._find_kept(pin) is not None

    def drop_packages(self, packages: Iterable[PackagePin]) -> None:
        """Forget packages whose files are not what they were."""
        for pin in packages:
            remove_package(self._package_folder(pin))

    def read_faults(self, pin: PackagePin) -> RecordFaults | None:
        """Return what a wheel's own RECORD has wrong, as noted right after a download."""
        try:
            faults = json.loads(self._faults_path(pin).read_bytes())
        except (OSError, ValueError):
            return None
        return faults if isinstance(faults, dict) else None

    def note_faults(self, pin: PackagePin, faults: RecordFaults) -> None:
        """Remember what a wheel's own RECORD has wrong, so that it is not downloaded for that again."""
        write_atomically(self._faults_path(pin), json.dumps(faults, sort_keys=True).encode(), durable=False)

    def _find_kept(self, pin: PackagePin) -> Path | None:
        try:
            folders = list(self._package_folder(pin).iterdir())
        except OSError:
            return None
        # More than one folder means that somebody else wrote here; then the package is not trusted.
        return folders[0] if len(folders) == 1 and len(folders[0].name) == 64 else None

    def _package_folder(self, pin: PackagePin) -> Path:
        return self.root / package_key(pin, self.platform)

    def _faults_path(self, pin: PackagePin) -> Path:
        return self.root / f"{package_key(pin, self.platform)}.json"

    def _remove_leftovers(self) -> None:
        """Remove what runs that were killed on this machine left behind."""
        for entry in os.scandir(self.root):
            if entry.name.startswith(_TEMPORARY_PREFIX) and is_dead(entry.name.removeprefix(_TEMPORARY_PREFIX)):
                shutil.rmtree(entry.path, ignore_errors=True)


def list_cached_folders(root: Path) -> list[Path]:
    """Return the folders of all packages that are kept below `root`, for every kind of Python."""
    return sorted(path for path in root.glob("*") if path.is_dir() and not path.name.startswith(_TEMPORARY_PREFIX))


def remove_package(folder: Path) -> None:
    """Forget one kept package and its note: out of its place at once, so that nobody links half of it."""
    # The notes first: without them, what is left after a kill is only downloaded again.
    folder.with_name(f"{folder.name}.json").unlink(missing_ok=True)
    _bytecode_listing(folder).unlink(missing_ok=True)
    aside = folder.with_name(f"{_TEMPORARY_PREFIX}{process_token()}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def package_key(pin: PackagePin, platform: str) -> str:
    """Return a package's name in the cache: readable, then a digest of everything that decides its bytes."""
    facts = (
        normalize_name(pin.name),
        pin.version,
        package_file_name(pin) or "",
        platform,
        *sorted(d.hex for d in pin.sha256),
    )
    return f"{normalize_name(pin.name)}-{Digest.of(chr(0).join(facts).encode()).hex[:32]}"


def _bytecode_listing(folder: Path) -> Path:
    """Return the path of the listing that says which byte-code is kept with a package."""
    return folder.with_name(f"{folder.name}.pyc.json")


def _link_package(folder: Path, venv: Path) -> bool:
    """Link a kept package into the venv with its listed byte-code; return False if that is not possible."""
    made = _link_tree(folder, venv)
    drop_unlisted(made or (), venv, read_listing(_bytecode_listing(folder.parent)))
    return made is not None


def _link_tree(folder: Path, venv: Path) -> list[str] | None:
    """Link a tree's files into the venv; return None, and leave nothing, if a file exists already or is gone."""
    # Strings throughout: there are tens of thousands of files.
    root, target = str(folder), str(venv)
    made: list[str] = []
    try:
        for name in _walk_tree(root, target):
            _link_file(f"{root}/{name}", f"{target}/{name}")
            made.append(name)
    except (FileExistsError, FileNotFoundError, NotADirectoryError):
        for name in made:
            os.unlink(f"{target}/{name}")  # noqa: PTH108
        return None
    return made


def _link_into(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
        os.link(source, target, follow_symlinks=False)


def _link_file(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _LINK_ERRORS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(target) from error
        # A copy works as well as a link; it only takes space.
        shutil.copy2(source, target, follow_symlinks=False)


def _walk_tree(root: str, target: str) -> Iterator[str]:
    """Yield every regular file of a tree by its relative name, after making its folder under `target`."""
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{target}/{prefix}")  # noqa: PTH102
        with os.scandir(f"{root}/{prefix}") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{prefix}{entry.name}/")
                elif entry.is_file(follow_symlinks=False):
                    yield prefix + entry.name
