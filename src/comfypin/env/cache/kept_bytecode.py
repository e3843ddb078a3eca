"""Byte-code of installed packages, kept with them in the cache once starting ComfyUI has made it.

Python takes byte-code for a source of the same size and time, which the links of one file have in common. No RECORD
vouches for byte-code, so a listing beside each package does: what it does not name, or names with another digest, is
not used.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from comfypin.atomic_files import write_atomically

_BYTECODE_FOLDER = "__pycache__/"


def read_listing(listing_path: Path) -> dict[str, str]:
    """Return the byte-code that the listing vouches for: paths relative to the venv, each with its sha256."""
    try:
        listed_digests = json.loads(listing_path.read_bytes())
    except (OSError, ValueError):
        return {}
    return listed_digests if isinstance(listed_digests, dict) else {}


def drop_unlisted(relative_paths: Iterable[str], venv: Path, listing: Mapping[str, str]) -> None:
    """Remove byte-code from the files linked into a venv if it does not match the listing."""
    for relative_path in relative_paths:
        if _BYTECODE_FOLDER in relative_path and listing.get(relative_path) != _hash_file(f"{venv}/{relative_path}"):
            os.unlink(f"{venv}/{relative_path}")  # noqa: PTH108


def keep_bytecode(files: Iterable[str], venv: Path, folder: Path, listing_path: Path) -> None:
    """Link a package's byte-code from a venv into the kept package, then list it at `listing_path`.

    `files` are the package's, relative to the venv. If another file is kept already, Python found it unfit: the new one
    replaces it.
    """
    listing = read_listing(listing_path)
    new_entries = {}
    for relative_path in _find_bytecode(files, venv):
        source_path, target_path = f"{venv}/{relative_path}", f"{folder}/{relative_path}"
        if _link_anew(source_path, target_path):
            new_entries[relative_path] = _hash_file(source_path)
    if new_entries:
        # After the links: a listing must never name byte-code that is not there yet.
        write_atomically(listing_path, json.dumps({**listing, **new_entries}, sort_keys=True).encode(), durable=False)


def _link_anew(source_path: str, target_path: str) -> bool:
    """Make `target_path` the same file as `source_path`; return False if it was already."""
    # Strings throughout: there are thousands of files.
    try:
        os.link(source_path, target_path, follow_symlinks=False)
    except FileNotFoundError:
        os.mkdir(os.path.dirname(target_path))  # noqa: PTH102, PTH120
        os.link(source_path, target_path, follow_symlinks=False)
    except FileExistsError:
        if os.path.samefile(source_path, target_path):  # noqa: PTH121
            return False
        os.unlink(target_path)  # noqa: PTH108
        os.link(source_path, target_path, follow_symlinks=False)
    return True


def _find_bytecode(files: Iterable[str], venv: Path) -> Iterator[str]:
    """Yield the byte-code that exists for these sources."""
    stems_by_folder: dict[str, set[str]] = {}
    for relative_path in files:
        parent_folder, _, source_name = relative_path.rpartition("/")
        if source_name.endswith(".py"):
            stems_by_folder.setdefault(parent_folder, set()).add(source_name[:-3])
    for parent_folder, module_names in stems_by_folder.items():
        with contextlib.suppress(OSError):
            for bytecode_name in os.listdir(f"{venv}/{parent_folder}/{_BYTECODE_FOLDER}"):  # noqa: PTH208  (names, hundreds of folders)
                # `module.cpython-312.pyc`: optimized byte-code has one more dot, and is not what a start takes.
                if (
                    bytecode_name.endswith(".pyc")
                    and bytecode_name.count(".") == 2
                    and bytecode_name.partition(".")[0] in module_names
                ):
                    yield f"{parent_folder}/{_BYTECODE_FOLDER}{bytecode_name}"


def _hash_file(file_path: str) -> str:
    with open(file_path, "rb") as file:  # noqa: PTH123
        return hashlib.sha256(file.read()).hexdigest()
