"""Names of outputs, purely: made safe for any folder, and the next ones where a name is taken."""

import itertools
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

_LONGEST_PART_BYTES = 200  # file systems take 255; temporary names and counters need the rest
_LONGEST_SUFFIX_BYTES = 20
_UNWANTED = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# ComfyUI's own counter, as in `ComfyUI_00001_.png`.
_COUNTED = re.compile(r"(?P<head>.*_)(?P<count>\d{5,})(?P<tail>_?)")


def safe_name(filename: str, subfolder: str = "") -> PurePosixPath:
    """A relative path below `subfolder` that keeps the user's words and cannot leave the folder it is joined to.

    Backslashes separate like slashes (engines on Windows report them); empty, `.` and `..` parts and control
    characters are dropped; parts that no file system takes are shortened, keeping the suffix.
    """
    parts = [_safe_part(part) for part in f"{subfolder}/{filename}".replace("\\", "/").split("/")]
    kept = [part for part in parts if part]
    return PurePosixPath(*kept) if kept else PurePosixPath("output")


def candidates(name: PurePosixPath) -> Iterator[PurePosixPath]:
    """The name itself, then the names to try where it is taken, without end.

    A name with ComfyUI's counter counts on (`a_00001_.png`, `a_00002_.png`); any other gets one (`a.png`, `a-2.png`).
    """
    yield name
    suffix = "".join(name.suffixes) if name.name.endswith(".tar.gz") else name.suffix
    stem = name.name.removesuffix(suffix)
    counted = _COUNTED.fullmatch(stem)
    if counted is None:
        for number in itertools.count(2):
            yield name.with_name(f"{stem}-{number}{suffix}")
    else:
        width = len(counted["count"])
        for number in itertools.count(int(counted["count"]) + 1):
            yield name.with_name(f"{counted['head']}{number:0{width}}{counted['tail']}{suffix}")


def _safe_part(part: str) -> str:
    part = _UNWANTED.sub("", part).strip()
    if part in {"", ".", ".."}:
        return ""
    if len(part.encode()) <= _LONGEST_PART_BYTES:
        return part
    stem, dot, suffix = part.rpartition(".")
    if not stem or len(suffix.encode()) > _LONGEST_SUFFIX_BYTES:
        stem, dot, suffix = part, "", ""
    room = _LONGEST_PART_BYTES - len(dot.encode()) - len(suffix.encode())
    return stem.encode()[:room].decode(errors="ignore") + dot + suffix
