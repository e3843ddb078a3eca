"""Removes a delivered file, and only that one: never a file that was changed or put there since."""

import os
import secrets
from collections.abc import Set as AbstractSet
from pathlib import Path

from comfypin.digest import Digest
from comfypin.sync.scan import Fingerprint, is_being_written, read_fingerprint

_ASIDE = ".comfypin-removing-"


def remove_unchanged(root: str, relative: str, expected: Fingerprint) -> str | None:
    """Remove the file if it is still the one that was delivered; return why it was kept, or None.

    It is renamed aside first and checked again there, so that a new file of that name is safe.
    """
    path = os.path.join(root, relative)
    folder = os.path.dirname(path)
    if read_fingerprint(root, relative) != expected:
        return None  # gone already, or a newer one, which will be delivered in its turn
    if is_being_written(root, relative):
        return "a program has it open for writing"
    # In the same folder, so that the rename stays on one file system.
    aside = os.path.join(folder, f"{_ASIDE}{secrets.token_hex(6)}")
    try:
        os.rename(path, aside)
    except OSError as exc:
        return exc.strerror or str(exc)
    if read_fingerprint(root, os.path.relpath(aside, root)) == expected:
        os.unlink(aside)
        return None
    try:
        os.link(aside, path)  # never over a file that has come meanwhile
    except OSError as exc:
        return f"it was changed just then and is now {aside} ({exc.strerror})"
    os.unlink(aside)
    return "it was changed just then"


def is_set_aside(relative: str) -> bool:
    """Return whether a path is the name that a file has between its renaming and its removal."""
    return relative.rpartition("/")[2].startswith(_ASIDE)


def finish_removal(root: str, relative: str, expected: Fingerprint, digests: AbstractSet[Digest]) -> str | None:
    """Remove a file that a killed run had set aside, if it has one of these digests; return why it was kept, or
    None.
    """
    path = Path(root, relative)
    try:
        if Digest.of_file(path) not in digests or read_fingerprint(root, relative) != expected:
            return "it differs from what was delivered"
        if is_being_written(root, relative):
            return "a program has it open for writing"
        path.unlink(missing_ok=True)
    except OSError as exc:
        return exc.strerror or str(exc)
    return None
