"""Removes a delivered file, and only that one: never a file that was changed or put there since."""

import os
import secrets

from comfypin.sync.scan import Fingerprint, fingerprint, is_being_written


def remove_unchanged(root: str, relative: str, expected: Fingerprint) -> str | None:
    """Remove the file if it is still the one that was delivered; returns why it was kept, or None.

    It is renamed aside first and looked at again there, so that a file that comes under the name meanwhile is safe.
    """
    path = os.path.join(root, relative)
    folder = os.path.dirname(path)
    if fingerprint(root, relative) != expected:
        return None  # gone already, or a newer one, which will be delivered in its turn
    if is_being_written(root, relative):
        return "somebody has it open for writing"
    aside = os.path.join(folder, f".comfypin-removing-{secrets.token_hex(6)}")
    try:
        os.rename(path, aside)
    except OSError as exc:
        return exc.strerror or str(exc)
    if fingerprint(root, os.path.relpath(aside, root)) == expected:
        os.unlink(aside)
        return None
    try:
        os.link(aside, path)  # never over a file that has come meanwhile
    except OSError as exc:
        return f"it changed in that very moment and is now {aside} ({exc.strerror})"
    os.unlink(aside)
    return "it was changed in that very moment"
