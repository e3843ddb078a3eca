"""`comfypin lock upgrade` and `comfypin lock migrate`: locks from locks."""

import argparse
import sys

from comfypin.cli.common import read_named_lock, report_progress
from comfypin.cli.lock.common import (
    add_lock_output_flags,
    add_package_flags,
    add_resolve_flags,
    make_lock_places,
    read_question,
    require_release_name,
    write_lock,
)
from comfypin.cli.lock.upgrade_check import add_check_flags, check_upgrade
from comfypin.errors import UsageError
from comfypin.lock.model import DEFAULT_PYTHON

_UPGRADE = """Make a new release from another one, and move only what the flags name: ComfyUI, nodes, packages,
models. Other packages keep their versions unless the new requirements forbid it. With --check nothing is written:
without a move it lists what could move, with one what the move would change."""


def configure_upgrade(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lock upgrade`."""
    parser.description = _UPGRADE
    parser.add_argument("--lock", metavar="FILE|NAME", help="the release to start from (default: LOCK_PATH)")
    parser.add_argument("--name", metavar="NEW", help="the new release's name (not needed with --check)")
    parser.add_argument(
        "--comfyui", metavar="REF", nargs="?", const="", help="move ComfyUI: to REF, or to where its ref points now"
    )
    parser.add_argument(
        "--node", metavar="FOLDER[@REF]", action="append", default=[], help="move this node; repeatable"
    )
    parser.add_argument(
        "--package", metavar="P", action="append", default=[], help="move this package: idna (newest), idna==3.7, ..."
    )
    parser.add_argument(
        "--model", metavar="[TARGET=]SOURCE", action="append", default=[], help="add or replace a model"
    )
    parser.add_argument(
        "--system-package",
        metavar="P|auto",
        action="append",
        default=[],
        help="add a Debian package; auto: those whose libraries wheels need",
    )
    parser.add_argument("--torch", metavar="BUILD", help="move to another build of torch")
    parser.add_argument("--python", metavar="X.Y", help="move to another Python")
    add_resolve_flags(parser)
    add_check_flags(parser)
    add_lock_output_flags(parser)
    parser.set_defaults(act=_upgrade_lock)


def _upgrade_lock(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from comfypin.lock.model_spec import parse_model_spec
    from comfypin.locking.upgrade import UpgradeRequest, resolve_request_of, upgrade_lock
    from comfypin.wiring import make_model_describer

    if arguments.name is None and not arguments.check:
        raise UsageError("comfypin lock upgrade needs --name NEW: a release does not change, the new one has a name.")
    _, reading = read_named_lock(arguments.lock, arguments.settings)
    asked_question, known_question = read_question(arguments), resolve_request_of(reading.lock)
    question = replace(
        known_question,
        torch=arguments.torch or known_question.torch,
        python=arguments.python or known_question.python,
        overrides=(*known_question.overrides, *asked_question.overrides),
        wanted_variants=asked_question.wanted_variants,
        indexes=tuple(dict.fromkeys((*asked_question.indexes, *known_question.indexes))),
        # Not inherited: an upgrade without the flag wants the newest.
        exclude_newer=asked_question.exclude_newer,
    )
    moves = UpgradeRequest(
        name=require_release_name(arguments.name or "checked"),
        comfyui=arguments.comfyui or None,
        # The flag without REF is an empty text: move to where the lock's ref points now.
        move_comfyui=arguments.comfyui is not None,
        nodes={folder: new_ref or None for folder, _, new_ref in (text.partition("@") for text in arguments.node)},
        packages=tuple(arguments.package),
        models=tuple(parse_model_spec(text) for text in arguments.model),
        system_packages=tuple(arguments.system_package),
        dropped=frozenset(arguments.drop_requirement),
        question=question if question != known_question else None,
    )
    lock_places = make_lock_places(arguments)
    if arguments.check and moves.is_empty:
        return check_upgrade(reading.lock, None, arguments, lock_places)
    upgraded = upgrade_lock(
        reading.lock,
        moves,
        upstreams=lock_places,
        describe_model=make_model_describer(arguments.settings),
        report=report_progress,
    )
    if arguments.check:
        return check_upgrade(reading.lock, upgraded.lock, arguments, lock_places)
    # On stderr: the result is the lock, and what moved is for people.
    if not arguments.json:
        from comfypin.lock.diff import change_lines, diff_locks

        print("\n".join(change_lines(diff_locks(reading.lock, upgraded.lock))), file=sys.stderr)
    return write_lock(upgraded, arguments)


_MIGRATE = """Write a lock of schema 1 or 2 as schema 3. Without --complete no network is needed: what is not pinned
stays so, and `lock check` lists it. With --complete branches become commits, packages are
resolved again within the versions that the file names, and every model gets its sha256 and size."""


def configure_migrate(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lock migrate`."""
    parser.description = _MIGRATE
    parser.add_argument("--lock", metavar="FILE|NAME", help="the lock to convert (default: LOCK_PATH)")
    parser.add_argument("--name", metavar="NAME", help="the release's name (default: the file's)")
    parser.add_argument("--complete", action="store_true", help="also pin what is not pinned yet; needs the network")
    add_package_flags(parser)
    add_lock_output_flags(parser)
    parser.set_defaults(act=_migrate_lock)


def _migrate_lock(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from comfypin.locking.create import MadeLock
    from comfypin.locking.migrate import complete_lock, migrate_lock
    from comfypin.wiring import make_model_describer

    _, reading = read_named_lock(arguments.lock, arguments.settings)
    migrated = migrate_lock(reading.lock)
    notes = (*(str(warning) for warning in reading.warnings), *migrated.notes)
    new_lock = migrated.lock
    if arguments.name:
        new_lock = replace(new_lock, version_name=require_release_name(arguments.name))
    if arguments.complete:
        # X.Y without the patch release: they share wheels.
        version = arguments.python or ".".join((new_lock.python.version or DEFAULT_PYTHON).split(".")[:2])
        requirements = (*new_lock.python.requirements, *_own_requirements(arguments))
        dropped = (*new_lock.python.dropped, *arguments.drop_requirement)
        python_pins = replace(new_lock.python, requirements=requirements, version=version, dropped=dropped)
        asked_question = replace(read_question(arguments), python=version)
        completed = complete_lock(
            replace(new_lock, python=python_pins),
            asked_question,
            upstreams=make_lock_places(arguments),
            describe_model=make_model_describer(arguments.settings),
            report=report_progress,
        )
        new_lock, notes = completed.lock, (*notes, *completed.notes)
    return write_lock(MadeLock(lock=new_lock, notes=notes), arguments)


def _own_requirements(arguments: argparse.Namespace) -> tuple[str, ...]:
    from comfypin.locking.create import read_own_requirements

    needs = read_own_requirements(arguments.package, arguments.requirements, frozenset(arguments.drop_requirement))
    return tuple(need.text for need in needs.requirements)
