"""Defines the one tree of failures: a root, a family per kind of trouble, an exit code per family.

Leaf errors are declared beside their room (`comfypin.engine.errors`, `comfypin.lock.errors`, ...). Each names a
situation, carries its facts as attributes, and its message is one sentence that says what, where and what to do. The
exit codes are documented in docs/exit-codes.md, which a test compares with this tree.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, ClassVar, Protocol, TypeVar, dataclass_transform, runtime_checkable


class ComfypinError(Exception):
    """Root of every failure that comfypin raises on purpose."""

    family: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    # What to type, as a sentence. Only commands show it: whoever reads a job's result has no command line here.
    command_hint: str = ""

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    @property
    def command_message(self) -> str:
        """Return the message as a command prints it: with what to type."""
        if not self.command_hint:
            return self.message
        return f"{self.message}{'' if self.command_hint.startswith(chr(10)) else ' '}{self.command_hint}"

    def to_json(self) -> dict[str, object]:
        """Return what `--json` prints: the family, the error's name, its sentence and its facts (JSON values only)."""
        return {
            "family": self.family,
            "error": type(self).__name__,
            "message": self.message,
            "exit_code": self.exit_code,
            **({"facts": self.facts} if self.facts else {}),
        }


class UsageError(ComfypinError):
    """The command line asks for something that does not exist or does not fit together."""

    family = "usage"
    exit_code = 64


class ConfigError(ComfypinError):
    """A variable or a setting is missing or wrong."""

    family = "config"
    exit_code = 3


class LeaseError(ComfypinError):
    """Another process works on the same files of a shared volume; trying again later may help (EX_TEMPFAIL)."""

    family = "lease"
    exit_code = 75


class LockError(ComfypinError):
    """A lock cannot be found, read, made or trusted."""

    family = "lock"
    exit_code = 10


class WorkflowError(ComfypinError):
    """A workflow, or what a job asks of it, cannot be run as it stands."""

    family = "workflow"
    exit_code = 11


class EngineError(ComfypinError):
    """The engine did not start, died, or does not answer as ComfyUI answers."""

    family = "engine"
    exit_code = 20


class PromptError(ComfypinError):
    """The engine took the prompt, and it did not end well."""

    family = "prompt"
    exit_code = 21


class OutputError(ComfypinError):
    """An output exists in the engine and could not be brought to where it was asked for."""

    family = "output"
    exit_code = 30


class StorageError(ComfypinError):
    """A bucket or a store refused, or could not be reached."""

    family = "storage"
    exit_code = 31


class EnvError(ComfypinError):
    """An environment could not be realized, packed, or is not what its lock says."""

    family = "env"
    exit_code = 40


class ModelError(ComfypinError):
    """A model could not be fetched, verified or placed."""

    family = "model"
    exit_code = 50


class ImageError(ComfypinError):
    """A container image could not be built or pushed."""

    family = "image"
    exit_code = 60


class DeployError(ComfypinError):
    """Runpod's management API refused, or the plan cannot be applied."""

    family = "deploy"
    exit_code = 70


class RemoteError(ComfypinError):
    """A server of jobs could not be reached, refused, or does not know the job."""

    family = "remote"
    exit_code = 71


class SyncError(ComfypinError):
    """A folder could not be synced."""

    family = "sync"
    exit_code = 80


class Cancelled(ComfypinError):
    """The user, or the platform, asked for the work to stop."""

    family = "cancelled"
    exit_code = 130


Declared = TypeVar("Declared", bound=ComfypinError)


@dataclass_transform(kw_only_default=True, eq_default=False)
def declare(error: type[Declared]) -> type[Declared]:
    """Give an error class a constructor made of its fields, and a message made of its `template`.

    Each annotated field becomes a keyword argument, an attribute and a fact of the JSON form; one whose name begins
    with an underscore stays out of the facts. The template may also name properties, for facts that need wording, and a
    `command_hint`, filled in the same way, says what to type to those who can::

        @declare
        class HomeOccupied(EnvError):
            \"""The folder holds something that comfypin did not make.\"""

            template = "{path} exists and is not an env of comfypin; name another --home."
            path: Path
    """
    fields = {
        field_name: getattr(error, field_name, inspect.Parameter.empty)
        for field_name in inspect.get_annotations(error)
        if field_name not in ("template", "family", "exit_code", "command_hint")
    }
    template: str = error.template  # type: ignore[attr-defined]  # mypy sees the classes, not this function's rule

    def __init__(self: Declared, **values: Any) -> None:
        unknown = values.keys() - fields.keys()
        missing = {
            field_name for field_name, default in fields.items() if default is inspect.Parameter.empty
        } - values.keys()
        if unknown or missing:
            raise TypeError(f"{error.__name__}: unknown {sorted(unknown)}, missing {sorted(missing)}")
        for field_name, default in fields.items():
            setattr(self, field_name, values.get(field_name, default))
        facts = {
            field_name: _to_fact(getattr(self, field_name)) for field_name in fields if not field_name.startswith("_")
        }
        ComfypinError.__init__(self, template.format_map(_Attributes(self)), **facts)
        self.command_hint = type(self).command_hint.format_map(_Attributes(self))

    error.__init__ = __init__  # type: ignore[assignment]  # `dataclass_transform` tells mypy what it takes
    return error


@runtime_checkable
class _HasJson(Protocol):
    """A value that knows its JSON form, such as a finding."""

    def to_json(self) -> object: ...


class _Attributes(dict[str, object]):
    """Looks up an error's attributes and properties by name, for its template."""

    def __init__(self, owner: object) -> None:
        super().__init__()
        self._owner = owner

    def __missing__(self, attribute_name: str) -> object:
        return getattr(self._owner, attribute_name)


def _to_fact(field_value: object) -> object:
    """Return a value as JSON holds it: paths and other objects as text, sequences as lists."""
    if isinstance(field_value, PurePath):
        return str(field_value)
    if isinstance(field_value, Mapping):
        return {str(key): _to_fact(item) for key, item in field_value.items()}
    if isinstance(field_value, list | tuple | set | frozenset):
        return [_to_fact(item) for item in field_value]
    if field_value is None or isinstance(field_value, str | int | float | bool):
        return field_value
    if isinstance(field_value, _HasJson):
        return field_value.to_json()
    return str(field_value)


def indent_lines(items: Sequence[object], *, at_most: int | None = None) -> str:
    """Return items for the end of a message, each on an indented line, with a count of those beyond `at_most`."""
    shown_items = items[:at_most]
    more = len(items) - len(shown_items)
    return "".join(f"\n  {shown_item}" for shown_item in shown_items) + (f"\n  and {more} more" if more else "")
