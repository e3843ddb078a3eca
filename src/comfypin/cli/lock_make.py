"""The verbs of `comfypin lock` that make a lock: create, capture, from-workflow, upgrade, migrate."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import UsageError
from comfypin.errors.create import ReleaseExists
from comfypin.errors.lock import LockInvalid

if TYPE_CHECKING:
    from comfypin.lock.create import Made
    from comfypin.lock.parts import Places
    from comfypin.lock.resolve import Question

DEFAULT_PYTHON = "3.12"
_CREATE = """Make a lock: every ref becomes a commit, one resolve of all requirements becomes wheels with their sha256,
every model gets its sha256 and size. Nothing is installed. The lock is written to lockfiles/comfy-NAME.lock.json."""


def configure_create(parser: argparse.ArgumentParser) -> None:
    """The flags of `lock create`."""
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
    add_output_flags(parser)
    parser.set_defaults(act=_create)


def add_package_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say how Python packages are resolved."""
    group = parser.add_argument_group("Python packages")
    group.add_argument(
        "--requirements", metavar="F", type=Path, action="append", default=[], help="a requirements file"
    )
    group.add_argument(
        "--package", metavar="P", action="append", default=[], help="a requirement (PEP 508); repeatable"
    )
    group.add_argument("--python", metavar="X.Y", default=None, help=f"the Python version (default: {DEFAULT_PYTHON})")
    group.add_argument(
        "--torch", metavar="BUILD", help="the build of torch: cu128, cu126, cpu, ... (default: the one of PyPI)"
    )
    group.add_argument(
        "--platform",
        metavar="OS-MACHINE",
        action="append",
        default=[],
        help="linux-x86_64 (default), linux-aarch64 or darwin-aarch64; repeatable, for one lock that fits several",
    )
    group.add_argument("--override", metavar="P", action="append", default=[], help="overrule what anybody asks of P")
    group.add_argument(
        "--drop-requirement", metavar="LINE|NAME", action="append", default=[], help="leave a requirement out"
    )
    group.add_argument("--index", metavar="URL", action="append", default=[], help="another package index, asked first")
    group.add_argument("--exclude-newer", metavar="DATE", help="take no package that was uploaded after this date")


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Where the lock goes, and how the command talks."""
    parser.add_argument("--out", metavar="FILE", help="where to write the lock; - is stdout (default: lockfiles/)")
    parser.add_argument("--force", action="store_true", help="replace a release of this name that pins something else")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    parser.add_argument("--verbose", action="store_true", help="say more about failures")


def _question_from(arguments: argparse.Namespace) -> "Question":
    """How packages are to be resolved. Raises `UsageError`."""
    import re

    from comfypin.lock.create import TORCH
    from comfypin.lock.needs import Needs, parse_need
    from comfypin.lock.pylock import PLATFORMS
    from comfypin.lock.resolve import Question

    flags = {"platform": [], "override": [], "index": [], "exclude_newer": None, **vars(arguments)}
    python = arguments.python or DEFAULT_PYTHON
    if not re.fullmatch(r"3\.\d{1,2}(\.\d{1,3})?", python):
        raise UsageError(f"--python {python!r} is not a Python version, such as 3.12.")
    if arguments.torch is not None and not TORCH.fullmatch(arguments.torch):
        raise UsageError(
            f"--torch {arguments.torch!r} is no build of torch; there are cpu, cu126, cu128, rocm6.3, xpu."
        )
    for platform in flags["platform"]:
        if platform not in PLATFORMS:
            raise UsageError(f"--platform {platform!r} is not known; there are {', '.join(PLATFORMS)}.")
    for override in flags["override"]:
        if parse_need(override, "--override") is None:
            raise UsageError(f"--override {override!r} is not a requirement, such as 'numpy<2'.")
    newer = flags["exclude_newer"]
    if newer and not re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?", newer):
        raise UsageError(f"--exclude-newer {newer!r} is not a date, such as 2026-01-31.")
    return Question(
        needs=Needs(),
        python=python,
        platforms=tuple(dict.fromkeys(flags["platform"])) or ("linux-x86_64",),
        torch=arguments.torch,
        overrides=tuple(flags["override"]),
        indexes=tuple(flags["index"]),
        exclude_newer=newer,
    )


def places() -> "Places":
    """Where repositories and archives come from; the caches are those of realize."""
    from comfypin.settings import EnvSettings
    from comfypin.wiring import lock_places

    return lock_places(EnvSettings.from_environment())


def tell(text: str) -> None:
    """One line of progress, on stderr."""
    print(f"comfypin: {text}", file=sys.stderr)


def check_name(name: str) -> str:
    """A release's name, checked. Raises `UsageError`."""
    import re

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
        raise UsageError(f"{name[:80]!r} is not a release's name: letters, digits, '.', '_' and '-', no '.' first.")
    return name


def write_lock(made: "Made", arguments: argparse.Namespace) -> int:
    """Check the lock by reading it back, write it where it belongs, and say what it is."""
    from comfypin.files import write_atomically
    from comfypin.lock.check import check
    from comfypin.lock.codec import lock_digest, parse_lock, render

    data = render(made.lock)
    lock = parse_lock(data, where="that was made").lock
    findings = check(lock)
    if secrets := [finding for finding in findings if finding.rule == "secret"]:
        raise LockInvalid(where="that was made", findings=secrets)
    name = f"lockfiles/comfy-{lock.version_name}.lock.json"
    path = None if arguments.out == "-" else Path(arguments.out or name)
    state = "printed"
    if path is None:
        if not arguments.json:
            sys.stdout.write(data.decode())
    else:
        there = path.read_bytes() if path.is_file() else None
        if there is not None and there != data and not arguments.force:
            raise ReleaseExists(path=str(path))
        state = "unchanged" if there == data else "replaced" if there is not None else "written"
        if there != data:
            write_atomically(path, data)
    for note in made.notes:
        tell(note)
    _say(lock_digest(lock).hex, path, state, made, findings, as_json=arguments.json)
    return 0


def _say(
    digest: str, path: Path | None, state: str, made: "Made", findings: Sequence[object], *, as_json: bool
) -> None:
    from comfypin.errors.lock import Finding
    from comfypin.lock.codec import to_json
    from comfypin.lock.show import finding_lines

    known = [finding for finding in findings if isinstance(finding, Finding)]
    if as_json:
        facts = {
            "path": None if path is None else str(path),
            "state": state,
            "release": made.lock.version_name,
            "lock_digest": f"sha256:{digest}",
            "lock": to_json(made.lock),
            "notes": list(made.notes),
            "findings": [finding.to_json() for finding in known],
        }
        print(json.dumps(facts, indent=2, sort_keys=True))
        return
    for line in finding_lines(known):
        tell(line)
    if path is not None:
        lock = made.lock
        print(
            f"{path} {state}: {len(lock.custom_nodes)} nodes, {len(lock.python.packages)} packages, "
            f"{len(lock.models)} models, sha256:{digest[:12]}"
        )


def _create(arguments: argparse.Namespace) -> int:
    from comfypin.lock.create import Wishes, create
    from comfypin.lock.model import EngineSpec
    from comfypin.lock.modelspec import parse_model_spec, read_model_file
    from comfypin.lock.refs import parse_repo_spec
    from comfypin.wiring import model_describer

    models = [parse_model_spec(text) for text in arguments.model]
    wishes = Wishes(
        name=check_name(arguments.name),
        comfyui=parse_repo_spec(arguments.comfyui),
        nodes=tuple(parse_repo_spec(text) for text in arguments.node),
        packages=tuple(arguments.package),
        requirement_files=tuple(arguments.requirements),
        models=(*models, *(read_model_file(arguments.models) if arguments.models else ())),
        system_packages=tuple(arguments.system_package),
        install_scripts=frozenset(arguments.install_script),
        dropped=frozenset(arguments.drop_requirement),
        engine=EngineSpec(args=tuple(arguments.engine_arg)),
        question=_question_from(arguments),
    )
    return write_lock(create(wishes, places=places(), describe_model=model_describer(), tell=tell), arguments)


_UPGRADE = """Make a new release from another one, in which only what is named here moves: ComfyUI, nodes, packages,
models. Other packages stay at their versions unless the new requirements forbid it."""


def configure_upgrade(parser: argparse.ArgumentParser) -> None:
    """The flags of `lock upgrade`."""
    parser.description = _UPGRADE
    parser.add_argument("--lock", metavar="FILE|NAME", help="the release to start from (default: LOCK_PATH)")
    parser.add_argument("--name", metavar="NEW", required=True, help="the new release's name")
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
    parser.add_argument("--torch", metavar="BUILD", help="another build of torch")
    parser.add_argument("--python", metavar="X.Y", help="another Python")
    add_output_flags(parser)
    parser.set_defaults(act=_upgrade)


def _upgrade(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from comfypin.cli.lock import read_named_lock
    from comfypin.lock.modelspec import parse_model_spec
    from comfypin.lock.upgrade import Moves, question_of, upgrade
    from comfypin.wiring import model_describer

    _, reading = read_named_lock(arguments.lock)
    question = None
    if arguments.torch or arguments.python:
        asked = _question_from(arguments)
        question = question_of(reading.lock)
        question = replace(
            question,
            torch=asked.torch if arguments.torch else question.torch,
            python=asked.python if arguments.python else question.python,
        )
    moves = Moves(
        name=check_name(arguments.name),
        comfyui=arguments.comfyui or None,
        move_comfyui=arguments.comfyui is not None,
        nodes={folder: ref or None for folder, _, ref in (text.partition("@") for text in arguments.node)},
        packages=tuple(arguments.package),
        models=tuple(parse_model_spec(text) for text in arguments.model),
        question=question,
    )
    made = upgrade(reading.lock, moves, places=places(), describe_model=model_describer(), tell=tell)
    if not arguments.json:
        from comfypin.lock.diff import diff, lines

        print("\n".join(lines(diff(reading.lock, made.lock))), file=sys.stderr)
    return write_lock(made, arguments)


_MIGRATE = """Write a lock of schema 1 or 2 as schema 3. Without --complete nothing is learned anew and no network is
needed: what was not pinned stays so, and `lock check` says it. With --complete branches become commits, packages are
resolved again within the versions that the file names, and every model gets its sha256 and size."""


def configure_migrate(parser: argparse.ArgumentParser) -> None:
    """The flags of `lock migrate`."""
    parser.description = _MIGRATE
    parser.add_argument("--lock", metavar="FILE|NAME", help="the lock to convert (default: LOCK_PATH)")
    parser.add_argument("--name", metavar="NAME", help="the release's name (default: the file's)")
    parser.add_argument("--complete", action="store_true", help="also pin what is not pinned; needs the network")
    add_package_flags(parser)
    add_output_flags(parser)
    parser.set_defaults(act=_migrate)


def _migrate(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from comfypin.cli.lock import read_named_lock
    from comfypin.lock.create import Made
    from comfypin.lock.upgrade import complete, migrate
    from comfypin.wiring import model_describer

    _, reading = read_named_lock(arguments.lock)
    made = migrate(reading.lock)
    notes = (*(str(warning) for warning in reading.warnings), *made.notes)
    lock = made.lock
    if arguments.name:
        lock = replace(lock, version_name=check_name(arguments.name))
    if arguments.complete:
        python = replace(
            lock.python, requirements=(*lock.python.requirements, *_requirement_lines(arguments)), version=None
        )
        version = arguments.python or ".".join((lock.python.version or DEFAULT_PYTHON).split(".")[:2])
        asked = replace(_question_from(arguments), python=version)
        completed = complete(
            replace(lock, python=python), asked, places=places(), describe_model=model_describer(), tell=tell
        )
        lock, notes = completed.lock, (*notes, *completed.notes)
    return write_lock(Made(lock=lock, notes=notes), arguments)


def _requirement_lines(arguments: argparse.Namespace) -> tuple[str, ...]:
    from comfypin.lock.create import own_needs

    needs = own_needs(arguments.package, arguments.requirements, frozenset(arguments.drop_requirement))
    return tuple(need.text for need in needs.requirements)


_CAPTURE = """Make a lock of what is there: a ComfyUI that lives (its commit, its nodes, the packages of its venv, its
models with their sha256), a ComfyUI-Manager snapshot, or a comfy-lock.yaml of comfy-cli. Nothing there is changed."""


def configure_capture(parser: argparse.ArgumentParser) -> None:
    """The flags of `lock capture`."""
    parser.description = _CAPTURE
    parser.add_argument("name", metavar="NAME", help="the release's name")
    parser.add_argument("--from", dest="origin", metavar="DIR|FILE", type=Path, required=True, help="what to capture")
    parser.add_argument("--allow-dirty", action="store_true", help="store changes of checkouts as diffs in the lock")
    parser.add_argument(
        "--leave-out", metavar="NAME", action="append", default=[], help="a node's folder or a package; repeatable"
    )
    parser.add_argument("--no-verify", action="store_true", help="do not ask the remotes whether they have the commits")
    parser.add_argument("--venv", metavar="DIR", type=Path, help="the venv (default: .venv or venv in or beside DIR)")
    parser.add_argument("--models-dir", metavar="DIR", type=Path, help="where the models are (default: DIR/models)")
    parser.add_argument("--no-models", action="store_true", help="leave the models out")
    parser.add_argument(
        "--comfyui", metavar="URL", help="ComfyUI's repository, for a snapshot (default: the one on GitHub)"
    )
    parser.add_argument("--python", metavar="X.Y", help=f"the Python of a snapshot (default: {DEFAULT_PYTHON})")
    parser.add_argument("--platform", metavar="OS-MACHINE", action="append", default=[], help="default: linux-x86_64")
    add_output_flags(parser)
    parser.set_defaults(act=_capture, torch=None)


def _capture(arguments: argparse.Namespace) -> int:
    from comfypin.errors.create import NotComfyUI

    check_name(arguments.name)
    if arguments.origin.is_dir():
        return _capture_folder(arguments)
    if arguments.origin.is_file():
        return _capture_snapshot(arguments)
    raise NotComfyUI(where=str(arguments.origin), lacks="such folder or file")


def _capture_folder(arguments: argparse.Namespace) -> int:
    from comfypin.lock.capture import CaptureWishes, capture
    from comfypin.lock.digests import DigestCache
    from comfypin.settings import EnvSettings

    venv = arguments.venv
    wishes = CaptureWishes(
        name=arguments.name,
        folder=arguments.origin.absolute(),
        interpreter=None if venv is None else venv / "bin" / "python" if venv.is_dir() else venv,
        models_dir=arguments.models_dir.absolute() if arguments.models_dir else None,
        allow_dirty=arguments.allow_dirty,
        verify=not arguments.no_verify,
        with_models=not arguments.no_models,
        left_out=frozenset(arguments.leave_out),
        platform=_question_from(arguments).platforms[0],
    )
    digests = DigestCache(EnvSettings.from_environment().cache_dir / "digests.json")
    return write_lock(capture(wishes, places=places(), digests=digests, tell=tell), arguments)


def _capture_snapshot(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from comfypin.errors.create import CaptureRefused
    from comfypin.lock.create import Wishes, create
    from comfypin.lock.refs import parse_repo_spec
    from comfypin.lock.snapshot import read_snapshot
    from comfypin.wiring import model_describer

    comfyui = parse_repo_spec(arguments.comfyui).repo if arguments.comfyui else None
    snapshot = read_snapshot(arguments.origin, comfyui)
    unpinnable = [reason for reason in snapshot.unpinnable if not any(f" {n}" in reason for n in arguments.leave_out)]
    if unpinnable:
        raise CaptureRefused(where=str(arguments.origin), reasons=unpinnable)
    left_out = frozenset(arguments.leave_out)
    wishes = Wishes(
        name=arguments.name,
        comfyui=snapshot.comfyui,
        nodes=tuple(node for node in snapshot.nodes if node.name not in left_out),
        models=() if arguments.no_models else snapshot.models,
        installed=tuple(line for line in snapshot.packages if line.split("=")[0] not in left_out) or None,
        question=_question_from(arguments),
    )
    made = create(wishes, places=places(), describe_model=model_describer(), tell=tell)
    return write_lock(replace(made, notes=(*snapshot.left_out, *made.notes)), arguments)
