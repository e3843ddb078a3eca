"""`comfypin lock capture` and `comfypin lock from-workflow`: locks from an installation or from workflows."""

import argparse
import json
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
from comfypin.errors import LockError, UsageError
from comfypin.lock.model import DEFAULT_PYTHON, EngineSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from comfypin.locking.from_workflow import ResolvedNeeds
    from comfypin.locking.repository_refs import RepoSpec
    from comfypin.locking.sources import Upstreams

_CAPTURE = """Make a lock of an installed ComfyUI (its commit, its nodes, the packages of its venv, its models with
their sha256), or of a file that says what one is made of: a snapshot of ComfyUI-Manager or ComfyUI Desktop, a
comfy-lock.yaml or comfy-build.yaml of comfy-cli, a snapshot.json of comfy-pack, a custom_nodes.json of cog-comfyui,
a model-list.json, a Dockerfile. Packages that a file lists are pinned exactly. The original is not changed."""


def configure_capture(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lock capture`."""
    parser.description = _CAPTURE
    parser.add_argument("name", metavar="NAME", help="the release's name")
    parser.add_argument("--from", dest="origin", metavar="DIR|FILE", type=Path, required=True, help="what to capture")
    parser.add_argument("--allow-dirty", action="store_true", help="store changes of checkouts as diffs in the lock")
    parser.add_argument(
        "--leave-out",
        metavar="NAME",
        action="append",
        default=[],
        help="a node's folder or a package (of a file, also a model); repeatable",
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", default=[], help="of a file's models, take this one; repeatable"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="pin a file's packages although required ones are missing"
    )
    parser.add_argument("--no-verify", action="store_true", help="do not check that the remotes have the commits")
    parser.add_argument("--venv", metavar="DIR", type=Path, help="the venv (default: .venv or venv in or beside DIR)")
    parser.add_argument("--models-dir", metavar="DIR", type=Path, help="the models folder (default: DIR/models)")
    parser.add_argument("--no-models", action="store_true", help="leave the models out")
    parser.add_argument(
        "--comfyui",
        metavar="URL[@REF]",
        help="which ComfyUI a folder without .git holds, or a file is for (a file's default: the one on GitHub)",
    )
    parser.add_argument(
        "--python", metavar="X.Y", help=f"the Python of a file's packages (default: the file's, else {DEFAULT_PYTHON})"
    )
    parser.add_argument("--platform", metavar="OS-MACHINE", action="append", default=[], help="default: linux-x86_64")
    parser.add_argument(
        "--index", metavar="URL", action="append", default=[], help="another package index, searched first"
    )
    add_warmup_flags(parser)
    add_lock_output_flags(parser)
    parser.set_defaults(act=capture_release, torch=None)


def capture_release(arguments: argparse.Namespace) -> int:
    """Capture what --from names, and write the lock."""
    from comfypin.locking.errors import NotComfyUI

    require_release_name(arguments.name)
    if arguments.origin.is_dir():
        return _capture_folder(arguments)
    if arguments.origin.is_file():
        return _capture_file(arguments)
    raise NotComfyUI(where=str(arguments.origin), lacks="such folder or file")


def _capture_folder(arguments: argparse.Namespace) -> int:
    from comfypin.digest_cache import DigestCache
    from comfypin.locking.capture import capture_lock
    from comfypin.locking.capture_request import CaptureRequest
    from comfypin.locking.repository_refs import parse_comfyui_spec
    from comfypin.wiring import find_model_problem

    venv_path = arguments.venv
    wishes = CaptureRequest(
        name=arguments.name,
        folder=arguments.origin.absolute(),
        comfyui=parse_comfyui_spec(arguments.comfyui) if arguments.comfyui else None,
        # --venv may name the interpreter itself.
        interpreter=None if venv_path is None else venv_path / "bin" / "python" if venv_path.is_dir() else venv_path,
        models_dir=arguments.models_dir.absolute() if arguments.models_dir else None,
        allow_dirty=arguments.allow_dirty,
        verify=not arguments.no_verify,
        with_models=not arguments.no_models,
        left_out=frozenset(arguments.leave_out),
        question=read_question(arguments),
        engine=read_warmup(arguments, EngineSpec()),
    )
    digest_cache = DigestCache(arguments.settings.env.cache_dir / "digests.jsonl")
    captured = capture_lock(
        wishes,
        upstreams=make_lock_places(arguments),
        digests=digest_cache,
        report=report_progress,
        find_problem=find_model_problem,
    )
    return write_lock(captured, arguments)


def _capture_file(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from comfypin.locking.create import LockRequest, create_lock
    from comfypin.wiring import make_model_describer

    parts, lock_places = read_file_parts(arguments)
    release = parts.release
    wishes = LockRequest(
        name=arguments.name,
        comfyui=parts.comfyui,
        nodes=release.nodes,
        models=release.models,
        packages=release.requirements,
        installed=release.installed or None,
        allow_missing=arguments.allow_missing,
        system_packages=release.system_packages,
        engine=read_warmup(arguments, EngineSpec(env=release.engine_env)),
        question=file_question(arguments, release),
    )
    made_lock = create_lock(
        wishes, upstreams=lock_places, describe_model=make_model_describer(arguments.settings), report=report_progress
    )
    made_lock = replace(made_lock, notes=(*release.notes, *made_lock.notes))
    return write_lock(made_lock, arguments, reported_notes=release.notes)


_FROM_WORKFLOW = """List what workflows need (node packs, models), and with --name make a lock of it. The node registry
helps to find packs. What is ambiguous or unknown is listed, never guessed: choose with --node, --model or
--unneeded. Exit code 10 while anything is open."""


def configure_from_workflow(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lock from-workflow`."""
    parser.description = _FROM_WORKFLOW
    parser.add_argument(
        "workflows", metavar="WORKFLOW", type=Path, nargs="+", help="in UI or API format, or a file that ComfyUI saved"
    )
    parser.add_argument("--name", metavar="NAME", help="make a release of this name (needs --comfyui)")
    parser.add_argument(
        "--comfyui", metavar="URL[@REF]", help="ComfyUI's repository, which names the classes that need no pack"
    )
    parser.add_argument(
        "--node", metavar="[FOLDER=]URL[@REF]", action="append", default=[], help="choose a node pack; repeatable"
    )
    parser.add_argument(
        "--model",
        metavar="[TARGET=]SOURCE",
        action="append",
        default=[],
        help="choose the source of a model; repeatable",
    )
    parser.add_argument(
        "--unneeded", metavar="NAME", action="append", default=[], help="a class, pack or model that is not needed"
    )
    parser.add_argument("--offline", action="store_true", help="do not query the node registry")
    parser.add_argument("--install-script", metavar="FOLDER|all", action="append", default=[], help="as in lock create")
    add_package_flags(parser)
    add_warmup_flags(parser, first_of="workflow")
    add_lock_output_flags(parser)
    parser.set_defaults(act=_lock_from_workflows)


def _lock_from_workflows(arguments: argparse.Namespace) -> int:
    from comfypin.locking.create import LockRequest, create_lock
    from comfypin.locking.repository_refs import parse_comfyui_spec
    from comfypin.wiring import make_model_describer

    if arguments.name and not arguments.comfyui:
        raise UsageError("--name needs --comfyui URL@REF: no workflow says which ComfyUI it means, by commit.")
    question = read_question(arguments)
    lock_places = make_lock_places(arguments)
    comfyui = parse_comfyui_spec(arguments.comfyui) if arguments.comfyui else None
    settled = _settle_needs(arguments, comfyui, lock_places)
    # Nothing is guessed: an open question means no lock.
    if not settled.complete or not arguments.name or comfyui is None:
        if arguments.json:
            print(json.dumps(settled.to_json(), indent=2, sort_keys=True))
        else:
            print("\n".join(_format_answer(settled)))
        return 0 if settled.complete else LockError.exit_code
    first_workflow: Path = arguments.workflows[0]
    wishes = LockRequest(
        name=require_release_name(arguments.name),
        comfyui=comfyui,
        nodes=settled.nodes,
        packages=tuple(arguments.package),
        requirement_files=tuple(arguments.requirements),
        models=settled.models,
        install_scripts=frozenset(arguments.install_script),
        dropped=frozenset(arguments.drop_requirement),
        engine=EngineSpec() if arguments.no_warmup else read_warmup(arguments, EngineSpec(), default=first_workflow),
        question=question,
    )
    return write_lock(
        create_lock(
            wishes,
            upstreams=lock_places,
            describe_model=make_model_describer(arguments.settings),
            report=report_progress,
        ),
        arguments,
    )


def _settle_needs(
    arguments: argparse.Namespace, comfyui: "RepoSpec | None", lock_places: "Upstreams"
) -> "ResolvedNeeds":
    """Find the packs and models that the workflows need, with the help of the flags."""
    from comfypin.lock.model_spec import parse_model_spec
    from comfypin.locking.from_workflow import NeedsResolver, known_classes, resolve_needs
    from comfypin.locking.repository_refs import parse_repo_spec
    from comfypin.locking.workflow_needs import collect_needs

    given_nodes = [parse_repo_spec(node_text) for node_text in arguments.node]
    workflow_needs = collect_needs([_read_workflow(path) for path in arguments.workflows])
    # Cloning ComfyUI and the packs to read their classes takes long; models alone do not need it.
    builtin = known_classes(comfyui, given_nodes, lock_places) if workflow_needs.classes else frozenset()
    needs_resolver = NeedsResolver(
        registry=None if arguments.offline else lock_places.registry,
        builtin=builtin,
        given=given_nodes,
        given_models=[parse_model_spec(model_text) for model_text in arguments.model],
        unneeded=frozenset(arguments.unneeded),
    )
    return resolve_needs(workflow_needs, needs_resolver, report=report_progress)


def _read_workflow(path: Path) -> "tuple[str, Mapping[str, object]]":
    from comfypin.workflow.errors import WorkflowUnreadable
    from comfypin.workflow.read_file import read_workflow_bytes

    try:
        workflow_bytes = path.read_bytes()
    except OSError as error:
        raise WorkflowUnreadable(source=str(path), reason=error.strerror or str(error)) from error
    # What was on the screen names packs and addresses of models; what ran does not.
    document = read_workflow_bytes(workflow_bytes, source=str(path), prefer="workflow")
    return document.format, document.content


def _format_answer(settled: "ResolvedNeeds") -> "Iterator[str]":
    if settled.core_versions:
        yield f"ComfyUI   saved with {', '.join(settled.core_versions)}"
    for node in settled.nodes:
        yield f"node      {node.name}  {node.repo}{f'@{node.ref}' if node.ref else ''}"
    for model in settled.models:
        yield f"model     {model.target or ''}  {model.sources[0]}"
    yield from (f"ambiguous {ambiguity}" for ambiguity in settled.ambiguous)
    yield from (f"unknown   {unknown_name}" for unknown_name in settled.unknown)
    if settled.complete:
        yield "Everything is known; --name NAME --comfyui URL@REF makes a lock of it."
