"""Defines the kinds of text that a lock's fields hold: each with its pattern and the sentence that says what is
allowed.
"""

import contextlib
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, StrictInt, WithJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

# What SQLite, TOML and most JSON readers hold without loss.
MAX_SIZE_BYTES = 2**63 - 1


class TextKind:
    """Metadata of a string type: `pattern` must match the whole text, then `step` checks or normalizes it.

    `allowed` is the sentence a user reads when it does not fit; `schema_pattern` is for steps that check more.
    """

    def __init__(
        self, pattern: str, allowed: str, step: Callable[[str], str] = str, *, schema_pattern: str | None = None
    ) -> None:
        self._compiled = re.compile(pattern)
        self._allowed = allowed
        self._step = step
        self._schema_pattern = f"^(?:{schema_pattern or pattern})$"

    def check_text(self, field_text: object) -> str:
        if isinstance(field_text, str) and self._compiled.fullmatch(field_text):
            # A step that raises says the same as a pattern that does not match.
            with contextlib.suppress(ValueError):
                return self._step(field_text)
        raise PydanticCustomError("lock", self._allowed)

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check_text)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: object) -> dict[str, object]:
        return {"type": "string", "pattern": self._schema_pattern, "description": self._allowed}


def _normalize_target_path(field_text: str) -> str:
    """Normalize `$MODELS_DIR/...` or `$COMFY_HOME/...`; a bare relative path is under the models folder."""
    field_text = re.sub(r"^\$\{(MODELS_DIR|COMFY_HOME)\}", r"$\1", field_text)
    # Locks of schema 1 name paths below the models folder without a variable.
    if not field_text.startswith("$"):
        field_text = f"$MODELS_DIR/{field_text}"
    root_variable, _, rest = field_text.partition("/")
    relative_path = PurePosixPath(rest)
    outside = (
        root_variable not in ("$MODELS_DIR", "$COMFY_HOME")
        or relative_path.is_absolute()
        or ".." in relative_path.parts
    )
    if outside or not relative_path.name or field_text.endswith("/"):
        raise ValueError(field_text)
    return f"{root_variable}/{relative_path}"


def _normalize_target_folder(value: str) -> str:
    return _normalize_target_path(value.rstrip("/"))


def _check_folder(field_text: str) -> str:
    if field_text in (".", "..") or field_text.strip() != field_text:
        raise ValueError(field_text)
    return field_text


def _normalize_sha256(value: str) -> str:
    # Digests are compared as text, so there is one spelling.
    return value.lower().removeprefix("sha256:")


def _normalize_commit(field_text: str) -> str:
    return field_text.lower() if re.fullmatch(r"[0-9a-fA-F]{40}", field_text) else field_text


def _check_not_blank(field_text: str) -> str:
    if not field_text.strip():
        raise ValueError(field_text)
    return field_text


# No control characters, no line separators, and no marks that reverse the direction of text on a terminal.
_LINE = r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+"

VersionName: TypeAlias = Annotated[
    str,
    TextKind(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "a name is letters, digits, '.', '_' and '-', at most 128, not '.' first"
    ),
]
Line: TypeAlias = Annotated[str, TextKind(_LINE, "one line of text, not empty", _check_not_blank)]
RepoUrl: TypeAlias = Annotated[
    str,
    TextKind(
        r"(?:https?|ssh|git|file)://(?!-)[^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+|[A-Za-z0-9_.][A-Za-z0-9_.-]*@[A-Za-z0-9.-]+:[^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069-][^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*",
        "a repository is a URL (https, http, ssh, git, file) or user@host:path",
    ),
]
# What `git check-ref-format` accepts, except what a shell or an option parser could take for something else.
Ref: TypeAlias = Annotated[
    str,
    TextKind(
        r"(?!-)(?!.*\.\.)[^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069~^:?*\[\\]{1,255}",
        "a commit of 40 hex digits (or the name of a branch or tag)",
        _normalize_commit,
    ),
]
Sha256: TypeAlias = Annotated[
    str, TextKind(r"(?:[sS][hH][aA]256:)?[0-9a-fA-F]{64}", "a sha256 is 64 hex digits", _normalize_sha256)
]
NodeFolder: TypeAlias = Annotated[
    str,
    TextKind(
        r"[^/\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]{1,255}",
        "a folder under custom_nodes is one plain name, without '/' and not '..'",
        _check_folder,
    ),
]
PackageName: TypeAlias = Annotated[
    str,
    TextKind(
        r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", "a package name is letters, digits, '.', '_' and '-' (PEP 508)"
    ),
]
PackageVersion: TypeAlias = Annotated[
    str, TextKind(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*", "an exact version, such as 2.8.0 or 2.8.0+cu128 (PEP 440)")
]
Url: TypeAlias = Annotated[
    str,
    TextKind(
        r"(?:git\+)?(?:https?|file|ssh)://[^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+",
        "a URL: https, http, file, or git+https of a commit",
    ),
]
HttpUrl: TypeAlias = Annotated[
    str, TextKind(r"https?://[^\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+", "a URL: https or http")
]
PythonVersion: TypeAlias = Annotated[
    str, TextKind(r"3\.\d{1,2}(?:\.\d{1,3})?", "a Python version, such as 3.12 or 3.12.4")
]
TargetName: TypeAlias = Annotated[
    str,
    TextKind(
        r"[a-z0-9_]+-[a-z0-9_]+(?:-[a-z0-9_.]+)?",
        "a target is OS-MACHINE or OS-MACHINE-TORCH, such as linux-x86_64-cu128",
    ),
]
TargetPath: TypeAlias = Annotated[
    str,
    TextKind(
        r"(?!/)[^\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+",
        "a path that begins with $MODELS_DIR/ or $COMFY_HOME/ and stays inside, without '..', names a file",
        _normalize_target_path,
        schema_pattern=r"(?!/)(?!(?:.*/)?\.\.(?:/|$))(?!.*/$)[^\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+",
    ),
]
TargetFolder: TypeAlias = Annotated[
    str,
    TextKind(
        r"(?!/)[^\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+",
        "a folder that begins with $MODELS_DIR/ or $COMFY_HOME/ and stays inside, without '..'",
        _normalize_target_folder,
    ),
]
Source: TypeAlias = Annotated[
    str,
    TextKind(
        r"(?!-)[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+",
        "a source is an address, such as https://...; docs/models.md lists every kind",
        _check_not_blank,
    ),
]
SystemPackage: TypeAlias = Annotated[
    str,
    TextKind(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9]+)?(?:=[A-Za-z0-9.+:~-]+)?", "a Debian package: name or name=version"),
]
VariableName: TypeAlias = Annotated[
    str, TextKind(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name is letters, digits and '_', no digit first")
]
VariableValue: TypeAlias = Annotated[str, TextKind(r"[^\x00]*", "a variable's value is text without NUL")]
Argument: TypeAlias = Annotated[str, TextKind(r"[^\x00\r\n]*", "an argument is one line of text")]
Text: TypeAlias = Annotated[str, TextKind(r"[^\x00]*", "text without NUL")]


def _check_size(field_text: int) -> int:
    if not 0 <= field_text <= MAX_SIZE_BYTES:
        raise PydanticCustomError("lock", "a size in bytes is a whole number from 0 to 2^63-1")
    return field_text


SizeBytes: TypeAlias = Annotated[
    StrictInt,
    AfterValidator(_check_size),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_SIZE_BYTES, "description": "a size in bytes"}),
]


def or_default(default: Callable[[], object]) -> BeforeValidator:
    """Replace null with a default: older schemas write null for what is not there."""
    return BeforeValidator(lambda field_text: default() if field_text is None else field_text)
