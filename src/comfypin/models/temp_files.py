"""Files that are being made: their names say which process makes them, so that whatever a kill leaves can be swept."""

import contextlib
from pathlib import Path

from comfypin.lease import is_dead, process_token

SUFFIX = ".comfypin.tmp"


class Scratch:
    """Temporary names below one folder, from which things are renamed to their places."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def name_for(self, target: Path) -> Path:
        """A temporary name on the target's file system: in this folder where that is the same one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        if self._folder.stat().st_dev == target.parent.stat().st_dev:
            return self._folder / f"{process_token()}{SUFFIX}"
        _sweep(target.parent)
        return target.parent / f".{process_token()}{SUFFIX}"

    def write(self, path: Path, data: bytes) -> None:
        """Replace a small file's content: whole or as it was."""
        temporary = self.name_for(path)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()

    def sweep(self) -> None:
        """Remove what processes of this machine that have ended left here."""
        _sweep(self._folder)


def _sweep(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for entry in list(folder.iterdir()):
            if entry.name.endswith(SUFFIX) and is_dead(entry.name.removesuffix(SUFFIX).removeprefix(".")):
                entry.unlink(missing_ok=True)
