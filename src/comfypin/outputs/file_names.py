"""Names of outputs, purely: made safe for any folder, and the next free names if one is taken."""

import itertools
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

_LONGEST_PART_BYTES = 200  # file systems take 255; temporary names and counters need the rest
# What is longer after a dot is not a suffix, but a part of the name.
_LONGEST_SUFFIX_BYTES = 20
_UNWANTED = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# ComfyUI's own counter, as in `ComfyUI_00001_.png`.
_COUNTED = re.compile(r"(?P<head>.*_)(?P<count>\d{5,})(?P<tail>_?)")


def safe_name(filename: str, subfolder: str = "") -> PurePosixPath:
    """Return a relative path below `subfolder` that keeps the user's words and cannot leave its folder.

    Backslashes separate like slashes (engines on Windows report them); empty, `.` and `..` parts and control characters
    are dropped; parts that no file system takes are shortened, keeping the suffix.
    """
    path_parts = [_safe_part(path_part) for path_part in f"{subfolder}/{filename}".replace("\\", "/").split("/")]
    kept_parts = [path_part for path_part in path_parts if path_part]
    return PurePosixPath(*kept_parts) if kept_parts else PurePosixPath("output")


def candidate_names(file_name: PurePosixPath) -> Iterator[PurePosixPath]:
    """Yield the name itself, then the names to try if it is taken, without end.

    A name with ComfyUI's counter counts on (`a_00001_.png`, `a_00002_.png`); any other gets one (`a.png`, `a-2.png`).
    """
    yield file_name
    # `a-2.tar.gz`, not `a.tar-2.gz`.
    suffix = "".join(file_name.suffixes) if file_name.name.endswith(".tar.gz") else file_name.suffix
    stem = file_name.name.removesuffix(suffix)
    counter_match = _COUNTED.fullmatch(stem)
    if counter_match is None:
        for next_number in itertools.count(2):
            yield file_name.with_name(f"{stem}-{next_number}{suffix}")
    else:
        counter_width = len(counter_match["count"])
        for next_number in itertools.count(int(counter_match["count"]) + 1):
            yield file_name.with_name(
                f"{counter_match['head']}{next_number:0{counter_width}}{counter_match['tail']}{suffix}"
            )


def _safe_part(path_part: str) -> str:
    path_part = _UNWANTED.sub("", path_part).strip()
    if path_part in {"", ".", ".."}:
        return ""
    if len(path_part.encode()) <= _LONGEST_PART_BYTES:
        return path_part
    stem, separator, suffix = path_part.rpartition(".")
    if not stem or len(suffix.encode()) > _LONGEST_SUFFIX_BYTES:
        stem, separator, suffix = path_part, "", ""
    stem_bytes = _LONGEST_PART_BYTES - len(separator.encode()) - len(suffix.encode())
    # A character that was cut in two is dropped.
    return stem.encode()[:stem_bytes].decode(errors="ignore") + separator + suffix
