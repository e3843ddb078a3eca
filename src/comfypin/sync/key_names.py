"""Decides which files are taken, and which key each of them gets. Pure."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from comfypin.digest import Digest

LONGEST_BYTES = 900  # keys have 1,024 bytes, and the destination's prefix comes before them

# What programs write beside a file before they rename it into place; never outputs.
UNFINISHED = ("*.tmp", "*.part", "*.partial", "*.crdownload", "*.swp", "*~", ".nfs*", ".comfypin*", ".~*")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFilter:
    """Selects files: those that match one of `include` (all, if empty) and none of `exclude`.

    A pattern with a slash is matched against the path under the folder, one without against the name.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes_path(self, relative_path: str) -> bool:
        """Return whether the file at this relative path is to be synced."""
        if _matches_any(relative_path, UNFINISHED) or _matches_any(relative_path, self.exclude):
            return False
        return not self.include or _matches_any(relative_path, self.include)


def object_key(relative_path: str) -> str:
    """Return the object's key for a path under the folder: the path itself, if stores take it as a key.

    Control characters and bytes that are not UTF-8 become %XX, and in such a name % becomes %25, so that no two names
    meet in one key. A name that is longer than keys may be keeps its beginning and ends in its digest.
    """
    key = "".join(map(_escape_character, relative_path)) if any(map(_is_refused, relative_path)) else relative_path
    encoded_key = key.encode()
    if len(encoded_key) <= LONGEST_BYTES:
        return key
    # The suffix stays, because browsers and buckets guess types from it.
    suffix = PurePosixPath(key).suffix[:20]
    return f"{encoded_key[: LONGEST_BYTES - 60].decode(errors='ignore')}~{Digest.of(encoded_key).hex[:32]}{suffix}"


def revision_key(key: str, revision: int) -> str:
    """Return the key of a later revision of a file: `a/b.png` -> `a/b.r2.png`; the first keeps its name."""
    if revision <= 1:
        return key
    key_path = PurePosixPath(key)
    # Before the suffix, so that the file still opens with a double click.
    return str(key_path.with_name(f"{key_path.stem}.r{revision}{key_path.suffix}"))


def _matches_any(relative_path: str, patterns: tuple[str, ...]) -> bool:
    file_name = relative_path.rpartition("/")[2]
    # Case matters on every platform: keys in a bucket have case.
    return any(
        fnmatchcase(relative_path if "/" in name_pattern else file_name, name_pattern) for name_pattern in patterns
    )


def _is_refused(character: str) -> bool:
    # Bytes that are not UTF-8 arrive as \udc80 to \udcff (PEP 383).
    return character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff"


def _escape_character(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"%{ord(character) - 0xDC00:02X}"
    return f"%{ord(character):02X}" if character == "%" or _is_refused(character) else character
