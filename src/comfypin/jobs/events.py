"""Events of a running job, for whoever watches it: the engine's, and the job's own phases."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from comfypin.digest import JsonValue
from comfypin.engine.interface import EngineEvent

Phase = Literal["models", "queue", "run", "collect", "deliver"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStarted:
    """The job entered a phase."""

    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeued:
    """The engine died under the job, which was queued once more."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProgress:
    """A model that the job brings has arrived so far; `total_bytes` is None if its source does not say."""

    model: str
    done_bytes: int
    total_bytes: int | None = None


RunEvent: TypeAlias = EngineEvent | PhaseStarted | Requeued
EventWatcher: TypeAlias = Callable[[RunEvent], None]
"""Called on the event loop for every event; must return at once."""


def event_to_json(event: RunEvent | ModelProgress) -> dict[str, JsonValue]:
    """Return an event as one JSON object, the same in logs, worker and HTTP; `event` names it."""
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    # `at_s` is a monotonic clock's: it means nothing outside this process.
    renamed = {
        _FIELD_NAMES.get(field_name, field_name): _to_plain_value(field_value)
        for field_name, field_value in values.items()
        if field_name != "at_s"
    }
    return {
        "event": _to_snake_case(type(event).__name__),
        **{field_name: field_value for field_name, field_value in renamed.items() if field_value is not None},
    }


_FIELD_NAMES = {"node_id": "node"}


def _to_plain_value(field_value: object) -> JsonValue:
    if isinstance(field_value, frozenset):
        # Sorted, so that equal events are equal texts.
        return sorted(str(item) for item in field_value)
    return field_value if isinstance(field_value, str | int | float) or field_value is None else str(field_value)


def _to_snake_case(field_name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in field_name).lstrip("_")
