"""Parses the bytes of a lock file into a JSON tree, and refuses everything that JSON readers disagree about.

Duplicate keys, NaN, lone surrogates, absurd depth and absurd numbers are findings with a JSON path, never a traceback:
a lock is downloaded, mailed and edited by hand.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from comfypin.digest import JsonValue
from comfypin.lock.errors import LockFinding, LockInvalid, LockUnreadable
from comfypin.plurals import format_count, format_limit
from comfypin.text_encoding import decode_json

# A lock of 500 packages and 200 models is below 1 MB: what is larger is something else.
MAX_BYTES = 64_000_000
# Below Python's recursion limit, so that depth is a finding and not a RecursionError somewhere later.
MAX_DEPTH = 100
# Messages are logged and mailed: what was found is shown without passwords in URLs.
_SECRET = re.compile(r"//[^/@\s]*:[^/@\s]*@")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class _ParsedObject(dict[str, object]):
    """A JSON object that remembers which keys it was given twice."""

    def __init__(self, key_pairs: list[tuple[str, object]]) -> None:
        super().__init__(key_pairs)
        # JSON readers disagree about repeated keys: Python takes the last, others the first.
        counts = Counter(key_name for key_name, _ in key_pairs)
        self.repeated = tuple(key_name for key_name, count in counts.items() if count > 1)


def json_path(location: tuple[str | int, ...]) -> str:
    """Return `("models", 0, "sha256")` as `$.models[0].sha256`; keys that are not plain words are quoted."""
    return "$" + "".join(
        f"[{path_part}]"
        if isinstance(path_part, int)
        else f".{path_part}"
        if _PLAIN_KEY.fullmatch(path_part)
        else f"[{json.dumps(path_part[:80])}]"
        for path_part in location
    )


def describe_value(json_value: object) -> str:
    """Describe what was found in a few characters that are safe to print on a terminal."""
    if json_value is None or isinstance(json_value, bool):
        return json.dumps(json_value)
    if isinstance(json_value, dict):
        return f"an object with {format_count(len(json_value), 'key')}" if json_value else "an empty object"
    if isinstance(json_value, (list, tuple)):
        return f"a list of {len(json_value)}" if json_value else "an empty list"
    if isinstance(json_value, int):
        return str(json_value) if abs(json_value) < 10**20 else "a number of more than 20 digits"
    if isinstance(json_value, str):
        json_value = _SECRET.sub("//***@", json_value)
        unicode_text = json.dumps(json_value[:81])
        return unicode_text if len(json_value) <= 80 else f"{unicode_text[:78]}..., {len(json_value)} characters"
    return str(json_value)


def read_lock_bytes(path: Path) -> bytes:
    """Read the bytes of a lock file. Raises `LockUnreadable` for anything but a readable file of sane size."""
    try:
        # Devices and pipes would block for ever, so nothing but regular files is opened.
        if path.is_dir():
            raise LockUnreadable(where=str(path), reason="it is a folder, and a lock is a file")
        if not path.is_file():
            reason = "it is not a regular file" if path.exists() else "there is no such file"
            raise LockUnreadable(where=str(path), reason=reason)
        with path.open("rb") as file:
            # One byte more tells a file that is too large from one that just fits.
            lock_bytes = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise LockUnreadable(where=str(path), reason=reason) from error
    if len(lock_bytes) > MAX_BYTES:
        raise LockUnreadable(where=str(path), reason=f"it is larger than {format_limit(MAX_BYTES)}")
    return lock_bytes


def load_document(lock_bytes: bytes, *, where: str) -> dict[str, JsonValue]:
    """Parse the bytes into one JSON object. Raises `LockUnreadable` or `LockInvalid` with every finding."""
    try:
        # Editors on Windows write a byte order mark before the first brace, and its shells UTF-16.
        unicode_text = decode_json(lock_bytes)
        json_tree = json.loads(unicode_text, object_pairs_hook=_ParsedObject)
    except UnicodeDecodeError as error:
        raise LockUnreadable(
            where=where, reason=f"byte {error.start} is not {error.encoding.upper()}, and a lock is UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}, column {error.colno} is not JSON ({error.msg})"
        raise LockUnreadable(where=where, reason=reason) from error
    except RecursionError as error:
        raise LockUnreadable(where=where, reason=f"it is nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:  # an integer longer than Python's limit of digits
        raise LockUnreadable(where=where, reason="it holds a number of thousands of digits") from error
    if not isinstance(json_tree, dict):
        finding = LockFinding(
            rule="not-an-object", path="$", found=describe_value(json_tree), allowed="a lock is a JSON object"
        )
        raise LockInvalid(where=where, findings=[finding])
    if findings := list(_find_oddities(json_tree)):
        raise LockInvalid(where=where, findings=findings)
    return cast("dict[str, JsonValue]", json_tree)


def _find_oddities(tree: object) -> Iterator[LockFinding]:
    """Find everything in the tree that JSON does not have, or that readers of JSON take differently."""
    # A stack of our own: the tree may be nested nearly as deep as Python can recurse.
    to_visit: list[tuple[tuple[str | int, ...], object]] = [((), tree)]
    while to_visit:
        location, json_value = to_visit.pop()
        if len(location) > MAX_DEPTH:
            # The whole path would be a hundred keys long.
            short_path = json_path(location[:5]) + "..."
            yield LockFinding(
                rule="too-deep", path=short_path, found="more levels", allowed=f"at most {MAX_DEPTH} levels"
            )
            continue
        if isinstance(json_value, _ParsedObject):
            for key_name in json_value.repeated:
                yield LockFinding(
                    rule="repeated-key",
                    path=json_path((*location, key_name)),
                    found="the key more than once",
                    allowed="each key may appear once",
                )
            # Reversed, because the stack gives back the last one first and findings follow the file.
            to_visit.extend(((*location, key), child_value) for key, child_value in reversed(json_value.items()))
        elif isinstance(json_value, list):
            to_visit.extend(
                ((*location, list_index), child_value)
                for list_index, child_value in reversed(list(enumerate(json_value)))
            )
        elif isinstance(json_value, float) and not math.isfinite(json_value):
            found = "NaN or a number too large for JSON"
            yield LockFinding(rule="not-finite", path=json_path(location), found=found, allowed="a finite number")
        unicode_texts = (
            [json_value] if isinstance(json_value, str) else list(json_value) if isinstance(json_value, dict) else []
        )
        for unicode_text in unicode_texts:
            # Half a surrogate pair cannot be encoded: printing or writing it later would fail.
            if any("\ud800" <= character <= "\udfff" for character in unicode_text):
                allowed = "text that is valid Unicode"
                yield LockFinding(
                    rule="bad-unicode", path=json_path(location), found="half of a surrogate pair", allowed=allowed
                )
