"""Engines: which one a lock and the flags name, and how it is opened."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from comfypin.errors import ConfigError, UsageError
from comfypin.folder_use import using
from comfypin.temp_folders import sweep_temp_folders, temp_folder

if TYPE_CHECKING:
    from comfypin.engine.command import ChildSpec
    from comfypin.engine.interface import Engine
    from comfypin.lock.model import EngineKind, EngineSpec
    from comfypin.settings.environment import Settings
    from comfypin.settings.machine import MachineSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """Which engine runs, as the lock and the flags say, and the settings of this machine.

    `keep_temp` leaves everything that the engine wrote where it is, for debugging.
    """

    spec: "EngineSpec"
    settings: "Settings"
    keep_temp: bool = False

    @property
    def kind(self) -> "EngineKind":
        """The engine's kind."""
        return self.spec.kind


def choose_engine(
    spec: "EngineSpec",
    settings: "Settings",
    *,
    kind: "EngineKind | None" = None,
    url: str | None = None,
    keep_temp: bool = False,
) -> EngineChoice:
    """The lock's engine, or the one that flags name; an engine that nobody named is never fallen back to.

    Raises `UsageError` for flags that contradict each other, `ConfigError` for a remote engine without an address.
    """
    if url is not None and kind not in (None, "remote"):
        raise UsageError(f"--engine-url goes with --engine remote, not with --engine {kind}.")
    chosen = kind or ("remote" if url is not None else spec.kind)
    url = url or spec.url
    if chosen == "remote" and url is None:
        raise ConfigError("The engine is remote, and neither --engine-url nor the lock's engine.url says where it is.")
    return EngineChoice(spec=replace(spec, kind=chosen, url=url), settings=settings, keep_temp=keep_temp)


@asynccontextmanager
async def open_engine(choice: EngineChoice) -> AsyncIterator["Engine"]:
    """The engine, started where it is ours to start; stopped, with all that it left, when the block ends.

    Raises `EngineNotFound`, `EngineUrlInvalid`, `EngineStartFailed`.
    """
    await asyncio.to_thread(sweep_temp_folders)
    if choice.spec.kind == "remote":
        from comfypin.engine.remote import open_remote

        async with open_remote(choice.spec.url or "") as engine:
            yield engine
        return
    from comfypin.engine.standby import open_child

    child = _child(choice)
    # Nobody removes the env while its engine runs.
    env = using(choice.settings.machine.comfy_home) if choice.kind == "comfyui" else nullcontext()
    with env, temp_folder("engine", keep=choice.keep_temp) as work:
        if choice.keep_temp:
            log.warning("the engine's files stay in %s", work, extra={"action": "engine_files_kept", "path": str(work)})
        standby = choice.settings.machine.engine_standby
        async with open_child(child, work, keep_temp=choice.keep_temp, standby=standby) as engine:
            yield engine


def _child(choice: EngineChoice) -> "ChildSpec":
    from comfypin.engine.command import comfyui_child, embedded_child, has_gpu

    machine, inherited = choice.settings.machine, choice.settings.variables
    if choice.spec.kind == "embedded":
        return embedded_child(choice.spec, inherited, version=_embedded_version(machine))
    return comfyui_child(
        machine.comfy_home,
        choice.spec,
        inherited,
        gpu=has_gpu(inherited),
        # A default that is not there would only be listed in the engine's log, folder by folder.
        models_dir=machine.models_dir if machine.named_models_dir or machine.models_dir.is_dir() else None,
        fast_models_dir=machine.fast_models_dir,
    )


def _embedded_version(machine: "MachineSettings") -> str | None:
    """Return which ComfyUI the embedded engine is to be, if that is said. Raises `ConfigError`."""
    from comfypin.engine.embedded.releases import RELEASES

    version = machine.embedded_version
    if version is None or version in RELEASES:
        return version
    known = " or ".join(RELEASES)
    raise ConfigError(
        f"COMFYPIN_EMBEDDED_VERSION is {version!r}; the embedded engine can be {known}.",
        variable="COMFYPIN_EMBEDDED_VERSION",
        value=version,
    )
