"""Names the engine's three folders, and keeps every client's name inside them."""

import mimetypes
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from comfypin.atomic_files import contained_path

_ANNOTATION = re.compile(r"(?P<name>.*) \[(?P<folder>input|output|temp)\]", re.DOTALL)


class OutsideFolder(Exception):
    """Raised when a node tries to save outside its folder. Keeps ComfyUI's words, because clients know them."""

    def __init__(self, *, wanted_path: Path, folder: Path) -> None:
        super().__init__(
            "**** ERROR: Saving image outside the output folder is not allowed."
            f"\n full_output_folder: {wanted_path}\n         output_dir: {folder}"
            f"\n         commonpath: {os.path.commonpath([wanted_path, folder])}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFolders:
    """Names the folders for input files, outputs and previews."""

    input: Path
    output: Path
    temp: Path

    def create_missing(self) -> None:
        """Create the folders that are missing."""
        for folder in (self.input, self.output, self.temp):
            folder.mkdir(parents=True, exist_ok=True)

    def folder_of_type(self, folder_type: str) -> Path | None:
        """Return the folder of the type `input`, `output` or `temp`; None for any other word."""
        return {"input": self.input, "output": self.output, "temp": self.temp}.get(folder_type)

    def find_input(self, annotated: str) -> Path | None:
        """Return the file that a load node names (`a/b.png`, `b.png [temp]`), or None if it is missing or outside."""
        file_name, folder = split_annotation(annotated)
        try:
            path = contained_path(self.folder_of_type(folder or "input") or self.input, os.path.normpath(file_name))
            return path if path.is_file() else None
        except (ValueError, OSError):
            return None

    def list_files(self) -> list[str]:
        """Return the names of the files directly in the input folder."""
        try:
            return sorted(entry.name for entry in os.scandir(self.input) if entry.is_file())
        except FileNotFoundError:
            return []

    def list_pictures(self) -> list[str]:
        """Return the names among them that are a picture's."""
        return [
            file_name
            for file_name in self.list_files()
            if (mimetypes.guess_type(file_name)[0] or "").startswith("image/")
        ]


def split_annotation(file_name: str) -> tuple[str, str | None]:
    """Split `b.png [temp]` into `b.png` and `temp`; the folder is None without brackets."""
    annotation = _ANNOTATION.fullmatch(file_name)
    return (annotation["name"], annotation["folder"]) if annotation else (file_name, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveLocation:
    """Says where a node saves its next files: `folder/stem_00001_`, reported as `subfolder`."""

    folder: Path
    subfolder: str
    stem: str
    counter: int


def find_save_location(folder: Path, prefix: str, *, width: int, height: int) -> SaveLocation:
    """Find the next free number for `prefix` in a folder, after filling in %width%, %year% and the like.

    Raises `OutsideFolder` if the prefix leads out of the folder.
    """
    filled = os.path.normpath(_fill_placeholders(prefix, width=width, height=height))
    subfolder, stem = os.path.split(filled)
    location = Path(os.path.normpath(folder / subfolder))
    inside = location == folder or location.is_relative_to(folder)
    # Checked twice: as text, which is what ComfyUI does, and after symbolic links.
    if not inside or "\0" in filled or not location.resolve().is_relative_to(folder.resolve()):
        raise OutsideFolder(wanted_path=location, folder=folder)
    location.mkdir(parents=True, exist_ok=True)
    return SaveLocation(folder=location, subfolder=subfolder, stem=stem, counter=_next_number(location, stem))


def _fill_placeholders(prefix: str, *, width: int, height: int) -> str:
    """Fill in %width%, %year% and the like."""
    if "%" not in prefix:
        return prefix
    now = time.localtime()
    values = {
        "width": str(width),
        "height": str(height),
        "year": str(now.tm_year),
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    return re.sub(
        r"%(width|height|year|month|day|hour|minute|second)%", lambda placeholder: values[placeholder[1]], prefix
    )


def _next_number(folder: Path, stem: str) -> int:
    highest = 0
    for file_name in os.listdir(folder):  # noqa: PTH208, many names, and no need of paths
        # The digits between underscore and suffix, as in `stem_00001_.png`.
        if file_name.startswith(f"{stem}_"):
            digits = file_name[len(stem) + 1 :].split(".")[0].split("_")[0]
            highest = max(highest, int(digits) if digits.isdecimal() else 0)
    return highest + 1
