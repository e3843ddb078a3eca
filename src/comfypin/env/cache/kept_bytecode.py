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


def read_listing(path: Path) -> dict[str, str]:
    """Return the byte-code that the listing vouches for: paths relative to the venv, each with its sha256."""
    try:
        listed = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return listed if isinstance(listed, dict) else {}


def drop_unlisted(names: Iterable[str], venv: Path, listing: Mapping[str, str]) -> None:
    """Remove byte-code from the files linked into a venv if it does not match the listing."""
    for name in names:
        if _BYTECODE_FOLDER in name and listing.get(name) != _hash_file(f"{venv}/{name}"):
            os.unlink(f"{venv}/{name}")  # noqa: PTH108


def keep_bytecode(files: Iterable[str], venv: Path, folder: Path, path: Path) -> None:
    """Link a package's byte-code from a venv into the kept package, then list it at `path`.

    `files` are the package's, relative to the venv. If another file is kept already, Python found it unfit: the new one
    replaces it.
    """
    listing = read_listing(path)
    new = {}
    for name in _find_bytecode(files, venv):
        source, target = f"{venv}/{name}", f"{folder}/{name}"
        if _link_anew(source, target):
            new[name] = _hash_file(source)
    if new:
        # After the links: a listing must never name byte-code that is not there yet.
        write_atomically(path, json.dumps({**listing, **new}, sort_keys=True).encode(), durable=False)


def _link_anew(source: str, target: str) -> bool:
    """Make `target` the same file as `source`; return False if it was already."""
    # Strings throughout: there are thousands of files.
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        os.mkdir(os.path.dirname(target))  # noqa: PTH102, PTH120
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        if os.path.samefile(source, target):  # noqa: PTH121
            return False
        os.unlink(target)  # noqa: PTH108
        os.link(source, target, follow_symlinks=False)
    return True


def _find_bytecode(files: Iterable[str], venv: Path) -> Iterator[str]:
    """Yield the byte-code that exists for these sources."""
    stems: dict[str, set[str]] = {}
    for name in files:
        parent, _, source = name.rpartition("/")
        if source.endswith(".py"):
            stems.setdefault(parent, set()).add(source[:-3])
    for parent, names in stems.items():
        with contextlib.suppress(OSError):
            for made in os.listdir(f"{venv}/{parent}/{_BYTECODE_FOLDER}"):  # noqa: PTH208  (names, hundreds of folders)
                # `module.cpython-312.pyc`: optimized byte-code has one more dot, and is not what a start takes.
                if made.endswith(".pyc") and made.count(".") == 2 and made.partition(".")[0] in names:
                    yield f"{parent}/{_BYTECODE_FOLDER}{made}"


def _hash_file(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123
        return hashlib.sha256(file.read()).hexdigest()
