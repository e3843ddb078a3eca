"""Lock to env: the receipt says it is there, or a pack brings it, or it is built; one process at a time, killable.

A build is made under a temporary name, renamed into its place, and only then gets its receipt. Whatever a killed run
left has no receipt, so the next run removes it; what was downloaded stays in the caches.
"""

import errno
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.env.cache.package_cache import PackageCache
from comfypin.env.errors import DiskFull, HomeOccupied, HomeUnusable, PackDamaged, PackUnfit
from comfypin.env.install.build import Build
from comfypin.env.install.disk_space import device, require_space_to_build
from comfypin.env.install.packages import vendored_wheels
from comfypin.env.install.sources import SourcePlaces
from comfypin.env.interpreter import find_interpreter, replace_link, rewire, works
from comfypin.env.layout import COMFYUI, RECEIPT, VENV, Home, sweep_packings
from comfypin.env.model_paths import write_model_paths
from comfypin.env.pack.store import Shelf
from comfypin.env.package_selection import Interpreter, file_name, machine_name
from comfypin.env.realize_plan import (
    Action,
    Plan,
    Recipe,
    Survey,
    key_of,
    make_plan,
    make_recipe,
    pack_name,
    require_pinned,
)
from comfypin.env.receipt import Receipt, read_receipt, write_receipt
from comfypin.lease import Holder, Lease, acquire_lease
from comfypin.lock.codec import render_lock
from comfypin.lock.model import Lock, PackagePin

Tell = Callable[[str], None]


def silent(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RealizeOptions:
    """Where to realize, from where things may come, and what was asked for beside.

    `shelf` holds env packs; `publish` stores there what had to be built. `target` names one of the lock's targets.
    """

    home: Home
    models_dir: Path
    places: SourcePlaces
    shelf: Shelf | None = None
    publish: bool = False
    rebuild: bool = False
    target: str | None = None
    tell: Tell = silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Realized:
    """An env that is whole: its folder (what an engine is started from), its receipt, what was done, and how long."""

    folder: Path
    receipt: Receipt
    action: Action
    seconds: float
    published: str | None = None


def plan_realize(lock: Lock, options: RealizeOptions, *, where: str) -> Plan:
    """What realizing would do; changes nothing. Raises `LockIncomplete`, `NotAnEngine`, `PythonMissing`, ..."""
    require_pinned(lock, where)
    _require_free_names(options.home)
    recipe = make_recipe(lock, _interpreter(lock, options), target=options.target)
    return make_plan(recipe, _survey(recipe, options), rebuild=options.rebuild)


def realize(lock: Lock, options: RealizeOptions, *, where: str = "given") -> Realized:
    """Make the home hold the env of the lock, whole. Repeatable, and safe beside others that do the same.

    Raises `EnvError` and `LockError` of many kinds; the home then has what it had before.
    """
    started = time.monotonic()
    require_pinned(lock, where)
    _require_free_names(options.home)
    with _disk_errors(options.home.root):
        receipt = None if options.rebuild else whole_receipt(lock, options)
        action: Action = "keep"
        damaged_pack = False
        if receipt is None:
            recipe = make_recipe(lock, _interpreter(lock, options), target=options.target)
            receipt, action, damaged_pack = _make(recipe, options)
        folder = options.home.build(receipt.key)
        _activate(lock, receipt, options)
        published = _publish(receipt, options, replace=damaged_pack) if action != "unpack" else None
    seconds = time.monotonic() - started
    return Realized(folder=folder, receipt=receipt, action=action, seconds=seconds, published=published)


def whole_receipt(lock: Lock, options: RealizeOptions) -> Receipt | None:
    """The receipt of the lock's env where it is whole and runs here; None where there is work to do. Takes ms."""
    machine = machine_name(platform.system(), platform.machine())
    key = key_of(lock, machine, options.target)
    build = options.home.build(key)
    receipt = _intact(build, key, machine)
    return receipt if receipt is not None and works(build, receipt.python) else None


def _interpreter(lock: Lock, options: RealizeOptions) -> Interpreter:
    places = options.places
    return find_interpreter(str(lock.python.version), notes=places.cache / "interpreters", uv_cache=places.uv_cache)


def _intact(build: Path, key: str, machine: str) -> Receipt | None:
    """The receipt of a build that was finished, for this kind of machine, and still has its two halves."""
    receipt = read_receipt(build)
    if receipt is None or receipt.key != key or not receipt.platform.endswith(machine):
        return None
    halves = (build / COMFYUI, build / VENV / "lib" / f"python{receipt.python}")
    return receipt if all(half.is_dir() for half in halves) else None


def _publish(receipt: Receipt, options: RealizeOptions, *, replace: bool) -> str | None:
    """Store the env's pack where that was asked for and it is not there yet; one process at a time makes it."""
    if not options.publish or options.shelf is None:
        return None
    name = pack_name(receipt.key, receipt.platform)
    found = options.shelf.find(name) if not replace else None
    if found is not None:
        return found
    with acquire_lease(options.home.lease(receipt.key), purpose="pack an env"):
        options.tell("Packing and publishing.")
        return options.shelf.publish(options.home.build(receipt.key), name, replace=replace)


def _make(recipe: Recipe, options: RealizeOptions) -> tuple[Receipt, Action, bool]:
    """Unpack or build, under the lease of this build; also whether a pack was found damaged."""
    home = options.home

    def waiting(holder: Holder) -> None:
        options.tell(f"Waiting for {holder}, which makes this env.")

    damaged = False
    lease = acquire_lease(home.lease(recipe.key), purpose=f"realize {recipe.version_name}", on_wait=waiting)
    with lease:
        _sweep(home, recipe.key)
        plan = make_plan(recipe, _survey(recipe, options), rebuild=options.rebuild)
        if plan.action in {"keep", "rewire"}:
            found = read_receipt(home.build(recipe.key))
            assert found is not None, "the plan saw it"
            if plan.action == "rewire":
                rewire(home.build(recipe.key), recipe.interpreter)
            return found, plan.action, False
        try:
            receipt = _put_in_place(plan, options, lease)
        except (PackDamaged, PackUnfit) as error:
            options.tell(f"{error.message} Building instead.")
            plan = make_plan(recipe, Survey())
            receipt = _put_in_place(plan, options, lease)
            damaged = True
        return receipt, plan.action, damaged


def _put_in_place(plan: Plan, options: RealizeOptions, lease: Lease) -> Receipt:
    """Make the build under a temporary name, and rename it; nothing is left where that fails."""
    temporary = options.home.temporary(plan.recipe.key)
    temporary.mkdir(parents=True)
    try:
        receipt = _fill(temporary, plan, options)
        _commit(temporary, receipt, options.home, lease)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return receipt


def _fill(temporary: Path, plan: Plan, options: RealizeOptions) -> Receipt:
    recipe = plan.recipe
    if plan.action == "unpack" and options.shelf is not None:
        options.tell(f"Unpacking {recipe.pack_name}.")
        receipt = options.shelf.unpack(recipe.pack_name, temporary, key=recipe.key)
        rewire(temporary, recipe.interpreter)
        return receipt
    places = options.places
    new = _new_packages(recipe, options)
    require_space_to_build(options.home.root, places.uv_cache, new, offline=places.offline)
    build = Build(folder=temporary, recipe=recipe, places=places, tell=options.tell, anew=options.rebuild)
    return build.make()


def _new_packages(recipe: Recipe, options: RealizeOptions) -> list[PackagePin]:
    """The packages that will not be links to what this file system has already, with the files that they come from."""
    cache = PackageCache(root=options.places.packages, platform=recipe.interpreter.platform)
    links = device(cache.root) == device(options.home.root)
    wheels = vendored_wheels(options.places)
    return [
        replace(pin, url=wheels[name].absolute().as_uri()) if (name := file_name(pin)) in wheels else pin
        for pin in recipe.packages
        if not (links and cache.holds(pin))
    ]


def _commit(temporary: Path, receipt: Receipt, home: Home, lease: Lease) -> None:
    """Rename the build into its place; the receipt is last, so a build without one is never whole."""
    final = home.build(receipt.key)
    (temporary / RECEIPT).unlink(missing_ok=True)
    lease.check()
    if final.exists():
        final.rename(home.temporary(receipt.key))
    temporary.rename(final)
    write_receipt(final, receipt)
    _sweep(home, receipt.key)


def _activate(lock: Lock, receipt: Receipt, options: RealizeOptions) -> None:
    """Make this build the home's current one; every link is relative, so the home may be mounted anywhere."""
    home = options.home
    replace_link(home.current, f"builds/{receipt.key}")
    for name in (COMFYUI, VENV):
        replace_link(home.root / name, f"current/{name}")
    data = render_lock(lock)
    if not home.lock_copy.is_file() or home.lock_copy.read_bytes() != data:
        write_atomically(home.lock_copy, data)
    write_model_paths(home.build(receipt.key), receipt, lock, options.models_dir)


def _survey(recipe: Recipe, options: RealizeOptions) -> Survey:
    build = options.home.build(recipe.key)
    receipt = _intact(build, recipe.key, recipe.interpreter.machine)
    pack = None
    if receipt is None and options.shelf is not None and not options.rebuild:
        pack = options.shelf.find(recipe.pack_name)
    kept = options.places.commits.cache
    return Survey(
        receipt=receipt,
        interpreter_works=works(build, recipe.interpreter.minor),
        pack=pack,
        commits=frozenset(path.name.removesuffix(".git") for path in kept.glob("*.git")),
    )


def _sweep(home: Home, key: str) -> None:
    """Remove what other runs for this key left; whoever holds the key's lease is the only one that works on it."""
    for path in home.temporaries(key):
        shutil.rmtree(path, ignore_errors=True)
    sweep_packings(home.builds)


def _require_free_names(home: Home) -> None:
    for path in (home.current, home.root / COMFYUI, home.root / VENV):
        if path.exists() and not path.is_symlink():
            raise HomeOccupied(path=path)
    if home.root.exists() and not home.root.is_dir():
        raise HomeUnusable(path=home.root, reason="it is not a folder")


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """What the file system refuses, as one of our errors."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(where=root) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise HomeUnusable(path=root, reason=error.strerror or str(error)) from error
        raise
