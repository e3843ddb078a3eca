"""Envs: realize and pack a lock, with the sources of its parts."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import UsageError
from comfypin.wiring.engines import EngineChoice
from comfypin.wiring.models import bring_models
from comfypin.wiring.network import http_proxies
from comfypin.wiring.stores import open_pack_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfypin.env.install.sources import SourceLocations
    from comfypin.env.pack.progress import ByteReport
    from comfypin.env.realize import RealizeOptions
    from comfypin.lock.model import Lock
    from comfypin.locking.sources import Upstreams
    from comfypin.settings.env import EnvSettings
    from comfypin.settings.environment import Settings
    from comfypin.tools.vendor_folder import VendorFolder

_FOREIGN_FILES = ("ComfyUI/main.py", "main.py")


def make_realize_options(
    settings: "Settings",
    *,
    env_settings: "EnvSettings | None" = None,
    publish: bool = False,
    rebuild: bool = False,
    target: str | None = None,
    report: "Callable[[str], None] | None" = None,
    report_bytes: "ByteReport | None" = None,
) -> "RealizeOptions":
    """Return how this machine realizes locks. Raises `UsageError` for flags that do not fit together."""
    from comfypin.env.layout import Home
    from comfypin.env.pack.progress import ignore_bytes
    from comfypin.env.realize import RealizeOptions, ignore_report
    from comfypin.tools.vendor_folder import VendorFolder

    env_settings, machine = env_settings or settings.env, settings.machine
    # Said now, not after the env was built.
    if publish and env_settings.packs is None:
        raise UsageError("--publish needs a store for the pack: add --packs DIR|BUCKET, or set COMFYPIN_PACKS.")
    if env_settings.vendor is not None and not env_settings.vendor.is_dir():
        raise UsageError(
            f"The vendor folder {env_settings.vendor} does not exist; make it with comfypin lock vendor DIR."
        )
    vendor = VendorFolder(root=env_settings.vendor.absolute()) if env_settings.vendor else None
    return RealizeOptions(
        home=Home(root=machine.comfy_home.absolute()),
        models_dir=machine.models_dir.absolute(),
        locations=make_source_places(settings, env_settings, vendor=vendor),
        pack_store=open_pack_store(env_settings.packs, settings) if env_settings.packs else None,
        publish=publish,
        rebuild=rebuild,
        target=target,
        report=report or ignore_report,
        report_bytes=report_bytes or ignore_bytes,
    )


def ensure_env(
    lock: "Lock",
    engine_choice: EngineChoice,
    *,
    report: "Callable[[str], None]",
    report_bytes: "ByteReport | None" = None,
) -> EngineChoice:
    """Return the choice with the home of the lock's env; realize it and pull its models if needed.

    Raises `EnvError`, `LockError`, `ModelError`.
    """
    engine_choice = realize_for_engine(lock, engine_choice, report=report, report_bytes=report_bytes)
    if engine_choice.model_settings is not None:
        bring_models(lock, engine_choice.model_settings, offline=engine_choice.model_settings.env.offline)
    return engine_choice


def realize_for_engine(
    lock: "Lock",
    engine_choice: EngineChoice,
    *,
    report: "Callable[[str], None]",
    report_bytes: "ByteReport | None" = None,
) -> EngineChoice:
    """Return the choice with the home of the lock's env, which is realized if needed; its models are not looked at.

    Only the engine `comfyui` has an env. A ComfyUI that comfypin did not install is used as it is; `name_release`
    compares it.
    Raises `EnvError`, `LockError`.
    """
    settings = engine_choice.settings
    if engine_choice.kind != "comfyui" or lock.engine.kind != "comfyui":
        return engine_choice
    comfy_home = settings.machine.comfy_home
    if holds_foreign_comfyui(settings):
        report(f"{comfy_home}: comfypin did not install this ComfyUI; it is compared with the lock and used as it is.")
        return engine_choice
    from comfypin.env.realize import realize_env

    realized = realize_env(lock, make_realize_options(settings, report=report, report_bytes=report_bytes))
    # With a new home, the default models folder would move too.
    realized_settings = settings.with_flags(
        comfy_home=realized.folder, models_dir=settings.machine.models_dir.absolute()
    )
    return replace(engine_choice, settings=realized_settings, model_settings=settings)


def holds_foreign_comfyui(settings: "Settings") -> bool:
    """Return whether COMFY_HOME has a ComfyUI that comfypin did not install."""
    comfy_home = settings.machine.comfy_home
    # An env of ours has the link `current`; a ComfyUI without it was installed by hand.
    return not (comfy_home / "current").is_symlink() and any((comfy_home / path).is_file() for path in _FOREIGN_FILES)


def ensure_env_pack(
    lock: "Lock",
    settings: "Settings",
    *,
    report: "Callable[[str], None]",
    report_bytes: "ByteReport | None" = None,
) -> Path:
    """Return the env pack of the lock as a local file; realize and pack the env if that was not done before.

    Raises `EnvError`, `LockError`.
    """
    from comfypin.env.pack.store import FolderPackStore
    from comfypin.env.realize import realize_env
    from comfypin.env.realize_plan import pack_name

    options = make_realize_options(settings, report=report, report_bytes=report_bytes)
    realized = realize_env(lock, options)
    pack_filename = pack_name(realized.receipt.key, realized.receipt.platform)
    # Ours comes last: it is the one that may be written to.
    pack_stores = [FolderPackStore(settings.env.cache_dir.absolute() / "packs")]
    packs_address = settings.env.packs
    if packs_address is not None and isinstance(
        named_store := open_pack_store(packs_address, settings), FolderPackStore
    ):
        # Only a folder: a pack in a bucket is not a file of this machine.
        pack_stores.insert(0, named_store)
    pack_path = next(
        (path for pack_store in pack_stores if (path := pack_store.find_pack(pack_filename)) is not None), None
    )
    if pack_path is None:
        report("Packing the env.")
        pack_stores[-1].root.mkdir(parents=True, exist_ok=True)
        pack_path = pack_stores[-1].publish_env(realized.folder, pack_filename, report_bytes=options.report_bytes)
    return Path(pack_path)


def make_source_places(
    settings: "Settings", env_settings: "EnvSettings | None" = None, *, vendor: "VendorFolder | None" = None
) -> "SourceLocations":
    """Return the places that an env's sources come from, with the caches of this machine."""
    from comfypin.env.install.sources import SourceLocations

    env_settings = env_settings or settings.env
    return SourceLocations(
        cache=env_settings.cache_dir.absolute(),
        vendor=vendor,
        offline=env_settings.offline,
        named_uv_cache=env_settings.uv_cache,
        proxies=http_proxies(settings),
    )


def make_lock_places(settings: "Settings") -> "Upstreams":
    """Return the places that a lock's parts come from; `realize` uses the same caches."""
    from comfypin.locking.node_registry import NodeRegistry
    from comfypin.locking.sources import Upstreams
    from comfypin.tools.git import CommitSource

    env_settings = settings.env
    cache_folder = env_settings.cache_dir.absolute()
    return Upstreams(
        commits=CommitSource(cache=cache_folder / "git", offline=env_settings.offline),
        registry=NodeRegistry(url=env_settings.registry_url, proxies=http_proxies(settings)),
        archives=cache_folder / "archives",
        proxies=http_proxies(settings),
    )
