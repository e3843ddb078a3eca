"""The kinds of text that a lock's fields hold: each with its pattern and the sentence that says what is allowed."""

import contextlib
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, StrictInt, WithJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MAX_SIZE_BYTES = 2**63 - 1


class Kind:
    """Metadata of a string type: `pattern` must match all of it, then `step` checks or normalizes it.

    `allowed` is the sentence a user reads when it does not fit; `schema_pattern` is for steps that check more.
    """

    def __init__(
        self, pattern: str, allowed: str, step: Callable[[str], str] = str, *, schema_pattern: str | None = None
    ) -> None:
        self._compiled = re.compile(pattern)
        self._allowed = allowed
        self._step = step
        self._schema_pattern = f"^(?:{schema_pattern or pattern})$"

    def check(self, value: object) -> str:
        if isinstance(value, str) and self._compiled.fullmatch(value):
            with contextlib.suppress(ValueError):
                return self._step(value)
        raise PydanticCustomError("lock", self._allowed)

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: object) -> dict[str, object]:
        return {"type": "string", "pattern": self._schema_pattern, "description": self._allowed}


def _target_path(value: str) -> str:
    """`$MODELS_DIR/...` or `$COMFY_HOME/...`; a bare relative path is under the models folder."""
    value = re.sub(r"^\$\{(MODELS_DIR|COMFY_HOME)\}", r"$\1", value)
    if not value.startswith("$"):
        value = f"$MODELS_DIR/{value}"
    root, _, rest = value.partition("/")
    path = PurePosixPath(rest)
    outside = root not in ("$MODELS_DIR", "$COMFY_HOME") or path.is_absolute() or ".." in path.parts
    if outside or not path.name or value.endswith("/"):
        raise ValueError(value)
    return f"{root}/{path}"


def _target_folder(value: str) -> str:
    return _target_path(value.rstrip("/"))


def _folder(value: str) -> str:
    if value in (".", "..") or value.strip() != value:
        raise ValueError(value)
    return value


def _lower(value: str) -> str:
    return value.lower().removeprefix("sha256:")


def _commit(value: str) -> str:
    return value.lower() if re.fullmatch(r"[0-9a-fA-F]{40}", value) else value


def _names_a_file(value: str) -> str:
    if not value.strip():
        raise ValueError(value)
    return value


_LINE = r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+"

VersionName: TypeAlias = Annotated[
    str,
    Kind(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "a name is letters, digits, '.', '_' and '-', at most 128, not '.' first"
    ),
]
Line: TypeAlias = Annotated[str, Kind(_LINE, "one line of text, not empty", _names_a_file)]
RepoUrl: TypeAlias = Annotated[
    str,
    Kind(
        r"(?:https?|ssh|git|file)://(?!-)[^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+|[A-Za-z0-9_.][A-Za-z0-9_.-]*@[A-Za-z0-9.-]+:[^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069-][^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*",
        "a repository is a URL (https, http, ssh, git, file) or user@host:path",
    ),
]
# What `git check-ref-format` takes, less what a shell or an option parser could take for something else.
Ref: TypeAlias = Annotated[
    str,
    Kind(
        r"(?!-)(?!.*\.\.)[^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069~^:?*\[\\]{1,255}",
        "a commit of 40 hex digits (or the name of a branch or tag)",
        _commit,
    ),
]
Sha256: TypeAlias = Annotated[str, Kind(r"(?:[sS][hH][aA]256:)?[0-9a-fA-F]{64}", "a sha256 is 64 hex digits", _lower)]
NodeFolder: TypeAlias = Annotated[
    str,
    Kind(
        r"[^/\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]{1,255}",
        "a folder under custom_nodes is one plain name, without '/' and not '..'",
        _folder,
    ),
]
PackageName: TypeAlias = Annotated[
    str,
    Kind(
        r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", "a package name is letters, digits, '.', '_' and '-' (PEP 508)"
    ),
]
PackageVersion: TypeAlias = Annotated[
    str, Kind(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*", "an exact version, such as 2.8.0 or 2.8.0+cu128 (PEP 440)")
]
Url: TypeAlias = Annotated[
    str,
    Kind(
        r"(?:git\+)?(?:https?|file|ssh)://[^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+",
        "a URL: https, http, file, or git+https of a commit",
    ),
]
HttpUrl: TypeAlias = Annotated[
    str, Kind(r"https?://[^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+", "a URL: https or http")
]
PythonVersion: TypeAlias = Annotated[str, Kind(r"3\.\d{1,2}(?:\.\d{1,3})?", "a Python version, such as 3.12 or 3.12.4")]
TargetName: TypeAlias = Annotated[
    str,
    Kind(
        r"[a-z0-9_]+-[a-z0-9_]+(?:-[a-z0-9_.]+)?",
        "a target is OS-MACHINE or OS-MACHINE-TORCH, such as linux-x86_64-cu128",
    ),
]
TargetPath: TypeAlias = Annotated[
    str,
    Kind(
        r"(?!/)[^\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+",
        "a path that begins with $MODELS_DIR/ or $COMFY_HOME/ and stays inside, without '..', names a file",
        _target_path,
        schema_pattern=r"(?!/)(?!(?:.*/)?\.\.(?:/|$))(?!.*/$)[^\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+",
    ),
]
TargetFolder: TypeAlias = Annotated[
    str,
    Kind(
        r"(?!/)[^\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+",
        "a folder that begins with $MODELS_DIR/ or $COMFY_HOME/ and stays inside, without '..'",
        _target_folder,
    ),
]
Source: TypeAlias = Annotated[
    str,
    Kind(
        r"(?!-)[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+",
        "a source is an address, such as hf://..., civitai://..., https://..., s3://... or file://...",
        _names_a_file,
    ),
]
SystemPackage: TypeAlias = Annotated[
    str,
    Kind(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9]+)?(?:=[A-Za-z0-9.+:~-]+)?", "a Debian package: name or name=version"),
]
VariableName: TypeAlias = Annotated[
    str, Kind(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name is letters, digits and '_', no digit first")
]
VariableValue: TypeAlias = Annotated[str, Kind(r"[^\x00]*", "a variable's value is text without NUL")]
Argument: TypeAlias = Annotated[str, Kind(r"[^\x00\r\n]*", "an argument is one line of text")]
Text: TypeAlias = Annotated[str, Kind(r"[^\x00]*", "text without NUL")]


def _size(value: int) -> int:
    if not 0 <= value <= MAX_SIZE_BYTES:
        raise PydanticCustomError("lock", "a size in bytes is a whole number from 0 to 2^63-1")
    return value


SizeBytes: TypeAlias = Annotated[
    StrictInt,
    AfterValidator(_size),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_SIZE_BYTES, "description": "a size in bytes"}),
]


def or_default(default: Callable[[], object]) -> BeforeValidator:
    """Older schemas write null where they mean nothing at all."""
    return BeforeValidator(lambda value: default() if value is None else value)
