"""Whom a container runs as: the image's own user, or whoever owns the volume, so that volumes stay writable."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OWN_USER = 1000


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """A folder from outside: whose it is, and whether it holds anything."""

    path: Path
    owner: int
    group: int
    empty: bool


@dataclass(frozen=True, slots=True)
class UserChoice:
    """Whom to run as, and the volumes that are to be given to them first."""

    user: int
    group: int
    give: tuple[Path, ...] = ()


def choose_user(volumes: Sequence[MountedVolume]) -> UserChoice:
    """Our own user, who is given empty volumes; a volume with content decides by its owner (pure).

    What lies on a volume was written by its owner, root on RunPod, and only they can change it.
    """
    full = [volume for volume in volumes if not volume.empty]
    if full:
        return UserChoice(full[0].owner, full[0].group)
    return UserChoice(OWN_USER, OWN_USER, tuple(volume.path for volume in volumes))


def find_mounted_volumes(paths: Sequence[Path]) -> list[MountedVolume]:
    """Those of the paths that are mounted here."""
    found = []
    for path in paths:
        if path.is_mount():
            stat = path.stat()
            found.append(MountedVolume(path, stat.st_uid, stat.st_gid, empty=_is_empty(path)))
    return found


def switch_user(choice: UserChoice) -> str | None:
    """Run as the chosen user from here on; why not, where the platform does not allow it."""
    if os.geteuid() != 0:
        return None
    try:
        for path in choice.give:
            os.chown(path, choice.user, choice.group)
        if choice.user != 0:
            os.setgroups([choice.group])
            os.setgid(choice.group)
            os.setuid(choice.user)
    except PermissionError as error:
        return f"cannot run as user {choice.user} here ({error.strerror}); running as root without its capabilities"
    return None


def _is_empty(path: Path) -> bool:
    try:
        return all(entry.name == "lost+found" for entry in os.scandir(path))
    except OSError:
        return False
