"""`comfypin lock create`: a lock from repositories, requirements and models."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import report_progress
from comfypin.cli.lock.common import (
    add_lock_output_flags,
    add_package_flags,
    add_warmup_flags,
    make_lock_places,
    read_question,
    read_warmup,
    require_release_name,
    write_lock,
)
from comfypin.cli.lock.from_file import file_question, read_file_parts
from comfypin.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from comfypin.locking.create import LockRequest

_CREATE = """Make a lock: every ref becomes a commit, all requirements are resolved together to wheels with their
sha256, every model gets its sha256 and size. Nothing is installed. The lock is written to
lockfiles/comfy-NAME.lock.json. With --from the ComfyUI, nodes and models are those of another tool's file, and its
packages are preferred."""


def configure_create(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lock create`."""
    parser.description = _CREATE
    parser.add_argument("name", metavar="NAME", help="the release's name")
    parser.add_argument(
        "--comfyui",
        metavar="URL[@REF]",
        help="ComfyUI's repository with its branch, tag or commit, or a release of ComfyUI's own, such as v0.3.64 "
        "(needed unless FILE names it)",
    )
    _add_file_flags(parser)
    parser.add_argument(
        "--node", metavar="[FOLDER=]URL[@REF]", action="append", default=[], help="a custom node; repeatable"
    )
    parser.add_argument(
        "--install-script",
        metavar="FOLDER|all",
        action="append",
        default=[],
        help="let this node's install.py run when the env is made (default: it is hashed and skipped); repeatable",
    )
    add_package_flags(parser)
    parser.add_argument(
        "--model",
        metavar="[TARGET=]SOURCE",
        action="append",
        default=[],
        help="a model: hf://, https://, ...; repeatable",
    )
    parser.add_argument(
        "--models", metavar="FILE", type=Path, help="models, one spec a line, or as JSON (a list, or any lock)"
    )
    parser.add_argument(
        "--system-package",
        metavar="P|auto",
        action="append",
        default=[],
        help="a Debian package; repeatable; auto: those whose libraries wheels need",
    )
    parser.add_argument("--engine-arg", metavar="ARG", action="append", default=[], help="an argument of ComfyUI")
    add_warmup_flags(parser)
    add_lock_output_flags(parser)
    parser.set_defaults(act=_create_lock)


def _add_file_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("From a file of another tool")
    group.add_argument(
        "--from",
        dest="origin",
        metavar="FILE",
        type=Path,
        help="begin with what this file says: a Dockerfile, a snapshot, a comfy-build.yaml, ... (see lock capture)",
    )
    group.add_argument(
        "--leave-out", metavar="NAME", action="append", default=[], help="leave a part of the file out; repeatable"
    )
    group.add_argument(
        "--only", metavar="NAME", action="append", default=[], help="of the file's models, take this one; repeatable"
    )
    group.add_argument("--no-models", action="store_true", help="leave the file's models out")


def _create_lock(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from comfypin.locking.create import create_lock
    from comfypin.wiring import make_model_describer

    wishes, lock_places = _read_wishes(arguments), make_lock_places(arguments)
    notes: tuple[str, ...] = ()
    installed: tuple[str, ...] = ()
    if arguments.origin is not None:
        wishes, notes, installed = _add_file(wishes, arguments)
    elif arguments.comfyui is None:
        raise UsageError("comfypin lock create needs --comfyui URL@REF, or --from FILE of another tool.")
    made_lock = create_lock(
        wishes, upstreams=lock_places, describe_model=make_model_describer(arguments.settings), report=report_progress
    )
    reported_notes = notes
    if installed:
        from comfypin.locking.from_file import differing_packages

        notes = (*notes, *differing_packages(installed, made_lock.lock))
    return write_lock(replace(made_lock, notes=(*notes, *made_lock.notes)), arguments, reported_notes=reported_notes)


def _read_wishes(arguments: argparse.Namespace) -> "LockRequest":
    """Read from the flags what the lock is made of; without --comfyui its ComfyUI is still to be named."""
    from comfypin.lock.model import EngineSpec
    from comfypin.lock.model_spec import parse_model_spec, read_model_file
    from comfypin.locking.create import LockRequest
    from comfypin.locking.repository_refs import RepoSpec, parse_comfyui_spec, parse_repo_spec

    models = [parse_model_spec(model_text) for model_text in arguments.model]
    engine = read_warmup(arguments, EngineSpec(args=tuple(arguments.engine_arg)))
    return LockRequest(
        name=require_release_name(arguments.name),
        comfyui=parse_comfyui_spec(arguments.comfyui) if arguments.comfyui else RepoSpec(repo=""),
        nodes=tuple(parse_repo_spec(node_text) for node_text in arguments.node),
        packages=tuple(arguments.package),
        requirement_files=tuple(arguments.requirements),
        models=(*models, *(read_model_file(arguments.models) if arguments.models else ())),
        system_packages=tuple(arguments.system_package),
        install_scripts=frozenset(arguments.install_script),
        dropped=frozenset(arguments.drop_requirement),
        engine=engine,
        question=read_question(arguments),
    )


def _add_file(
    wishes: "LockRequest", arguments: argparse.Namespace
) -> "tuple[LockRequest, tuple[str, ...], tuple[str, ...]]":
    """Return the wishes with what the file says, the differences from it, and what was installed there."""
    from dataclasses import replace

    from comfypin.locking.from_file import prefer_installed

    if not arguments.origin.is_file():
        raise ConfigError(f"The file {arguments.origin} of --from is not there.", path=str(arguments.origin))
    parts, _ = read_file_parts(arguments)
    release = parts.release
    question, missing_notes = prefer_installed(release.installed, file_question(arguments, release), report_progress)
    for note in missing_notes:
        report_progress(note)
    # A node of the command line takes the place of the file's in the same folder.
    given_folders = {node.name for node in wishes.nodes}
    wishes = replace(
        wishes,
        comfyui=parts.comfyui,
        nodes=(*(node for node in release.nodes if node.name not in given_folders), *wishes.nodes),
        packages=(*release.requirements, *wishes.packages),
        models=(*release.models, *wishes.models),
        system_packages=tuple(dict.fromkeys((*release.system_packages, *wishes.system_packages))),
        engine=replace(wishes.engine, env={**release.engine_env, **wishes.engine.env}),
        question=question,
    )
    return wishes, (*release.notes, *missing_notes), release.installed
