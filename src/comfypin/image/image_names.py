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


def require_tags(image_tags: Sequence[str]) -> tuple[str, ...]:
    """Return the tags, with `:latest` added to those without one. Raises `TagInvalid`."""
    complete_tags = []
    for image_tag in image_tags:
        match = _REFERENCE.fullmatch(image_tag)
        if match is None:
            raise TagInvalid(tag=image_tag)
        complete_tags.append(image_tag if match["tag"] else f"{image_tag}:latest")
    return tuple(complete_tags)


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
    registry_name = reference.partition("/")[0].rpartition(":")[0] or reference.partition("/")[0]
    return registry_name in {"localhost", "127.0.0.1", "[::1]"}


def reference_on_registry(image_tag: str, registry_prefix: str | None) -> str:
    """Return an image's reference on a registry (`ghcr.io/you`), or its tag if none is given. Raises `TagInvalid`."""
    (complete_reference,) = require_tags([image_tag])
    if registry_prefix is None:
        return complete_reference
    match = _REFERENCE.fullmatch(complete_reference)
    assert match is not None, "it was just checked"
    repository_name = match["path"].rpartition("/")[2] if match["host"] else match["path"]
    return require_tags([f"{registry_prefix.rstrip('/')}/{repository_name}:{match['tag']}"])[0]
