"""Envs: how a lock is realized and packed, and where its parts come from."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import UsageError
from comfypin.wiring.engines import EngineChoice
from comfypin.wiring.models import bring_models
from comfypin.wiring.stores import open_shelf

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfypin.env.realize import RealizeOptions
    from comfypin.lock.model import Lock
    from comfypin.lock.parts import Places
    from comfypin.settings import EnvSettings, Settings

_FOREIGN = ("ComfyUI/main.py", "main.py")


def realize_options(
    settings: "Settings",
    env: "EnvSettings",
    *,
    publish: bool = False,
    rebuild: bool = False,
    target: str | None = None,
    tell: "Callable[[str], None] | None" = None,
) -> "RealizeOptions":
    """How this machine realizes locks. Raises `UsageError` for flags that do not fit together."""
    from comfypin.env.layout import Home
    from comfypin.env.realize import RealizeOptions, silent
    from comfypin.env.sources import SourcePlaces
    from comfypin.tools.vendor import VendorFolder

    if publish and env.packs is None:
        raise UsageError("--publish needs a place for packs: --packs DIR|BUCKET or COMFYPIN_PACKS.")
    if env.vendor is not None and not env.vendor.is_dir():
        raise UsageError(f"The vendor folder {env.vendor} does not exist.")
    vendor = VendorFolder(root=env.vendor.absolute()) if env.vendor else None
    return RealizeOptions(
        home=Home(root=settings.comfy_home.absolute()),
        models_dir=settings.models_dir.absolute(),
        places=SourcePlaces(cache=env.cache_dir.absolute(), vendor=vendor, offline=env.offline),
        shelf=open_shelf(env.packs) if env.packs else None,
        publish=publish,
        rebuild=rebuild,
        target=target,
        tell=tell or silent,
    )


def ensure_env(
    lock: "Lock", choice: EngineChoice, *, env: "EnvSettings", tell: "Callable[[str], None]"
) -> EngineChoice:
    """The choice with the home that holds the lock's env, realized and its models brought where that was needed.

    Other engines than `comfyui` need none. A ComfyUI in the home that somebody else made is used as it is, and said so.
    Raises `EnvError`, `LockError`, `ModelError`.
    """
    settings = choice.settings
    if choice.kind != "comfyui" or lock.engine.kind != "comfyui":
        return choice
    home = settings.comfy_home
    if not (home / "current").is_symlink() and any((home / path).is_file() for path in _FOREIGN):
        tell(f"{home} holds a ComfyUI that was not realized from this lock: it is used as it is.")
        return choice
    from comfypin.env.realize import realize

    realized = realize(lock, realize_options(settings, env, tell=tell))
    bring_models(lock, settings, offline=env.offline)
    moved = settings.overridden(comfy_home=realized.folder, models_dir=settings.models_dir.absolute())
    return replace(choice, settings=moved)


def env_pack(lock: "Lock", settings: "Settings", env: "EnvSettings", *, tell: "Callable[[str], None]") -> Path:
    """The pack of the lock's env as a file of this machine, realized and packed where that was not done before.

    Raises `EnvError`, `LockError`.
    """
    from comfypin.env.plan import pack_name
    from comfypin.env.realize import realize
    from comfypin.env.shelf import FolderShelf

    realized = realize(lock, realize_options(settings, env, tell=tell))
    name = pack_name(realized.receipt.key, realized.receipt.platform)
    shelves = [FolderShelf(env.cache_dir.absolute() / "packs")]
    if env.packs is not None and isinstance(named := open_shelf(env.packs), FolderShelf):
        shelves.insert(0, named)
    found = next((path for shelf in shelves if (path := shelf.find(name)) is not None), None)
    if found is None:
        tell("Packing the env.")
        shelves[-1].root.mkdir(parents=True, exist_ok=True)
        found = shelves[-1].publish(realized.folder, name)
    return Path(found)


def lock_places(env: "EnvSettings") -> "Places":
    """Where the parts of a lock come from, with the caches that realizing uses too."""
    from comfypin.lock.parts import Places
    from comfypin.lock.registry import Registry
    from comfypin.tools.git import Commits

    cache = env.cache_dir.absolute()
    return Places(
        commits=Commits(cache=cache / "git", offline=env.offline),
        registry=Registry(url=env.registry_url),
        archives=cache / "archives",
    )
