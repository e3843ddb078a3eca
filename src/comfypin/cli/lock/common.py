"""The parts that verbs which make a lock share: flags, the question to the resolver, and writing the lock."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import report_progress
from comfypin.errors import LockError, UsageError
from comfypin.lock.errors import LockInvalid
from comfypin.lock.model import DEFAULT_PYTHON
from comfypin.locking.errors import ReleaseExists
from comfypin.plurals import format_count

if TYPE_CHECKING:
    from comfypin.lock.model import EngineSpec
    from comfypin.locking.create import MadeLock
    from comfypin.locking.resolve import ResolveRequest
    from comfypin.locking.sources import Upstreams


def add_package_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how Python packages are resolved."""
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
    add_resolve_flags(group)


def add_resolve_flags(group: argparse._ActionsContainer) -> None:
    """Add the flags that overrule requirements, and name package indexes."""
    group.add_argument("--override", metavar="P", action="append", default=[], help="override every requirement of P")
    group.add_argument(
        "--drop-requirement", metavar="LINE|NAME", action="append", default=[], help="leave a requirement out"
    )
    group.add_argument(
        "--variant",
        metavar="NAME",
        action="append",
        default=[],
        help="of packages that overwrite each other, install this one; repeatable",
    )
    group.add_argument(
        "--index", metavar="URL", action="append", default=[], help="another package index, searched first"
    )
    group.add_argument("--exclude-newer", metavar="DATE", help="ignore packages uploaded after this date")


def add_lock_output_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for writing the lock to a file and reporting it."""
    parser.add_argument("--out", metavar="FILE", help="the file to write; - is stdout (default: in lockfiles/)")
    parser.add_argument("--force", action="store_true", help="replace a release of this name that pins something else")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    parser.add_argument("--verbose", action="store_true", help="show the cause of failures")


def add_warmup_flags(parser: argparse.ArgumentParser, *, first_of: str | None = None) -> None:
    """Add the flags for the workflow that warms workers up; `first_of` names the arguments whose first it is else."""
    group = parser.add_argument_group("warm-up")
    default = "none" if first_of is None else f"the first {first_of}"
    group.add_argument(
        "--warmup",
        metavar="WORKFLOW",
        help=f"a workflow that workers run, small, before their first job, so that it finds its models loaded "
        f"(default: {default})",
    )
    group.add_argument(
        "--warmup-size",
        choices=("smallest", "full"),
        default="smallest",
        help="one step on the smallest picture (default), or the workflow as it is, for kernels that are compiled "
        "for one size",
    )
    if first_of is not None:
        group.add_argument("--no-warmup", action="store_true", help="keep no workflow for the warm-up in the lock")


def read_warmup(arguments: argparse.Namespace, engine: "EngineSpec", *, default: Path | None = None) -> "EngineSpec":
    """Return the engine with the warm-up that the flags name. Raises `WorkflowError`."""
    from dataclasses import replace

    from comfypin.cli.common import read_workflow

    workflow_path = arguments.warmup or (None if default is None else str(default))
    if workflow_path is None:
        return engine
    # Only the graph: the rest of a saved request may hold keys, and locks are shared.
    workflow = read_workflow(workflow_path).content
    return replace(engine, warmup=dict(workflow), warmup_size=arguments.warmup_size)


def read_question(arguments: argparse.Namespace) -> "ResolveRequest":
    """Read from the flags how packages are resolved. Raises `UsageError`."""
    import re

    from comfypin.lock.requirements import RequirementSet, normalize_package_name, parse_requirement
    from comfypin.lock.torch import BUILD_PATTERN
    from comfypin.locking.pylock import PLATFORMS
    from comfypin.locking.resolve import ResolveRequest

    # Not every verb has all of these flags.
    flag_values = {"platform": [], "override": [], "variant": [], "index": [], "exclude_newer": None, **vars(arguments)}
    python_version = arguments.python or DEFAULT_PYTHON
    if not re.fullmatch(r"3\.\d{1,2}(\.\d{1,3})?", python_version):
        raise UsageError(f"--python {python_version!r} is not a Python version, such as 3.12.")
    if arguments.torch is not None and not BUILD_PATTERN.fullmatch(arguments.torch):
        raise UsageError(
            f"--torch {arguments.torch!r} is not a build of torch, such as cpu, cu126, cu128, rocm6.3 or xpu."
        )
    for platform in flag_values["platform"]:
        if platform not in PLATFORMS:
            raise UsageError(f"--platform {platform!r} is unknown; use {' or '.join(PLATFORMS)}.")
    for override in flag_values["override"]:
        if parse_requirement(override, "--override") is None:
            raise UsageError(f"--override {override!r} is not a requirement, such as 'numpy<2'.")
    exclude_newer = flag_values["exclude_newer"]
    if exclude_newer and not re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?", exclude_newer):
        raise UsageError(f"--exclude-newer {exclude_newer!r} is not a date, such as 2026-01-31.")
    return ResolveRequest(
        needs=RequirementSet(),
        python=python_version,
        platforms=tuple(dict.fromkeys(flag_values["platform"])) or ("linux-x86_64",),
        torch=arguments.torch,
        overrides=tuple(flag_values["override"]),
        wanted_variants=frozenset(map(normalize_package_name, flag_values["variant"])),
        indexes=tuple(flag_values["index"]),
        exclude_newer=exclude_newer,
    )


def make_lock_places(arguments: argparse.Namespace) -> "Upstreams":
    """Return the sources of repositories and archives; `realize` uses the same caches."""
    from comfypin.wiring import make_lock_places

    return make_lock_places(arguments.settings)


def require_release_name(release_name: str) -> str:
    """Return the name if a release can have it. Raises `UsageError`."""
    import re

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", release_name):
        raise UsageError(
            f"{release_name[:80]!r} cannot name a release: use letters, digits, '.', '_' and '-', "
            "and begin with a letter or a digit."
        )
    return release_name


def write_lock(made_lock: "MadeLock", arguments: argparse.Namespace, *, reported_notes: Sequence[str] = ()) -> int:
    """Check the lock by reading it back, write it to its file, and print a summary.

    Notes that the user has read already are not repeated on stderr. Returns the exit code: that of locks if this one
    lacks a package that is required. It is written all the same.
    """
    from comfypin.atomic_files import write_atomically
    from comfypin.lock.check import check_lock
    from comfypin.lock.codec import lock_digest, parse_lock, render_lock

    lock_bytes = render_lock(made_lock.lock)
    # What we write must pass the checks of everything that reads it.
    checked_lock = parse_lock(lock_bytes, where="that was made").lock
    findings = check_lock(checked_lock)
    # Locks are published; a token in an address would be too.
    if secrets := [finding for finding in findings if finding.rule == "secret"]:
        raise LockInvalid(where="that was made", findings=secrets)
    default_path = f"lockfiles/comfy-{checked_lock.version_name}.lock.json"
    lock_path = None if arguments.out == "-" else Path(arguments.out or default_path)
    state = "printed"
    if lock_path is None:
        if not arguments.json:
            sys.stdout.write(lock_bytes.decode())
    else:
        present_bytes = lock_path.read_bytes() if lock_path.is_file() else None
        # A release does not change: other pins need another name, or --force.
        if present_bytes is not None and present_bytes != lock_bytes and not arguments.force:
            raise ReleaseExists(path=str(lock_path))
        state = "unchanged" if present_bytes == lock_bytes else "replaced" if present_bytes is not None else "written"
        # An unchanged file keeps its time of change, for `make` and the like.
        if present_bytes != lock_bytes:
            write_atomically(lock_path, lock_bytes)
    for note in made_lock.notes:
        if note not in reported_notes:
            report_progress(note)
    _print_made_lock(lock_digest(checked_lock).hex, lock_path, state, made_lock, findings, as_json=arguments.json)
    # Other errors, such as models without a source, as most captured ones are, can be mended later.
    return LockError.exit_code if any(finding.rule == "package-not-pinned" for finding in findings) else 0


def _print_made_lock(
    digest: str, lock_path: Path | None, state: str, made_lock: "MadeLock", findings: Sequence[object], *, as_json: bool
) -> None:
    from comfypin.lock.codec import lock_to_json
    from comfypin.lock.errors import LockFinding
    from comfypin.lock.show import finding_lines

    lock_findings = [finding for finding in findings if isinstance(finding, LockFinding)]
    if as_json:
        facts = {
            "path": None if lock_path is None else str(lock_path),
            "state": state,
            "release": made_lock.lock.version_name,
            "lock_digest": f"sha256:{digest}",
            "lock": lock_to_json(made_lock.lock),
            "notes": list(made_lock.notes),
            "findings": [finding.to_json() for finding in lock_findings],
        }
        print(json.dumps(facts, indent=2, sort_keys=True))
        return
    for line in finding_lines(lock_findings):
        report_progress(line)
    if lock_path is not None:
        lock = made_lock.lock
        print(
            f"{lock_path} {state}: {format_count(len(lock.custom_nodes), 'node')}, "
            f"{format_count(len(lock.python.packages), 'package')}, {format_count(len(lock.models), 'model')}, "
            f"sha256:{digest[:12]}"
        )
