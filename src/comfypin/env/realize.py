"""Lock to env: the receipt says it is there, or a pack brings it, or it is built; one process at a time, killable.

A build is made under a temporary name, renamed into its place, and only then gets its receipt. Whatever a killed run
left has no receipt, so the next run removes it; what was downloaded stays in the caches.
"""

import errno
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.env.cache.package_cache import PackageCache
from comfypin.env.errors import DiskFull, HomeOccupied, HomeUnusable, PackDamaged, PackUnfit
from comfypin.env.install.build import EnvBuilder
from comfypin.env.install.disk_space import file_system_id, require_space_to_build
from comfypin.env.install.packages import list_vendored_wheels
from comfypin.env.install.sources import SourceLocations
from comfypin.env.interpreter import find_interpreter, is_venv_usable, replace_link, rewire_venv
from comfypin.env.layout import COMFYUI_FOLDER, RECEIPT_FILE, VENV_FOLDER, Home, remove_stale_packings
from comfypin.env.model_paths import are_model_paths_current, write_model_paths
from comfypin.env.pack.progress import ByteReport, ignore_bytes
from comfypin.env.pack.store import PackStore
from comfypin.env.package_selection import Interpreter, machine_name, package_file_name
from comfypin.env.realize_plan import (
    Action,
    EnvRecipe,
    HomeContents,
    RealizePlan,
    build_key,
    make_realize_plan,
    make_recipe,
    pack_name,
    require_pinned,
)
from comfypin.env.receipt import Receipt, read_receipt, write_receipt
from comfypin.folder_use import alone_with, using
from comfypin.lease import Holder, Lease, acquire_lease
from comfypin.lock.codec import render_lock
from comfypin.lock.model import Lock, PackagePin

Report = Callable[[str], None]


def ignore_report(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RealizeOptions:
    """Holds the home to realize into, the locations that sources may come from, and further wishes.

    `pack_store` holds env packs; `publish` stores there what had to be built. `target` names one of the lock's targets.
    """

    home: Home
    models_dir: Path
    locations: SourceLocations
    pack_store: PackStore | None = None
    publish: bool = False
    rebuild: bool = False
    target: str | None = None
    report: Report = ignore_report
    report_bytes: ByteReport = ignore_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RealizedEnv:
    """Describes a complete env: its folder (which an engine is started from), its receipt, what was done, and how long
    it took.
    """

    folder: Path
    receipt: Receipt
    action: Action
    seconds: float
    published: str | None = None


def plan_realize(lock: Lock, options: RealizeOptions, *, where: str) -> RealizePlan:
    """Return what realizing would do; changes nothing. Raises `LockIncomplete`, `NotAnEngine`, `PythonMissing`, ..."""
    require_pinned(lock, where)
    _require_free_names(options.home)
    recipe = make_recipe(lock, _find_lock_interpreter(lock, options), target=options.target)
    return make_realize_plan(recipe, _survey_home(recipe, options), rebuild=options.rebuild)


def realize_env(lock: Lock, options: RealizeOptions, *, where: str = "given") -> RealizedEnv:
    """Make the home hold the env of the lock, whole. Repeatable, and safe beside others that do the same.

    Raises `EnvError` and `LockError` of many kinds; the home then has what it had before.
    """
    started = time.monotonic()
    require_pinned(lock, where)
    _require_free_names(options.home)
    with _map_disk_errors(options.home.root):
        receipt = None if options.rebuild else _keep_env(lock, options)
        realize_action: Action = "keep"
        # A damaged pack is replaced by the env that was built instead of it.
        is_pack_damaged = False
        if receipt is None:
            recipe = make_recipe(lock, _find_lock_interpreter(lock, options), target=options.target)
            receipt, realize_action, is_pack_damaged = _make_env(lock, recipe, options)
        env_folder = options.home.build_folder(receipt.key)
        pack_address = _publish_pack(receipt, options, replace=is_pack_damaged) if realize_action != "unpack" else None
    elapsed_seconds = time.monotonic() - started
    return RealizedEnv(
        folder=env_folder, receipt=receipt, action=realize_action, seconds=elapsed_seconds, published=pack_address
    )


def _keep_env(lock: Lock, options: RealizeOptions) -> Receipt | None:
    """Make the lock's env the current one if it is complete, and return its receipt, else None."""
    receipt = find_complete_receipt(lock, options)
    if receipt is None:
        return None
    # The usual case, at each start of a worker: no lease, and nothing to write.
    if _is_current(lock, receipt, options.home) and are_model_paths_current(
        options.home.build_folder(receipt.key), receipt, lock, options.models_dir
    ):
        return receipt
    # Somebody who collects garbage may be about to remove what is not the current one.
    with acquire_lease(options.home.lease_path(receipt.key), purpose=f"make {lock.version_name} current"):
        receipt = find_complete_receipt(lock, options)
        if receipt is not None:
            _activate_build(lock, receipt, options)
    return receipt


def find_complete_receipt(lock: Lock, options: RealizeOptions) -> Receipt | None:
    """Return the receipt of the lock's env if the env is complete and runs here, else None. Takes milliseconds."""
    machine_type = machine_name(platform.system(), platform.machine())
    env_key = build_key(lock, machine_type, options.target)
    build_folder = options.home.build_folder(env_key)
    receipt = _read_intact_receipt(build_folder, env_key, machine_type)
    # The venv leads to a Python of the machine, which another machine at the same volume may not have.
    return receipt if receipt is not None and is_venv_usable(build_folder, receipt.python) else None


def _find_lock_interpreter(lock: Lock, options: RealizeOptions) -> Interpreter:
    locations = options.locations
    return find_interpreter(
        str(lock.python.version), notes=locations.cache / "interpreters", uv_cache=locations.uv_cache
    )


def _read_intact_receipt(build_folder: Path, env_key: str, machine_type: str) -> Receipt | None:
    """Return the receipt of a finished build for this kind of machine that still has its two halves, else None."""
    receipt = read_receipt(build_folder)
    if receipt is None or receipt.key != env_key or not receipt.platform.endswith(machine_type):
        return None
    # A half can be missing if somebody has cleaned up by hand.
    env_halves = (build_folder / COMFYUI_FOLDER, build_folder / VENV_FOLDER / "lib" / f"python{receipt.python}")
    return receipt if all(half_folder.is_dir() for half_folder in env_halves) else None


def _publish_pack(receipt: Receipt, options: RealizeOptions, *, replace: bool) -> str | None:
    """Store the env's pack if that was requested and it is not stored yet; one process at a time makes it."""
    if not options.publish or options.pack_store is None:
        return None
    pack_key = pack_name(receipt.key, receipt.platform)
    pack_address = options.pack_store.find_pack(pack_key) if not replace else None
    if pack_address is not None:
        return pack_address
    with acquire_lease(options.home.lease_path(receipt.key), purpose="pack an env"):
        options.report("Packing and publishing.")
        return options.pack_store.publish_env(
            options.home.build_folder(receipt.key), pack_key, replace=replace, report_bytes=options.report_bytes
        )


def _make_env(lock: Lock, recipe: EnvRecipe, options: RealizeOptions) -> tuple[Receipt, Action, bool]:
    """Unpack or build under the lease of this build, and make it current; also return whether a pack was damaged."""
    home = options.home

    def waiting(holder: Holder) -> None:
        options.report(f"Waiting for {holder}, which is making this env.")

    is_pack_damaged = False
    lease = acquire_lease(home.lease_path(recipe.key), purpose=f"realize {recipe.version_name}", on_wait=waiting)
    # An env from a pack may need no cache, so it may be impossible to make.
    with suppress(OSError):
        options.locations.cache.mkdir(parents=True, exist_ok=True)
    with lease, using(options.locations.cache):
        _remove_leftovers(home, recipe.key)
        # Surveyed again under the lease: another process may have made the env while we waited.
        realize_plan = make_realize_plan(recipe, _survey_home(recipe, options), rebuild=options.rebuild)
        if realize_plan.action in {"keep", "rewire"}:
            existing_receipt = read_receipt(home.build_folder(recipe.key))
            assert existing_receipt is not None, "the plan saw it"
            if realize_plan.action == "rewire":
                rewire_venv(home.build_folder(recipe.key), recipe.interpreter)
            _activate_build(lock, existing_receipt, options)
            return existing_receipt, realize_plan.action, False
        try:
            receipt = _put_in_place(realize_plan, options, lease)
        except (PackDamaged, PackUnfit) as error:
            options.report(f"{error.message} Building instead.")
            realize_plan = make_realize_plan(recipe, HomeContents())
            receipt = _put_in_place(realize_plan, options, lease)
            # It is replaced when the env is published: the next machine must not fail over it again.
            is_pack_damaged = True
        _activate_build(lock, receipt, options)
        return receipt, realize_plan.action, is_pack_damaged


def _put_in_place(realize_plan: RealizePlan, options: RealizeOptions, lease: Lease) -> Receipt:
    """Make the build under a temporary name, and rename it; leave nothing if that fails."""
    temporary_folder = options.home.new_temporary_folder(realize_plan.recipe.key)
    temporary_folder.mkdir(parents=True)
    try:
        receipt = _fill_build(temporary_folder, realize_plan, options)
        _commit_build(temporary_folder, receipt, options.home, lease)
    finally:
        shutil.rmtree(temporary_folder, ignore_errors=True)
    return receipt


def _fill_build(temporary_folder: Path, realize_plan: RealizePlan, options: RealizeOptions) -> Receipt:
    recipe = realize_plan.recipe
    if realize_plan.action == "unpack" and options.pack_store is not None:
        options.report(f"Unpacking {recipe.pack_name}.")
        receipt = options.pack_store.unpack_env(
            recipe.pack_name, temporary_folder, key=recipe.key, report_bytes=options.report_bytes
        )
        rewire_venv(temporary_folder, recipe.interpreter)
        return receipt
    locations = options.locations
    new_packages = _new_packages(recipe, options)
    require_space_to_build(
        options.home.root, locations.uv_cache, new_packages, offline=locations.offline, proxies=locations.proxies
    )
    builder = EnvBuilder(
        build_folder=temporary_folder,
        recipe=recipe,
        locations=locations,
        report=options.report,
        force_probe=options.rebuild,
    )
    return builder.build_env()


def _new_packages(recipe: EnvRecipe, options: RealizeOptions) -> list[PackagePin]:
    """Return the packages that cannot be linked from this file system's cache, with their files."""
    package_cache = PackageCache(root=options.locations.package_cache, platform=recipe.interpreter.platform_tag)
    can_link = file_system_id(package_cache.root) == file_system_id(options.home.root)
    vendored_wheels = list_vendored_wheels(options.locations)
    return [
        replace(package_pin, url=vendored_wheels[wheel_name].absolute().as_uri())
        if (wheel_name := package_file_name(package_pin)) in vendored_wheels
        else package_pin
        for package_pin in recipe.packages
        if not (can_link and package_cache.has_package(package_pin))
    ]


def _commit_build(temporary_folder: Path, receipt: Receipt, home: Home, lease: Lease) -> None:
    """Rename the build into its place; the receipt is last, so a build without one is never whole."""
    final_folder = home.build_folder(receipt.key)
    # A pack brings a receipt along; between the rename and the new one there must be none.
    (temporary_folder / RECEIPT_FILE).unlink(missing_ok=True)
    # The lease may have been lost while this process was suspended; then another one builds here.
    lease.check()
    if final_folder.exists():
        # Out of the way by a rename: an engine may still run from it.
        final_folder.rename(home.new_temporary_folder(receipt.key))
    temporary_folder.rename(final_folder)
    write_receipt(final_folder, receipt)
    _remove_leftovers(home, receipt.key)


def _activate_build(lock: Lock, receipt: Receipt, options: RealizeOptions) -> None:
    """Make this build the home's current one; every link is relative, so the home may be mounted anywhere.

    One process at a time: the link and the copy of the lock must be of one env.
    """
    home = options.home
    if not _is_current(lock, receipt, home):
        with acquire_lease(home.lease_path("current"), purpose=f"make {lock.version_name} current"):
            # Relative links, because a volume is mounted at different paths in pods and in Serverless workers.
            replace_link(home.current_link, f"builds/{receipt.key}")
            for link_name in (COMFYUI_FOLDER, VENV_FOLDER):
                replace_link(home.root / link_name, f"current/{link_name}")
            lock_bytes = render_lock(lock)
            if not home.lock_copy.is_file() or home.lock_copy.read_bytes() != lock_bytes:
                write_atomically(home.lock_copy, lock_bytes)
    write_model_paths(home.build_folder(receipt.key), receipt, lock, options.models_dir)


def _is_current(lock: Lock, receipt: Receipt, home: Home) -> bool:
    """Return whether the home's links and its copy of the lock are those of this build."""
    targets_by_link = {
        home.current_link: f"builds/{receipt.key}",
        **{home.root / link_name: f"current/{link_name}" for link_name in (COMFYUI_FOLDER, VENV_FOLDER)},
    }
    try:
        return all(str(link.readlink()) == link_target for link, link_target in targets_by_link.items()) and (
            home.lock_copy.read_bytes() == render_lock(lock)
        )
    # A link or the copy is not there, or no link: this home was never made complete.
    except OSError:
        return False


def _survey_home(recipe: EnvRecipe, options: RealizeOptions) -> HomeContents:
    build_folder = options.home.build_folder(recipe.key)
    receipt = _read_intact_receipt(build_folder, recipe.key, recipe.interpreter.machine)
    pack_address = None
    if receipt is None and options.pack_store is not None and not options.rebuild:
        pack_address = options.pack_store.find_pack(recipe.pack_name)
    commit_cache = options.locations.commit_source.cache
    return HomeContents(
        receipt=receipt,
        interpreter_works=is_venv_usable(build_folder, recipe.interpreter.minor_version),
        pack=pack_address,
        commits=frozenset(repository_path.name.removesuffix(".git") for repository_path in commit_cache.glob("*.git")),
    )


def _remove_leftovers(home: Home, env_key: str) -> None:
    """Remove what other runs for this key left; only the holder of the key's lease works on it.

    An env that was built anew while an engine ran from it goes when that engine has ended.
    """
    for temporary_path in home.list_temporary_folders(env_key):
        with alone_with(temporary_path) as is_alone:
            if is_alone:
                shutil.rmtree(temporary_path, ignore_errors=True)
    remove_stale_packings(home.builds_folder)


def _require_free_names(home: Home) -> None:
    for checked_path in (home.current_link, home.root / COMFYUI_FOLDER, home.root / VENV_FOLDER):
        if checked_path.exists() and not checked_path.is_symlink():
            raise HomeOccupied(path=checked_path)
    if home.root.exists() and not home.root.is_dir():
        raise HomeUnusable(path=home.root, reason="it is not a folder")


@contextmanager
def _map_disk_errors(home_root: Path) -> Iterator[None]:
    """Raise what the file system refuses as one of our errors."""
    try:
        yield
    except OSError as error:
        # A full quota is a full disk to its user.
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(where=home_root) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise HomeUnusable(path=home_root, reason=error.strerror or str(error)) from error
        raise
