"""Keys of objects: relative, with slashes, inside their store."""

import re
from urllib.parse import quote

from comfypin.storage.errors import KeyInvalid

# What nearly all keys are; only others are looked at part by part.
_PLAIN = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*")
# S3 lists keys as XML, which has no control characters; lone surrogates are not valid UTF-8.
_UNWANTED = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
LONGEST_KEY_BYTES = 1024  # the limit of S3 and of GCS


def require_valid_key(key: str) -> str:
    """Return the key if every store accepts it and it cannot leave its prefix. Raises `KeyInvalid`."""
    if len(key) <= LONGEST_KEY_BYTES and _PLAIN.fullmatch(key):
        return key
    if not key:
        raise KeyInvalid(key=key, reason="it is empty")
    if key.startswith("/") or key.endswith("/") or "//" in key:
        raise KeyInvalid(key=key, reason="a part of it is empty")
    if any(part in {".", ".."} for part in key.split("/")):
        raise KeyInvalid(key=key, reason="it holds a '.' or '..' part, which would leave the store")
    if _UNWANTED.search(key):
        raise KeyInvalid(key=key, reason="it holds control characters")
    if len(key.encode()) > LONGEST_KEY_BYTES:
        raise KeyInvalid(key=key, reason=f"it is longer than {LONGEST_KEY_BYTES} bytes")
    return key


def join_key(prefix: str, key: str) -> str:
    """Return the prefix of a store and a key below it as one key. Raises `KeyInvalid`."""
    require_valid_key(key)
    return require_valid_key(f"{prefix}/{key}" if prefix else key)


def clean_prefix(prefix_text: str) -> str:
    """Return a prefix as keys begin (`a/b`) from what users write (`/a/b/`). Raises `KeyInvalid`."""
    prefix = prefix_text.strip().strip("/")
    return require_valid_key(prefix) if prefix else ""


def encode_key(key: str) -> str:
    """Return a key percent-encoded for the path of a URL."""
    return quote(key, safe="/-_.~")
