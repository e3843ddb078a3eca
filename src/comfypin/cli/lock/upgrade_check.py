"""`comfypin lock upgrade --check`: what could move, which packages have known vulnerabilities, what a move changes."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import report_progress
from comfypin.errors import ComfypinError, ConfigError, UsageError
from comfypin.plurals import format_count, format_size

if TYPE_CHECKING:
    from comfypin.lock.model import Lock, PackagePin
    from comfypin.locking.sources import Upstreams
    from comfypin.workflow.class_changes import ClassChange
    from comfypin.workflow.object_info import Catalogue


def add_check_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `--check`."""
    group = parser.add_argument_group("Looking before moving")
    group.add_argument(
        "--check", action="store_true", help="write nothing: say what could move, and what the named moves would change"
    )
    group.add_argument(
        "--advisories",
        metavar="FILE",
        type=Path,
        help="with --check: say which packages have vulnerabilities by this file of OSV (a zip or a folder, too)",
    )
    group.add_argument(
        "--object-info",
        metavar=("BEFORE", "AFTER"),
        type=Path,
        nargs=2,
        help="with --check: compare node classes for the workflows: homes of the two envs, or saved /object_info",
    )
    group.add_argument(
        "--workflows",
        metavar="DIR",
        type=Path,
        default=Path("workflows"),
        help="with --object-info: the workflows to look at (default: workflows)",
    )


def check_upgrade(lock: "Lock", upgraded: "Lock | None", arguments: argparse.Namespace, upstreams: "Upstreams") -> int:
    """Print what could move, what is vulnerable, and what the upgrade (if one is named) would change."""
    from comfypin.lock.diff import change_lines, diff_locks

    result: dict[str, object] = {}
    lines: list[str] = []
    if upgraded is None:
        from comfypin.locking.available_moves import find_available_moves

        report_progress(f"asking for ComfyUI and {format_count(len(lock.custom_nodes), 'node')}")
        moves = find_available_moves(lock, upstreams)
        result["moves"] = [move.to_json() for move in moves]
        lines += [f"moves      {move}" for move in moves] or ["moves      nothing: everything is where its ref is"]
    else:
        changes = diff_locks(lock, upgraded)
        result["changes"] = [change.to_json() for change in changes]
        lines += [f"changes    {line}" for line in change_lines(changes)] or ["changes    nothing"]
        result["files"], file_lines = _compare_files(lock, upgraded, upstreams)
        lines += file_lines
    if arguments.advisories is not None:
        from comfypin.lock.advisories import find_vulnerabilities

        vulnerabilities = find_vulnerabilities((upgraded or lock).python.packages, arguments.advisories)
        result["vulnerabilities"] = [vulnerability.to_json() for vulnerability in vulnerabilities]
        lines += [f"vulnerable {vulnerability}" for vulnerability in vulnerabilities] or [
            "vulnerable nothing that is known there"
        ]
    if arguments.object_info is not None:
        result["workflows"], workflow_lines = _compare_classes(lock, upgraded or lock, arguments)
        lines += workflow_lines
    print(json.dumps(result, indent=2, sort_keys=True) if arguments.json else "\n".join(lines))
    return 0


def _compare_files(before: "Lock", after: "Lock", upstreams: "Upstreams") -> tuple[dict[str, object], list[str]]:
    """Return which packages' files come and go, with their sizes."""
    from comfypin.locking.available_moves import measure_files

    old, new = _pins_by_url(before), _pins_by_url(after)
    come = [pin for url, pin in new.items() if url not in old]
    go = [pin for url, pin in old.items() if url not in new]
    sizes = measure_files((*come, *go), upstreams.proxies)
    come_bytes, go_bytes = (sum(sizes.get(str(pin.url), 0) for pin in pins) for pins in (come, go))
    unknown = sum(1 for pin in (*come, *go) if str(pin.url) not in sizes)
    facts: dict[str, object] = {
        "new": {str(pin.url): sizes.get(str(pin.url)) for pin in come},
        "old": {str(pin.url): sizes.get(str(pin.url)) for pin in go},
        "new_bytes": come_bytes,
        "old_bytes": go_bytes,
    }
    largest = sorted(come, key=lambda pin: -sizes.get(str(pin.url), 0))[:5]
    of_unknown = f" ({unknown} of unknown size)" if unknown else ""
    lines = [
        f"download   {format_count(len(come), 'file')}, {format_size(come_bytes)}, new; "
        f"{format_count(len(go), 'file')}, {format_size(go_bytes)}, no longer used{of_unknown}"
    ]
    lines += [f"download   {format_size(sizes.get(str(pin.url), 0)):>10}  {pin.name} {pin.version}" for pin in largest]
    return facts, lines


def _pins_by_url(lock: "Lock") -> "dict[str, PackagePin]":
    return {pin.url or f"{pin.name}=={pin.version}": pin for pin in lock.python.packages}


def _compare_classes(before: "Lock", after: "Lock", arguments: argparse.Namespace) -> tuple[object, list[str]]:
    """Return what changes for each workflow of the folder."""
    before_place, after_place = arguments.object_info
    if not arguments.workflows.is_dir():
        raise ConfigError(
            f"--object-info compares node classes for workflows, and there is no folder {arguments.workflows}; name it "
            "with --workflows DIR.",
            path=str(arguments.workflows),
        )
    classes_before = _read_classes(before_place, before, arguments)
    classes_after = _read_classes(after_place, after, arguments)
    facts: dict[str, object] = {
        "classes_added": sorted(classes_after.keys() - classes_before.keys()),
        "classes_gone": sorted(classes_before.keys() - classes_after.keys()),
    }
    lines = [
        f"classes    {len(classes_before)} before, {len(classes_after)} after: "
        f"{len(classes_after.keys() - classes_before.keys())} new, "
        f"{len(classes_before.keys() - classes_after.keys())} gone"
    ]
    workflows: dict[str, object] = {}
    for path in sorted(arguments.workflows.rglob("*.json")):
        try:
            changes = _changes_of_workflow(path, classes_before, classes_after)
        except ComfypinError as error:
            workflows[str(path)] = {"problem": error.message}
            lines.append(f"workflow   {path}: cannot be read with the classes before: {error.message}")
            continue
        workflows[str(path)] = {"changes": [change.to_json() for change in changes]}
        lines += [f"{'breaks' if change.breaks else 'workflow':10} {path}: {change}" for change in changes]
        if not changes:
            lines.append(f"workflow   {path}: the same")
    facts["files"] = workflows
    return facts, lines


def _changes_of_workflow(path: Path, before: "Catalogue", after: "Catalogue") -> "tuple[ClassChange, ...]":
    """Return what changes for a workflow. Raises `WorkflowError`."""
    from comfypin.workflow.class_changes import find_class_changes
    from comfypin.workflow.load import load_workflow
    from comfypin.workflow.read_file import read_workflow_bytes

    document = read_workflow_bytes(path.read_bytes(), source=str(path))
    return find_class_changes(load_workflow(document, before).graph, before, after)


def _read_classes(given_path: Path, lock: "Lock", arguments: argparse.Namespace) -> "Catalogue":
    """Return the classes of a saved response, or of the env that is realized in a home, by starting it."""
    from comfypin.workflow.object_info import to_catalogue

    if given_path.is_file():
        try:
            saved = json.loads(given_path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--object-info {given_path} is not JSON: {error}.") from error
        if not isinstance(saved, dict):
            raise UsageError(f"--object-info {given_path} is not a response of /object_info, which is a JSON object.")
        return to_catalogue(saved)
    if not given_path.is_dir():
        raise UsageError(
            f"--object-info {given_path} is neither a saved response of /object_info nor a home of an env."
        )
    from comfypin import wiring
    from comfypin.cli.signals import run_until_stopped

    report_progress(f"starting the ComfyUI in {given_path}")
    settings = arguments.settings.with_flags(comfy_home=given_path.absolute())
    choice = wiring.choose_engine(lock.engine, settings)

    async def ask_engine() -> "Catalogue":
        async with wiring.open_engine(choice) as engine:
            return await engine.catalogue()

    return run_until_stopped(ask_engine())
