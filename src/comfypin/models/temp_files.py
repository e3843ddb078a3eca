"""Names temporary files after the process that writes them, so that whatever a kill leaves can be swept."""

import contextlib
from pathlib import Path

from comfypin.lease import is_dead, process_token

SUFFIX = ".comfypin.tmp"


class TempFiles:
    """Temporary names in one folder, from which files are renamed to their places."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def temp_name_for(self, target_path: Path) -> Path:
        """Return a temporary name on the target's file system: in this folder if that is the same one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        target_path.parent.mkdir(parents=True, exist_ok=True)
        # A rename is atomic only within one file system.
        if self._folder.stat().st_dev == target_path.parent.stat().st_dev:
            return self._folder / f"{process_token()}{SUFFIX}"
        _sweep_folder(target_path.parent)
        return target_path.parent / f".{process_token()}{SUFFIX}"

    def write_file(self, file_path: Path, data: bytes) -> None:
        """Replace a small file's content as a whole, or leave it as it was."""
        temp_path = self.temp_name_for(file_path)
        try:
            temp_path.write_bytes(data)
            temp_path.replace(file_path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temp_path.unlink()

    def sweep_dead(self) -> None:
        """Remove what ended processes of this machine left here."""
        _sweep_folder(self._folder)


def _sweep_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for folder_entry in list(folder.iterdir()):
            if folder_entry.name.endswith(SUFFIX) and is_dead(folder_entry.name.removesuffix(SUFFIX).removeprefix(".")):
                folder_entry.unlink(missing_ok=True)
