"""Removes a delivered file, and only that one: never a file that was changed or put there since."""

import os
import secrets
from collections.abc import Set as AbstractSet
from pathlib import Path

from comfypin.digest import Digest
from comfypin.sync.folder_scan import Fingerprint, is_being_written, read_fingerprint

_ASIDE = ".comfypin-removing-"


def remove_unchanged(root_folder: str, relative_path: str, expected_fingerprint: Fingerprint) -> str | None:
    """Remove the file if it is still the one that was delivered; return why it was kept, or None.

    It is renamed aside first and checked again there, so that a new file of that name is safe.
    """
    file_path = os.path.join(root_folder, relative_path)
    parent_folder = os.path.dirname(file_path)
    if read_fingerprint(root_folder, relative_path) != expected_fingerprint:
        return None  # gone already, or a newer one, which will be delivered in its turn
    if is_being_written(root_folder, relative_path):
        return "a program has it open for writing"
    # In the same folder, so that the rename stays on one file system.
    aside_path = os.path.join(parent_folder, f"{_ASIDE}{secrets.token_hex(6)}")
    try:
        os.rename(file_path, aside_path)
    except OSError as error:
        return error.strerror or str(error)
    if read_fingerprint(root_folder, os.path.relpath(aside_path, root_folder)) == expected_fingerprint:
        os.unlink(aside_path)
        return None
    try:
        os.link(aside_path, file_path)  # never over a file that has come meanwhile
    except OSError as error:
        return f"it was changed just then and is now {aside_path} ({error.strerror})"
    os.unlink(aside_path)
    return "it was changed just then"


def is_set_aside(relative_path: str) -> bool:
    """Return whether a path is the name that a file has between its renaming and its removal."""
    return relative_path.rpartition("/")[2].startswith(_ASIDE)


def finish_removal(
    root_folder: str, relative_path: str, expected_fingerprint: Fingerprint, confirmed_digests: AbstractSet[Digest]
) -> str | None:
    """Remove a file that a killed run had set aside, if it has one of these digests; return why it was kept, or
    None.
    """
    file_path = Path(root_folder, relative_path)
    try:
        if (
            Digest.of_file(file_path) not in confirmed_digests
            or read_fingerprint(root_folder, relative_path) != expected_fingerprint
        ):
            return "it differs from what was delivered"
        if is_being_written(root_folder, relative_path):
            return "a program has it open for writing"
        file_path.unlink(missing_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return None
