"""Knows an engine's address, its folders if they are on this machine, and why it does not answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from yarl import URL

from comfypin.engine.errors import EngineCrashed, EngineUnreachable
from comfypin.errors import EngineError


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFolders:
    """Names the engine's own folders, on this machine."""

    input: Path
    output: Path
    temp: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAddress:
    """Names one start of an engine: after a restart it has another address, and knows nothing of earlier prompts."""

    url: URL
    folders: LocalFolders | None = None


# A seam of its own, so that the client need not know whether it may restart what it talks to.
class EngineHost(Protocol):
    """Starts an engine and knows its state."""

    async def address(self) -> EngineAddress:
        """Return the engine's address; starts it (again) if that is ours to do. Raises `EngineStartFailed`."""

    async def wait_for_crash(self, address: EngineAddress) -> EngineCrashed:
        """Wait until the engine at that address ends unasked, and return why."""

    def log_tail(self) -> tuple[str, ...]:
        """Return the last lines that the engine wrote, if we can read its log."""

    async def explain_failure(self, address: EngineAddress, failure: EngineUnreachable) -> EngineError:
        """Say why the engine at the address does not answer: dead, or just unreachable."""
