"""Make this machine match a lock: ComfyUI, nodes and packages, proved by a receipt.

A second run changes nothing. If a run is killed, the next one finishes the work.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import add_home_flag, read_named_lock
from comfypin.plurals import format_count, format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from comfypin.cli.console import ProgressReporter
    from comfypin.env.realize import RealizedEnv, RealizeOptions
    from comfypin.env.realize_plan import RealizePlan
    from comfypin.lock.model import Lock


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("lock", nargs="?", metavar="LOCK", help="a lock file, or a release's name (default: LOCK_PATH)")
    parser.add_argument("--lock", dest="lock_flag", metavar="LOCK", help="the lock, as a flag")
    add_home_flag(parser)
    parser.add_argument("--models-dir", type=Path, metavar="DIR", help="the models folder (default: MODELS_DIR)")
    parser.add_argument("--offline", action="store_true", help="use no network: caches, packs and --vendor only")
    parser.add_argument("--vendor", type=Path, metavar="DIR", help="a folder made by `comfypin lock vendor`")
    parser.add_argument("--packs", metavar="DIR|BUCKET", help="the store of env packs (default: COMFYPIN_PACKS)")
    parser.add_argument("--publish", action="store_true", help="store an env that had to be built in --packs")
    parser.add_argument("--no-models", action="store_true", help="leave the lock's models alone")
    parser.add_argument("--rebuild", action="store_true", help="build again even if the env is complete")
    parser.add_argument("--target", metavar="NAME", help="one of the lock's targets, if several fit this machine")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and change nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="show the cause of failures")


def execute(arguments: argparse.Namespace) -> int:
    """Realize, or print the plan."""
    from comfypin.cli.console import open_reporter
    from comfypin.env.realize import plan_realize, realize_env
    from comfypin.errors import UsageError

    if arguments.lock is not None and arguments.lock_flag is not None:
        raise UsageError("The lock is named twice, as LOCK and with --lock; drop one of them.")
    lock_path, reading = read_named_lock(arguments.lock or arguments.lock_flag, arguments.settings)
    for finding in reading.warnings:
        print(f"comfypin: {finding}", file=sys.stderr)
    if arguments.dry_run:
        options = _make_options(arguments)
        plan = plan_realize(reading.lock, options, where=lock_path)
        _print_plan(plan, _measure_plan(plan, reading.lock, options), as_json=arguments.json)
        return 0
    with open_reporter(as_json=arguments.json) as reporter:
        options = _make_options(arguments, reporter)
        realized = realize_env(reading.lock, options, where=lock_path)
    # After the block: downloads have bars of their own.
    if not arguments.no_models:
        _bring_models(arguments, reading.lock, offline=options.locations.offline)
    _print_realized(realized, as_json=arguments.json)
    return 0


def _bring_models(arguments: argparse.Namespace, lock: "Lock", *, offline: bool) -> None:
    from comfypin.cli.model_progress import open_watcher
    from comfypin.wiring import bring_models

    settings = arguments.settings.with_flags(comfy_home=arguments.home, models_dir=arguments.models_dir)
    with open_watcher(as_json=arguments.json, quiet=not lock.models) as watcher:
        bring_models(lock, settings, offline=offline, watcher=watcher)


def _make_options(arguments: argparse.Namespace, reporter: "ProgressReporter | None" = None) -> "RealizeOptions":
    from comfypin.wiring import make_realize_options

    settings = arguments.settings.with_flags(comfy_home=arguments.home, models_dir=arguments.models_dir)
    return make_realize_options(
        settings,
        env_settings=settings.env.with_flags(packs=arguments.packs, vendor=arguments.vendor, offline=arguments.offline),
        publish=arguments.publish,
        rebuild=arguments.rebuild,
        target=arguments.target,
        report=reporter.report_step if reporter is not None else None,
        report_bytes=reporter.report_bytes if reporter is not None else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _PlanSizes:
    """What a build takes: its packages that are not kept on this machine, unpacked, by name; and the lock's models."""

    packages: "Mapping[str, int]"
    kept_packages: int
    models_bytes: int
    free_bytes: int

    @property
    def packages_bytes(self) -> int:
        """Return the bytes of all packages that are to be fetched."""
        return sum(self.packages.values())

    def to_json(self) -> dict[str, int]:
        """Return what `--json` prints of it."""
        return {
            "packages_bytes": self.packages_bytes,
            "kept_packages": self.kept_packages,
            "models_bytes": self.models_bytes,
            "free_bytes": self.free_bytes,
        }

    def __str__(self) -> str:
        largest = sorted(self.packages.items(), key=lambda item: -item[1])[:2]
        named = ", ".join(f"{name} {format_size(size)}" for name, size in largest if size)
        parts = [f"about {format_size(self.packages_bytes)} for packages" + (f" ({named})" if named else "")]
        if self.kept_packages:
            parts.append(f"{format_count(self.kept_packages, 'package')} in the cache already")
        if self.models_bytes:
            parts.append(f"{format_size(self.models_bytes)} of models")
        return f"{'; '.join(parts)}; {format_size(self.free_bytes)} free"


def _measure_plan(plan: "RealizePlan", lock: "Lock", options: "RealizeOptions") -> _PlanSizes | None:
    """Ask the wheels' servers how large they are once unpacked; None if nothing is to be built."""
    from comfypin.atomic_files import free_bytes
    from comfypin.env.cache.package_cache import PackageCache
    from comfypin.env.install.wheel_size import unpacked_sizes

    if plan.action != "build":
        return None
    locations = options.locations
    cache = PackageCache(root=locations.package_cache, platform=plan.recipe.interpreter.platform_tag)
    fetched = [package_pin for package_pin in plan.recipe.packages if not cache.has_package(package_pin)]
    sizes = unpacked_sizes(fetched, offline=locations.offline, proxies=locations.proxies)
    return _PlanSizes(
        packages={package_pin.name: size for package_pin, size in zip(fetched, sizes, strict=True)},
        kept_packages=len(plan.recipe.packages) - len(fetched),
        models_bytes=sum(model_pin.size_bytes or 0 for model_pin in lock.models),
        free_bytes=free_bytes(options.home.root),
    )


def _print_plan(plan: "RealizePlan", sizes: _PlanSizes | None, *, as_json: bool) -> None:
    if as_json:
        size_facts = {} if sizes is None else {"sizes": sizes.to_json()}
        print(json.dumps({**plan.to_json(), **size_facts}, indent=2, sort_keys=True))
        return
    package_count = format_count(len(plan.recipe.packages), "package")
    print(f"{plan.recipe.version_name}: {plan.action} ({plan.recipe.key[:16]}, {package_count})")
    for step in plan.steps:
        print(f"  {step.name:9} {step.subject}: {step.text}")
    if sizes is not None:
        print(f"  {'disk':9} {sizes}")


def _print_realized(realized: "RealizedEnv", *, as_json: bool) -> None:
    receipt = realized.receipt
    if as_json:
        facts = {
            "action": realized.action,
            "folder": str(realized.folder),
            "seconds": round(realized.seconds, 3),
            "published": realized.published,
            "receipt": receipt.to_json(),
        }
        print(json.dumps(facts, indent=2, sort_keys=True))
        return
    what_happened = {"keep": "was complete already", "rewire": "was complete, and is linked to its Python again"}
    what_happened |= {"unpack": "was unpacked", "build": "was built"}
    size = f"{format_count(receipt.files, 'file')}, {format_size(receipt.size_bytes)}"
    print(f"{realized.folder}: {what_happened[realized.action]} in {realized.seconds:.1f} s ({size})")
    if realized.published:
        print(f"published as {realized.published}")
