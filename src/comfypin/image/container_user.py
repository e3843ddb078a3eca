"""Chooses the user a container runs as: the image's own, or whoever owns the volume, so that volumes stay writable."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# The first user of Debian, so that files on a bind mount belong to the person on a Linux desktop.
OWN_USER = 1000


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """Describes a mounted folder: its owner and group, and whether it is empty."""

    path: Path
    owner: int
    group: int
    empty: bool


@dataclass(frozen=True, slots=True)
class UserChoice:
    """Says which user to run as, and which volumes to give to that user first."""

    user: int
    group: int
    give: tuple[Path, ...] = ()


def choose_user(mounted_volumes: Sequence[MountedVolume]) -> UserChoice:
    """Return our own user, who is given empty volumes, or else the owner of a volume with content (pure).

    A volume's files were written by its owner, root on Runpod, and only that user can change them.
    """
    full_volumes = [mounted_volume for mounted_volume in mounted_volumes if not mounted_volume.empty]
    if full_volumes:
        return UserChoice(full_volumes[0].owner, full_volumes[0].group)
    return UserChoice(OWN_USER, OWN_USER, tuple(mounted_volume.path for mounted_volume in mounted_volumes))


def find_mounted_volumes(volume_paths: Sequence[Path]) -> list[MountedVolume]:
    """Return those of the paths that are mounted here."""
    mounted_volumes = []
    for volume_path in volume_paths:
        if volume_path.is_mount():
            path_status = volume_path.stat()
            mounted_volumes.append(
                MountedVolume(volume_path, path_status.st_uid, path_status.st_gid, empty=_is_empty(volume_path))
            )
    return mounted_volumes


def switch_user(choice: UserChoice) -> str | None:
    """Run as the chosen user from here on; return why not if the platform does not allow it."""
    # `docker run --user` has chosen already.
    if os.geteuid() != 0:
        return None
    try:
        for volume_path in choice.give:
            os.chown(volume_path, choice.user, choice.group)
        if choice.user != 0:
            # Groups first, then the user: once the user is set, nothing else may be changed.
            os.setgroups([choice.group])
            os.setgid(choice.group)
            os.setuid(choice.user)
    except PermissionError as error:
        return f"cannot run as user {choice.user} here ({error.strerror}); running as root without its capabilities"
    return None


def _is_empty(folder_path: Path) -> bool:
    try:
        # A fresh ext4 volume has this folder.
        return all(directory_entry.name == "lost+found" for directory_entry in os.scandir(folder_path))
    except OSError:
        return False
