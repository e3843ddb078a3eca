"""What a running job tells whoever watches it: the engine's events, and the job's own phases."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from comfypin.engine.interface import EngineEvent

Phase = Literal["queue", "run", "collect", "deliver"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStarted:
    """The job entered a phase."""

    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeued:
    """The engine died under the job, which was queued once more."""

    reason: str


RunEvent: TypeAlias = EngineEvent | PhaseStarted | Requeued
Watcher: TypeAlias = Callable[[RunEvent], None]
"""Called on the event loop for every event; must return at once."""
