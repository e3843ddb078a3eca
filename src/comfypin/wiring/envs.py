"""Envs: how a lock is realized and packed, and where its parts come from."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import UsageError
from comfypin.wiring.engines import EngineChoice
from comfypin.wiring.models import bring_models
from comfypin.wiring.network import http_proxies
from comfypin.wiring.stores import open_shelf

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfypin.env.install.sources import SourceLocations
    from comfypin.env.realize import RealizeOptions
    from comfypin.lock.model import Lock
    from comfypin.locking.sources import Upstreams
    from comfypin.settings.env import EnvSettings
    from comfypin.settings.environment import Settings
    from comfypin.tools.vendor_folder import VendorFolder

_FOREIGN = ("ComfyUI/main.py", "main.py")


def realize_options(
    settings: "Settings",
    *,
    env: "EnvSettings | None" = None,
    publish: bool = False,
    rebuild: bool = False,
    target: str | None = None,
    tell: "Callable[[str], None] | None" = None,
) -> "RealizeOptions":
    """How this machine realizes locks. Raises `UsageError` for flags that do not fit together."""
    from comfypin.env.layout import Home
    from comfypin.env.realize import RealizeOptions, ignore_report
    from comfypin.tools.vendor_folder import VendorFolder

    env, machine = env or settings.env, settings.machine
    if publish and env.packs is None:
        raise UsageError("--publish needs a place for packs: --packs DIR|BUCKET or COMFYPIN_PACKS.")
    if env.vendor is not None and not env.vendor.is_dir():
        raise UsageError(f"The vendor folder {env.vendor} does not exist.")
    vendor = VendorFolder(root=env.vendor.absolute()) if env.vendor else None
    return RealizeOptions(
        home=Home(root=machine.comfy_home.absolute()),
        models_dir=machine.models_dir.absolute(),
        locations=source_places(settings, env, vendor=vendor),
        pack_store=open_shelf(env.packs, settings) if env.packs else None,
        publish=publish,
        rebuild=rebuild,
        target=target,
        report=tell or ignore_report,
    )


def ensure_env(lock: "Lock", choice: EngineChoice, *, tell: "Callable[[str], None]") -> EngineChoice:
    """The choice with the home that holds the lock's env, realized and its models brought where that was needed.

    Other engines than `comfyui` need none. A ComfyUI in the home that somebody else made is used as it is, and said so.
    Raises `EnvError`, `LockError`, `ModelError`.
    """
    settings = choice.settings
    if choice.kind != "comfyui" or lock.engine.kind != "comfyui":
        return choice
    home = settings.machine.comfy_home
    if not (home / "current").is_symlink() and any((home / path).is_file() for path in _FOREIGN):
        tell(f"{home} holds a ComfyUI that was not realized from this lock: it is used as it is.")
        return choice
    from comfypin.env.realize import realize_env

    realized = realize_env(lock, realize_options(settings, tell=tell))
    bring_models(lock, settings, offline=settings.env.offline)
    moved = settings.with_flags(comfy_home=realized.folder, models_dir=settings.machine.models_dir.absolute())
    return replace(choice, settings=moved)


def env_pack(lock: "Lock", settings: "Settings", *, tell: "Callable[[str], None]") -> Path:
    """The pack of the lock's env as a file of this machine, realized and packed where that was not done before.

    Raises `EnvError`, `LockError`.
    """
    from comfypin.env.pack.store import FolderPackStore
    from comfypin.env.realize import realize_env
    from comfypin.env.realize_plan import pack_name

    realized = realize_env(lock, realize_options(settings, tell=tell))
    name = pack_name(realized.receipt.key, realized.receipt.platform)
    shelves = [FolderPackStore(settings.env.cache_dir.absolute() / "packs")]
    packs = settings.env.packs
    if packs is not None and isinstance(named := open_shelf(packs, settings), FolderPackStore):
        shelves.insert(0, named)
    found = next((path for shelf in shelves if (path := shelf.find_pack(name)) is not None), None)
    if found is None:
        tell("Packing the env.")
        shelves[-1].root.mkdir(parents=True, exist_ok=True)
        found = shelves[-1].publish_env(realized.folder, name)
    return Path(found)


def source_places(
    settings: "Settings", env: "EnvSettings | None" = None, *, vendor: "VendorFolder | None" = None
) -> "SourceLocations":
    """Where the sources of an env come from, with the caches of this machine."""
    from comfypin.env.install.sources import SourceLocations

    env = env or settings.env
    return SourceLocations(
        cache=env.cache_dir.absolute(),
        vendor=vendor,
        offline=env.offline,
        named_uv_cache=env.uv_cache,
        proxies=http_proxies(settings),
    )


def lock_places(settings: "Settings") -> "Upstreams":
    """Where the parts of a lock come from, with the caches that realizing uses too."""
    from comfypin.locking.node_registry import NodeRegistry
    from comfypin.locking.sources import Upstreams
    from comfypin.tools.git import CommitSource

    env = settings.env
    cache = env.cache_dir.absolute()
    return Upstreams(
        commits=CommitSource(cache=cache / "git", offline=env.offline),
        registry=NodeRegistry(url=env.registry_url, proxies=http_proxies(settings)),
        archives=cache / "archives",
        proxies=http_proxies(settings),
    )
