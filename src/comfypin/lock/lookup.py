"""Finds the lock that a user means: a path or a release's name, from a flag or the environment."""

import difflib
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from comfypin.lock.errors import LockNameEmpty, LockNotFound, LockNotNamed

_RELEASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def release_folders() -> tuple[Path, ...]:
    """Return the folders that releases are looked up in by name, in order: image, checkout, package."""
    package = Path(str(files("comfypin")))
    # An editable installation has its data in the checkout; in any other installation, nothing there is ours.
    checkout = package.parent.parent / "lockfiles"
    packaged = checkout if checkout.is_dir() else package / "data" / "lockfiles"
    # In the image /app/lockfiles comes first, so that a release cannot be shadowed by the working folder.
    return Path("/app/lockfiles"), Path("lockfiles"), packaged


def find_lock(
    wanted_lock: str | None,
    *,
    lock_path: Path | None = None,
    version_name: str | None = None,
    folders: Sequence[Path] | None = None,
) -> Path:
    """Return the path of the lock that a user means: `wanted_lock` (`--lock`, a path or a release's name), else
    LOCK_PATH, else COMFY_VERSION_NAME.

    Raises `LockNotFound`, listing what was searched and similar names, or `LockNotNamed`.
    """
    folders = release_folders() if folders is None else folders
    if wanted_lock is not None:
        return _find_by_path_or_name(wanted_lock, folders)
    if lock_path is not None:
        # An explicit variable wins, and a wrong one is an error: falling back would run another release.
        if not lock_path.exists():
            raise LockNotFound(wanted=f"{lock_path} (LOCK_PATH)", searched=[str(lock_path)])
        return lock_path
    if version_name is not None:
        return _find_by_name(version_name, folders)
    raise LockNotNamed(releases=list(dict.fromkeys(list_releases(folders))))


def list_releases(folders: Sequence[Path]) -> Iterator[str]:
    """Yield the names of the releases in these folders."""
    for folder in folders:
        if folder.is_dir():
            file_names = sorted(lock_path.name for lock_path in folder.glob("comfy-*.lock.json"))
            yield from (file_name.removeprefix("comfy-").removesuffix(".lock.json") for file_name in file_names)


def _find_by_path_or_name(wanted_lock: str, folders: Sequence[Path]) -> Path:
    lock_path = Path(wanted_lock)
    if not wanted_lock.strip():
        raise LockNameEmpty()  # type: ignore[call-arg]  # `declare` gives it no fields
    if "\0" in wanted_lock:
        raise LockNotFound(wanted=repr(wanted_lock), searched=[], _advice="A path or a name holds no NUL byte.")
    try:
        # Folders and pipes go on to the reader, which says what is wrong with them.
        if lock_path.is_file() or (lock_path.exists() and "/" in wanted_lock):
            return lock_path
    except OSError:
        advice = "The name is too long for a file; give a path, or a release's name."
        raise LockNotFound(wanted=f"{wanted_lock[:80]!r}...", searched=[], _advice=advice) from None
    if "/" in wanted_lock or wanted_lock.endswith(".json"):
        # A typo in a path is as common as one in a name.
        similar_names = difflib.get_close_matches(lock_path.name, _json_files_beside(lock_path), n=3, cutoff=0.8)
        raise LockNotFound(
            wanted=wanted_lock,
            searched=[str(lock_path)],
            near=[str(lock_path.parent / file_name) for file_name in similar_names],
        )
    return _find_by_name(wanted_lock, folders, searched=(str(lock_path),))


def _find_by_name(release_name: str, folders: Sequence[Path], searched: tuple[str, ...] = ()) -> Path:
    if not _RELEASE_NAME.fullmatch(release_name):
        advice = (
            "A release's name is letters, digits, dots, dashes and underscores; a path has a slash or ends in .json."
        )
        raise LockNotFound(wanted=repr(release_name), searched=[], _advice=advice)
    # A folder may be there twice, once as a relative path: the current folder, and the one that comfypin runs from.
    unique_folders: dict[Path, Path] = {}
    for folder in folders:
        unique_folders.setdefault(folder.absolute(), folder)
    candidates = [folder / f"comfy-{release_name}.lock.json" for folder in unique_folders.values()]
    for lock_path in candidates:
        if lock_path.is_file():
            return lock_path
    known = list(dict.fromkeys(list_releases(folders)))
    similar_names = difflib.get_close_matches(release_name, known, n=3, cutoff=0.5)
    here = f"The releases here are {', '.join(known)}" if known else "No release was found here"
    raise LockNotFound(
        wanted=release_name,
        searched=[*searched, *map(str, candidates)],
        near=similar_names,
        _advice=f"{here}; name one, or give the path of a file.",
    )


def _json_files_beside(path: Path) -> list[str]:
    try:
        return [sibling.name for sibling in path.parent.iterdir() if sibling.suffix == ".json"]
    except OSError:
        return []
