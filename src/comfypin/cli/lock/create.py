"""`comfypin lock create`: a lock from repositories, requirements and models."""

import argparse
from pathlib import Path

from comfypin.cli.common import report_progress
from comfypin.cli.lock.common import (
    add_lock_output_flags,
    add_package_flags,
    make_lock_places,
    read_question,
    require_release_name,
    write_lock,
)

_CREATE = """Make a lock: every ref becomes a commit, all requirements are resolved together to wheels with their
sha256, every model gets its sha256 and size. Nothing is installed. The lock is written to
lockfiles/comfy-NAME.lock.json."""


def configure_create(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lock create`."""
    parser.description = _CREATE
    parser.add_argument("name", metavar="NAME", help="the release's name")
    parser.add_argument(
        "--comfyui", metavar="URL[@REF]", required=True, help="ComfyUI's repository: branch, tag, commit"
    )
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
        "--system-package", metavar="P", action="append", default=[], help="a Debian package; repeatable"
    )
    parser.add_argument("--engine-arg", metavar="ARG", action="append", default=[], help="an argument of ComfyUI")
    add_lock_output_flags(parser)
    parser.set_defaults(act=_create_lock)


def _create_lock(arguments: argparse.Namespace) -> int:
    from comfypin.lock.model import EngineSpec
    from comfypin.lock.model_spec import parse_model_spec, read_model_file
    from comfypin.locking.create import LockRequest, create_lock
    from comfypin.locking.repository_refs import parse_repo_spec
    from comfypin.wiring import make_model_describer

    models = [parse_model_spec(text) for text in arguments.model]
    wishes = LockRequest(
        name=require_release_name(arguments.name),
        comfyui=parse_repo_spec(arguments.comfyui),
        nodes=tuple(parse_repo_spec(text) for text in arguments.node),
        packages=tuple(arguments.package),
        requirement_files=tuple(arguments.requirements),
        models=(*models, *(read_model_file(arguments.models) if arguments.models else ())),
        system_packages=tuple(arguments.system_package),
        install_scripts=frozenset(arguments.install_script),
        dropped=frozenset(arguments.drop_requirement),
        engine=EngineSpec(args=tuple(arguments.engine_arg)),
        question=read_question(arguments),
    )
    return write_lock(
        create_lock(
            wishes,
            upstreams=make_lock_places(arguments),
            describe_model=make_model_describer(arguments.settings),
            report=report_progress,
        ),
        arguments,
    )
