"""The lock of `comfypin runpod up`: the one that is named, or one made from the workflow."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import report_progress
from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.errors import EnvError
    from comfypin.lock.model import Lock
    from comfypin.locking.create import LockRequest
    from comfypin.locking.from_workflow import ResolvedNeeds
    from comfypin.locking.repository_refs import RepoSpec
    from comfypin.locking.resolve import ResolveRequest
    from comfypin.locking.workflow_needs import WorkflowNeeds
    from comfypin.runpod.up.state import StateFolder, UpState

_OFFLINE_FINDING = (
    "the lock: --offline keeps it from being made, which takes ComfyUI's sources and package indexes; name one by "
    "--lock FILE, or leave out --offline once"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpLock:
    """A lock with its bytes and digest, and what it was made from, so that the same question is not asked twice."""

    lock: "Lock"
    data: bytes
    digest: str
    request: str = ""
    package_request: str = ""


def add_lock_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which release the workflow runs on."""
    flags = parser.add_argument_group("the release")
    flags.add_argument("--lock", metavar="FILE|NAME", help="a lock that exists (default: one made from the workflow)")
    flags.add_argument(
        "--lock-url", metavar="URL", help="where workers can read the lock's file, if it is too large for a variable"
    )
    flags.add_argument(
        "--comfyui", metavar="URL[@REF]", help="ComfyUI's repository (default: the release that the workflow names)"
    )
    flags.add_argument(
        "--node", metavar="[FOLDER=]URL[@REF]", action="append", default=[], help="choose a node pack; repeatable"
    )
    flags.add_argument(
        "--model",
        metavar="[TARGET=]SOURCE",
        action="append",
        default=[],
        help="choose the source of a model; repeatable",
    )
    flags.add_argument(
        "--unneeded", metavar="NAME", action="append", default=[], help="a class, pack or model that is not needed"
    )
    flags.add_argument(
        "--package", metavar="P", action="append", default=[], help="one more requirement (PEP 508); repeatable"
    )
    flags.add_argument("--python", metavar="X.Y", help="the Python version, as in lock create")
    flags.add_argument("--torch", metavar="BUILD", help="the build of torch, as in lock create")
    flags.add_argument("--install-script", metavar="FOLDER|all", action="append", default=[], help="as in lock create")


def obtain_lock(
    arguments: argparse.Namespace,
    deployment_name: str,
    workflow: tuple[str, Mapping[str, object]],
    folder: "StateFolder",
    *,
    may_make: bool = True,
) -> UpLock:
    """Return the lock: the named one, the one of the same question before, or a new one if `may_make`.

    Raises `UpUndecided` with everything that the workflow leaves open, and what making locks raises.
    """
    from comfypin.lock.codec import lock_digest, parse_lock, render_lock
    from comfypin.locking.workflow_needs import collect_needs
    from comfypin.runpod.up.errors import UpUndecided

    state = folder.read()
    if arguments.lock is not None:
        from comfypin.cli.common import read_named_lock

        lock = read_named_lock(arguments.lock, arguments.settings)[1].lock
        return UpLock(lock=lock, data=render_lock(lock), digest=str(lock_digest(lock)))
    request = _digest_of_request(arguments, deployment_name, workflow[1])
    kept_path = folder.lock_path(state.lock_answer)
    if state.lock_request == request and kept_path.is_file():
        lock_bytes = kept_path.read_bytes()
        return UpLock(
            lock=parse_lock(lock_bytes, where=str(kept_path)).lock,
            data=lock_bytes,
            digest=state.lock_answer,
            request=request,
            package_request=state.package_request,
        )
    comfyui, settled = _settle(arguments, collect_needs([workflow]))
    if not may_make:
        raise UpUndecided(source=arguments.workflow, findings=[])
    lock, package_request = _make_lock(arguments, deployment_name, (comfyui, settled), folder, state)
    return UpLock(
        lock=lock,
        data=render_lock(lock),
        digest=str(lock_digest(lock)),
        request=request,
        package_request=package_request,
    )


def _digest_of_request(arguments: argparse.Namespace, deployment_name: str, content: Mapping[str, object]) -> str:
    import json

    from comfypin.digest import Digest

    flags = {flag: getattr(arguments, flag) for flag in ("comfyui", "node", "model", "unneeded", "package")}
    flags |= {flag: getattr(arguments, flag) for flag in ("python", "torch", "install_script")}
    return Digest.of(json.dumps([deployment_name, content, flags], sort_keys=True).encode()).hex


def _make_lock(
    arguments: argparse.Namespace,
    deployment_name: str,
    wanted: "tuple[RepoSpec, ResolvedNeeds]",
    folder: "StateFolder",
    state: "UpState",
) -> "tuple[Lock, str]":
    from comfypin.digest import Digest
    from comfypin.lock.codec import parse_lock
    from comfypin.lock.model_spec import pin_models
    from comfypin.locking.create import LockRequest, create_lock
    from comfypin.wiring import make_lock_places, make_model_describer

    comfyui, settled = wanted
    wishes = LockRequest(
        name=deployment_name,
        comfyui=comfyui,
        nodes=settled.nodes,
        packages=tuple(arguments.package),
        models=settled.models,
        install_scripts=frozenset(arguments.install_script),
        question=_question(arguments),
    )
    # What the packages were resolved for, by commit, since refs move: if it is the same, only the models are new.
    package_request = Digest.of(repr((replace(wishes, models=()), _commits_of(wishes))).encode()).hex
    describe_model = make_model_describer(arguments.settings)
    kept_path = folder.lock_path(state.lock_answer)
    if state.package_request == package_request and kept_path.is_file():
        earlier_lock = parse_lock(kept_path.read_bytes(), where=str(kept_path)).lock
        models = pin_models(settled.models, describe_model, report=report_progress)
        return replace(earlier_lock, models=models), package_request
    made = create_lock(
        wishes,
        upstreams=make_lock_places(arguments.settings),
        describe_model=describe_model,
        report=report_progress,
    )
    for note in made.notes:
        report_progress(note)
    return _refuse_secrets(made.lock), package_request


def _commits_of(wishes: "LockRequest") -> list[str]:
    """Return the commits that the refs of ComfyUI and the nodes mean now; the registry's versions do not move."""
    from comfypin.locking.node_registry import REGISTRY_SCHEME
    from comfypin.tools.git_remote import resolve_ref

    repositories = [spec for spec in (wishes.comfyui, *wishes.nodes) if not spec.repo.startswith(REGISTRY_SCHEME)]
    return [resolve_ref(spec.repo, spec.ref) for spec in repositories]


def _settle(arguments: argparse.Namespace, needs: "WorkflowNeeds") -> "tuple[RepoSpec, ResolvedNeeds]":
    """Return ComfyUI and what the workflow needs of nodes and models. Raises `UpUndecided`, and git's errors."""
    from comfypin.errors import EnvError
    from comfypin.lock.model_spec import parse_model_spec
    from comfypin.locking.from_workflow import NeedsResolver, resolve_needs
    from comfypin.locking.repository_refs import parse_repo_spec
    from comfypin.runpod.up.errors import UpUndecided
    from comfypin.wiring import make_lock_places

    given_nodes = [parse_repo_spec(node_text) for node_text in arguments.node]
    choice = _choose_comfyui(arguments, needs.core_versions)
    unread: EnvError | None = None
    builtin = frozenset(needs.classes)
    if needs.classes and choice.looked_up is not None:
        try:
            builtin = _known_classes(arguments, choice.looked_up, given_nodes)
        # What else is open is told all the same.
        except EnvError as error:
            unread = error
    resolver = NeedsResolver(
        registry=None if arguments.offline else make_lock_places(arguments.settings).registry,
        builtin=builtin,
        given=given_nodes,
        given_models=[parse_model_spec(model_text) for model_text in arguments.model],
        unneeded=frozenset(arguments.unneeded),
    )
    settled = resolve_needs(needs, resolver, report=report_progress)
    findings = [*choice.findings, *settled.ambiguous, *settled.unknown]
    if findings and needs.classes and (choice.looked_up is None or unread is not None):
        findings.append(_unread_finding(needs.classes, unread))
    if findings or choice.comfyui is None:
        raise UpUndecided(source=arguments.workflow, findings=findings)
    if unread is not None:
        raise unread
    return choice.comfyui, settled


def _known_classes(
    arguments: argparse.Namespace, comfyui: "RepoSpec", given_nodes: "Sequence[RepoSpec]"
) -> frozenset[str]:
    from comfypin.locking.from_workflow import known_classes
    from comfypin.wiring import make_lock_places

    return known_classes(comfyui, given_nodes, make_lock_places(arguments.settings))


def _unread_finding(classes: tuple[str, ...], unread: "EnvError | None") -> str:
    """Return the warning that more may be open, for node classes that no pack is named for."""
    shown_names = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
    why = "no ComfyUI is chosen" if unread is None else unread.message.rstrip(".")
    return f"which node classes are not ComfyUI's own ({shown_names}) is not known yet: {why}; choose by --comfyui"


@dataclass(frozen=True, slots=True, kw_only=True)
class _ComfyuiChoice:
    """The ComfyUI that is chosen, else findings; `looked_up` is the one whose node classes count until then."""

    comfyui: "RepoSpec | None" = None
    looked_up: "RepoSpec | None" = None
    findings: tuple[str, ...] = ()


def _choose_comfyui(arguments: argparse.Namespace, core_versions: tuple[str, ...]) -> _ComfyuiChoice:
    from comfypin.errors import ComfypinError
    from comfypin.locking.repository_refs import RepoSpec, parse_comfyui_spec
    from comfypin.runpod.up.comfyui_version import COMFYUI_REPOSITORY, named_version, newest_releases, version_finding
    from comfypin.tools.git_remote import list_refs

    chosen = None
    if arguments.comfyui is not None:
        chosen = parse_comfyui_spec(arguments.comfyui)
    elif (version := named_version(core_versions)) is not None:
        chosen = RepoSpec(repo=COMFYUI_REPOSITORY, ref=f"v{version}")
    if arguments.offline:
        asked_for = () if chosen is not None else (version_finding(core_versions, ()),)
        return _ComfyuiChoice(comfyui=chosen, findings=(*asked_for, _OFFLINE_FINDING))
    if chosen is not None:
        return _ComfyuiChoice(comfyui=chosen, looked_up=chosen)
    try:
        candidates = newest_releases(list_refs(COMFYUI_REPOSITORY))
    # The list of candidates is a service; the finding is there without it.
    except ComfypinError:
        candidates = []
    # Whatever release is chosen, most of its classes are those of the newest.
    newest = RepoSpec(repo=COMFYUI_REPOSITORY, ref=candidates[0]) if candidates else None
    return _ComfyuiChoice(looked_up=newest, findings=(version_finding(core_versions, candidates),))


def _question(arguments: argparse.Namespace) -> "ResolveRequest":
    from comfypin.lock.model import DEFAULT_PYTHON
    from comfypin.lock.requirements import RequirementSet
    from comfypin.lock.torch import BUILD_PATTERN
    from comfypin.locking.resolve import ResolveRequest

    if arguments.torch is not None and not BUILD_PATTERN.fullmatch(arguments.torch):
        raise UsageError(f"--torch {arguments.torch!r} is not a build of torch, such as cpu, cu126 or cu128.")
    return ResolveRequest(
        needs=RequirementSet(),
        python=arguments.python or DEFAULT_PYTHON,
        platforms=("linux-x86_64",),
        torch=arguments.torch,
    )


def _refuse_secrets(lock: "Lock") -> "Lock":
    from comfypin.lock.check import check_lock
    from comfypin.lock.errors import LockInvalid

    if secrets := [finding for finding in check_lock(lock) if finding.rule == "secret"]:
        raise LockInvalid(where="that was made", findings=secrets)
    return lock


def read_up_workflow(path: str) -> tuple[str, Mapping[str, object], bytes]:
    """Return the workflow's format, its content and the file's bytes.

    Raises `WorkflowNotFound`, `WorkflowUnreadable`.
    """
    from comfypin.workflow.errors import WorkflowNotFound
    from comfypin.workflow.read_file import read_workflow_bytes

    try:
        workflow_bytes = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
        raise WorkflowNotFound(path=path, reason=reason) from error
    # What was on the screen names packs and addresses of models; what ran does not.
    document = read_workflow_bytes(workflow_bytes, source=path, prefer="workflow")
    return document.format, document.content, workflow_bytes
