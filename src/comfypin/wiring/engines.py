"""Engines: choose the one that a lock and the flags name, and open it."""

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
    from pathlib import Path

    from comfypin.engine.client import HttpEngine
    from comfypin.engine.command import ChildSpec
    from comfypin.lock.model import EngineKind, EngineSpec
    from comfypin.settings.environment import Settings
    from comfypin.settings.machine import MachineSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """Holds the engine that the lock and the flags choose, and the settings of this machine.

    `keep_temp` keeps all files of the engine, for debugging. `model_settings` are those that the lock's models
    are placed by if the env is ours: its own home is a folder of one build, theirs is COMFY_HOME. `added_arguments` are
    those that we give the engine; because of them it lacks `left_out_classes`.
    `url_home` is the folder that the ComfyUI at the address is said to run from.
    """

    spec: "EngineSpec"
    settings: "Settings"
    keep_temp: bool = False
    model_settings: "Settings | None" = None
    added_arguments: tuple[str, ...] = ()
    left_out_classes: frozenset[str] = frozenset()
    url_home: "Path | None" = None

    @property
    def kind(self) -> "EngineKind":
        """Return the engine's kind."""
        return self.spec.kind


def choose_engine(
    spec: "EngineSpec",
    settings: "Settings",
    *,
    kind: "EngineKind | None" = None,
    engine_url: str | None = None,
    keep_temp: bool = False,
    url_home: "Path | None" = None,
) -> EngineChoice:
    """Return the lock's engine, or the one that the flags name; never fall back to another.

    Raises `UsageError` for flags that contradict each other, `ConfigError` for a remote engine without an address.
    """
    if engine_url is not None and kind not in (None, "remote"):
        raise UsageError(f"--engine-url only works with --engine remote, not with --engine {kind}; drop one of them.")
    # An address alone means a remote engine.
    chosen_kind = kind or ("remote" if engine_url is not None else spec.kind)
    engine_url = engine_url or spec.url
    if chosen_kind == "remote" and engine_url is None:
        raise ConfigError(
            "The engine is remote, but neither --engine-url nor engine.url in the lock gives its address."
        )
    return EngineChoice(
        spec=replace(spec, kind=chosen_kind, url=engine_url),
        settings=settings,
        keep_temp=keep_temp,
        url_home=url_home if chosen_kind == "remote" else None,
    )


@asynccontextmanager
async def open_engine(engine_choice: EngineChoice) -> AsyncIterator["HttpEngine"]:
    """Yield the engine, started unless it is remote; stop it and remove its files when the block ends.

    Raises `EngineNotFound`, `EngineUrlInvalid`, `EngineStartFailed`.
    """
    # Killed runs leave their folders; in a thread, since it walks the disk.
    await asyncio.to_thread(sweep_temp_folders)
    if engine_choice.spec.kind == "remote":
        from comfypin.engine.remote import open_remote

        async with open_remote(engine_choice.spec.url or "") as engine:
            yield engine
        return
    from comfypin.engine.standby import open_child

    child_spec = _make_child(engine_choice)
    # Nobody removes the env while its engine runs.
    env = using(engine_choice.settings.machine.comfy_home) if engine_choice.kind == "comfyui" else nullcontext()
    with env, temp_folder("engine", keep=engine_choice.keep_temp) as temp_path:
        # Without its path nobody would find the temporary folder again.
        if engine_choice.keep_temp:
            log.warning(
                "the engine's files stay in %s",
                temp_path,
                extra={"action": "engine_files_kept", "path": str(temp_path)},
            )
        standby = engine_choice.settings.machine.engine_standby
        async with open_child(child_spec, temp_path, keep_temp=engine_choice.keep_temp, standby=standby) as engine:
            yield engine


def _make_child(engine_choice: EngineChoice) -> "ChildSpec":
    from comfypin.engine.command import comfyui_child, embedded_child, has_gpu
    from comfypin.storage.registry import variable_prefixes

    machine, inherited = engine_choice.settings.machine, engine_choice.settings.variables
    if engine_choice.spec.kind == "embedded":
        return embedded_child(
            engine_choice.spec,
            inherited,
            version=_embedded_version(machine),
            secret_prefixes=variable_prefixes(),
        )
    # Only here: the other engines have no env, and need not load what makes one.
    from comfypin.env.layout import RECEIPT_FILE

    return comfyui_child(
        machine.comfy_home,
        replace(engine_choice.spec, args=(*engine_choice.spec.args, *engine_choice.added_arguments)),
        inherited,
        gpu=has_gpu(inherited),
        # An env of ours has its own Python.
        python=None if (machine.comfy_home / RECEIPT_FILE).is_file() else machine.comfy_python,
        # A default that is not there would only be listed in the engine's log, folder by folder.
        models_dir=machine.models_dir if machine.named_models_dir or machine.models_dir.is_dir() else None,
        fast_models_dir=machine.fast_models_dir,
        secret_prefixes=variable_prefixes(),
    )


def _embedded_version(machine: "MachineSettings") -> str | None:
    """Return the ComfyUI version that the embedded engine imitates, if one is set. Raises `ConfigError`."""
    from comfypin.engine.embedded.releases import RELEASES

    version = machine.embedded_version
    if version is None or version in RELEASES:
        return version
    known_versions = " or ".join(RELEASES)
    raise ConfigError(
        f"COMFYPIN_EMBEDDED_VERSION is {version!r}; the embedded engine imitates {known_versions}.",
        variable="COMFYPIN_EMBEDDED_VERSION",
        value=version,
    )
