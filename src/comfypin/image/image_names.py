"""Parses image names: what a tag may be, and which registry it goes to (pure)."""

import re
from collections.abc import Sequence

from comfypin.image.errors import TagInvalid

# https://github.com/distribution/reference/blob/main/regexp.go
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<host>(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|\[[0-9a-f:]+\]|[A-Za-z0-9-]+(?=:))(?::[0-9]+)?)/)?"
    rf"(?P<path>{_PART}(?:/{_PART})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?",
    re.ASCII,
)


def require_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Return the tags, with `:latest` added to those without one. Raises `TagInvalid`."""
    whole = []
    for tag in tags:
        match = _REFERENCE.fullmatch(tag)
        if match is None:
            raise TagInvalid(tag=tag)
        whole.append(tag if match["tag"] else f"{tag}:latest")
    return tuple(whole)


def registry_host(reference: str) -> str:
    """Return the registry that a reference is pushed to. Raises `TagInvalid`."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise TagInvalid(tag=reference)
    # A first part without a dot or a port is a user of Docker Hub, as docker reads it.
    return match["host"] or "docker.io"


def repository_path(reference: str) -> str:
    """Return the repository of a reference inside its registry, `you/wan22`. Raises `TagInvalid`."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise TagInvalid(tag=reference)
    # Docker Hub's own images lie there without a name before them.
    return match["path"] if match["host"] or "/" in match["path"] else f"library/{match['path']}"


def is_local_registry(reference: str) -> bool:
    """Return whether a reference's registry is on this machine."""
    host = reference.partition("/")[0].rpartition(":")[0] or reference.partition("/")[0]
    return host in {"localhost", "127.0.0.1", "[::1]"}


def reference_on_registry(tag: str, registry: str | None) -> str:
    """Return an image's reference on a registry (`ghcr.io/you`), or its tag if none is given. Raises `TagInvalid`."""
    (whole,) = require_tags([tag])
    if registry is None:
        return whole
    match = _REFERENCE.fullmatch(whole)
    assert match is not None, "it was just checked"
    name = match["path"].rpartition("/")[2] if match["host"] else match["path"]
    return require_tags([f"{registry.rstrip('/')}/{name}:{match['tag']}"])[0]
