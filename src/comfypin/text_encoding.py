"""Decode text files as every system's editors and shells write them: UTF-8, with or without a mark, and UTF-16."""

import codecs
import json

# The longer marks first: UTF-32's begins with UTF-16's. `>` of Windows PowerShell 5 writes UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(file_bytes: bytes, *, errors: str = "strict") -> str:
    """Return the text of a file, by its byte order mark, else as UTF-8. Raises `UnicodeDecodeError`."""
    encoding = next((encoding for mark, encoding in _MARKS if file_bytes.startswith(mark)), "utf-8")
    return file_bytes.decode(encoding, errors=errors)


def decode_json(file_bytes: bytes) -> str:
    """Return the text of a JSON file; its first bytes tell the encoding. Raises `UnicodeDecodeError`."""
    return file_bytes.decode(json.detect_encoding(file_bytes))


def is_wide_json(file_bytes: bytes) -> bool:
    """Return whether the bytes begin like JSON in UTF-16 or UTF-32, where each second byte is zero."""
    encoding = json.detect_encoding(file_bytes)
    if not encoding.startswith(("utf-16", "utf-32")):
        return False
    # Whole characters only: what follows may be cut.
    beginning = file_bytes[:512].decode(encoding, errors="replace")
    return beginning.lstrip("\ufeff \t\r\n")[:1] in ("{", "[")
