"""Puts what flags say about a job (`--set`, `--input`) into the JSON that Runpod's paths take."""

import base64
import json
import re
from collections.abc import Iterable
from pathlib import Path

from comfypin.client.interface import InputSource
from comfypin.errors import UsageError
from comfypin.storage.registry import SCHEMES
from comfypin.workflow.overrides import Override

_ADDRESS = re.compile(rf"(https?|{'|'.join(SCHEMES)})://")


def parse_input_source(assignment: str) -> InputSource:
    """Read `NODE=FILE` or `NODE=ADDRESS`. Raises `UsageError`."""
    node, equals_sign, source = assignment.partition("=")
    if not equals_sign or not node.strip() or not source:
        raise UsageError(f"--input {assignment!r} is not NODE=FILE, such as 12=cat.png.")
    # The name becomes a file on the server, so it must be a plain one.
    file_name = re.sub(r"[^A-Za-z0-9._-]", "_", source.partition("?")[0].rpartition("/")[2]).lstrip(".") or "input"
    if _ADDRESS.match(source):
        # The server fetches an address itself, so large files need not fit into a job.
        return InputSource(node=node.strip(), name=file_name[-200:], url=source)
    input_source = InputSource(node=node.strip(), name=file_name[-200:], path=Path(source).expanduser())
    size_of_input(input_source)
    return input_source


def size_of_input(source: InputSource) -> int:
    """Return how large the file is; 0 for an address. Raises `UsageError`."""
    if source.path is None:
        return 0
    try:
        if not source.path.is_file():
            raise UsageError(f"--input {source.node}={source.path}: there is no such file.")
        return source.path.stat().st_size
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from error


def read_input(source: InputSource) -> bytes:
    """Return the bytes of the file. Raises `UsageError`."""
    try:
        return (source.path or Path()).read_bytes()
    except OSError as error:
        raise _unreadable(source, error) from error


def inline_input(source: InputSource) -> dict[str, object]:
    """Return an input file as a job carries it: its bytes, or the address that the server fetches it from.

    Raises `UsageError`.
    """
    target: dict[str, object] = {"node": source.node, "name": source.name}
    if source.url is not None:
        return {**target, "url": source.url}
    return {**target, "data": base64.b64encode(read_input(source)).decode()}


def override_values(overrides: Iterable[Override]) -> dict[str, object]:
    """Return a job's `set`. A value is JSON if it is JSON, else a text: a prompt needs no quotes."""
    return {override.target: _typed_value(override.value) for override in overrides}


def _typed_value(typed: object) -> object:
    if not isinstance(typed, str):
        return typed
    try:
        return json.loads(typed)
    except (ValueError, RecursionError):
        return typed


def _unreadable(source: InputSource, error: Exception) -> UsageError:
    reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
    return UsageError(f"--input {source.node}={source.path}: the file cannot be read: {reason}.")
