"""Convert workflows into the API format, check them against a release, and list what can be set in them.

A workflow is a file as ComfyUI saves it (UI format), exports it (API format), or a picture that ComfyUI saved; `-` is
stdin. What an engine knows comes from --object-info FILE, from a running ComfyUI (--engine URL), or from the engine of
a lock, which is started for it. docs/workflows.md says more.
"""

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import read_workflow
from comfypin.errors import UsageError, WorkflowError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from comfypin.digest import JsonValue
    from comfypin.lock.model import Lock
    from comfypin.workflow.graph import Graph
    from comfypin.workflow.object_info import Catalogue
    from comfypin.workflow.release_check import Survey
    from comfypin.workflow.settable_inputs import WorkflowInput

_CONVERT = """Convert a workflow into the API format, exactly as ComfyUI's page does it when it queues a prompt, and
print it. What cannot be converted is named, all at once; nothing is printed then (exit code 11)."""
_CHECK = """Say whether a workflow would run: its classes, values, wires, model files (with the pin of the lock that
brings each) and input files. Exit code 11 where it would not."""
_INPUTS = """List what can be set in a workflow (prompts, seeds, sizes, files, models) by the names that --set takes,
with types, ranges and the present values. A NAME.inputs.toml beside the workflow names and limits them."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    convert = verbs.add_parser("convert", help="print a workflow in API format", description=_CONVERT)
    convert.add_argument("-o", "--out", metavar="FILE", type=Path, help="write a file instead of stdout")
    convert.add_argument("--randomize-seeds", action="store_true", help="change the seeds as the page does after a run")
    convert.set_defaults(act=_convert)
    check = verbs.add_parser("check", help="say whether a workflow would run", description=_CHECK)
    check.add_argument("--input-dir", metavar="DIR", type=Path, help="where input files lie (default: beside it)")
    check.set_defaults(act=_check)
    inputs = verbs.add_parser("inputs", help="list what can be set in a workflow", description=_INPUTS)
    inputs.add_argument("--all", action="store_true", help="list every value, not only the main kinds")
    inputs.add_argument("--schema", action="store_true", help="print a JSON Schema of an object that sets them")
    inputs.set_defaults(act=_inputs)
    for verb in (convert, check, inputs):
        verb.add_argument("workflow", metavar="WORKFLOW", help="the workflow's file; - is stdin")
        _add_engine_flags(verb)
        verb.add_argument("--json", action="store_true", help="print JSON, failures too")
        verb.add_argument("--verbose", action="store_true", help="say more about failures")


def execute(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.verb is None:
        raise UsageError("Say what to do with workflows; see comfypin workflow --help.")
    return int(arguments.act(arguments))


def _add_engine_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what the engine knows")
    group.add_argument("--object-info", metavar="FILE", type=Path, help="an answer of ComfyUI's /object_info, as JSON")
    group.add_argument("--engine", "--engine-url", dest="engine_url", metavar="URL", help="where a ComfyUI answers")
    group.add_argument(
        "--lock", metavar="FILE|NAME", help="the release whose engine is asked, and whose pins are named"
    )


def _convert(arguments: argparse.Namespace) -> int:
    from comfypin.workflow.findings import refuse
    from comfypin.workflow.load import load_workflow
    from comfypin.workflow.seeds import change_seeds

    document = read_workflow(arguments.workflow)
    # A graph that is in API format already needs no engine, unless its seeds are to be changed.
    needless = document.format != "ui" and not arguments.randomize_seeds
    catalogue = {} if needless else _catalogue(arguments, _lock(arguments))
    workflow = load_workflow(document, catalogue)
    if workflow.conversion is not None:
        refuse(workflow.source, workflow.conversion.unknown)
    for warning in workflow.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    graph = workflow.graph
    if arguments.randomize_seeds:
        graph = change_seeds(graph, workflow.seeds, catalogue)
    text = json.dumps(workflow.expand(graph, datetime.now().astimezone()).to_api(), indent=2, ensure_ascii=False)
    if arguments.out is None:
        print(text)
        return 0
    _write(arguments.out, text + "\n")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from comfypin.workflow.input_files import file_inputs, find_files
    from comfypin.workflow.load import load_workflow
    from comfypin.workflow.release_check import survey

    document = read_workflow(arguments.workflow)
    lock = _lock(arguments)
    catalogue = _catalogue(arguments, lock)
    workflow = load_workflow(document, catalogue)
    graph = workflow.graph
    folder = arguments.input_dir or _beside(arguments.workflow)
    found = find_files(file_inputs(graph, catalogue), folder)
    report = survey(workflow, catalogue, lock, brought=frozenset((file.node_id, file.input_name) for file in found))
    if arguments.json:
        facts = {"workflow": document.source, "format": document.format, "nodes": len(graph.nodes)}
        print(json.dumps({**facts, **_survey_json(report)}, indent=2, ensure_ascii=False))
    else:
        _tell(report, document.source, graph)
    return 0 if report.runs else WorkflowError.exit_code


def _inputs(arguments: argparse.Namespace) -> int:
    from comfypin.workflow.inputs_file import named_inputs, read_inputs_file
    from comfypin.workflow.load import load_workflow
    from comfypin.workflow.settable_inputs import MAIN_KINDS, describe_inputs, input_schema

    document = read_workflow(arguments.workflow)
    catalogue = _catalogue(arguments, _lock(arguments))
    graph = load_workflow(document, catalogue).graph
    file = None if arguments.workflow == "-" else read_inputs_file(Path(arguments.workflow))
    if file is not None:
        inputs: Sequence[WorkflowInput] = named_inputs(graph, catalogue, file)
    else:
        everything = describe_inputs(graph, catalogue)
        inputs = [one for one in everything if arguments.all or one.kind in MAIN_KINDS]
    if arguments.schema:
        title = (file.title if file else None) or Path(arguments.workflow).stem
        schema = input_schema(inputs, title=title, description=file.description if file else None)
        print(json.dumps(schema, indent=2, ensure_ascii=False))
    elif arguments.json:
        print(json.dumps({"inputs": [one.to_json() for one in inputs]}, indent=2, ensure_ascii=False))
    else:
        _print_inputs(inputs)
    return 0


def _lock(arguments: argparse.Namespace) -> "Lock | None":
    """The release: the one that is named; where nothing else says what the engine knows, the environment's."""
    from comfypin.lock.codec import read_lock
    from comfypin.lock.lookup import find_lock

    if arguments.lock is None and (arguments.object_info is not None or arguments.engine_url is not None):
        return None
    machine = arguments.settings.machine
    path = find_lock(arguments.lock, lock_path=machine.lock_path, version_name=machine.version_name)
    return read_lock(path).lock


def _catalogue(arguments: argparse.Namespace, lock: "Lock | None") -> "Catalogue":
    from comfypin import wiring
    from comfypin.cli.signals import run_until_stopped
    from comfypin.lock.model import EngineSpec

    if arguments.object_info is not None:
        if arguments.engine_url is not None:
            raise UsageError("--object-info and --engine both say what the engine knows; give one of them.")
        return _read_object_info(arguments.object_info)
    spec = lock.engine if lock is not None else EngineSpec(kind="remote")
    choice = wiring.choose_engine(spec, arguments.settings, url=arguments.engine_url)

    async def ask() -> "Catalogue":
        async with wiring.open_engine(choice) as engine:
            return await engine.catalogue()

    return run_until_stopped(ask())


def _read_object_info(path: Path) -> "Catalogue":
    from comfypin.workflow.object_info import to_catalogue

    try:
        value = json.loads(path.read_bytes())
    except OSError as exc:
        raise UsageError(f"--object-info {path} cannot be read: {exc.strerror or exc}.") from exc
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"--object-info {path} is not JSON: {exc}.") from exc
    if not isinstance(value, dict) or not all(isinstance(one, dict) and "input" in one for one in value.values()):
        raise UsageError(f"--object-info {path} is not an answer of /object_info: an object of node classes by name.")
    return to_catalogue(value)


def _survey_json(report: "Survey") -> "Mapping[str, JsonValue]":
    return {
        "runs": report.runs,
        "findings": [finding.to_json() for finding in report.preflight.findings],
        "dropped_outputs": list(report.preflight.dropped),
        "models": [use.to_json() for use in report.models],
        "files": [
            {"node": one.node_id, "input": one.input_name, "file": one.name, "folder": one.folder}
            for one in report.files
        ],
    }


def _tell(report: "Survey", source: str, graph: "Graph") -> None:
    verdict = "would run" if report.runs else "would not run"
    print(f"{source}: {len(graph.nodes)} nodes, {verdict}")
    for finding in report.preflight.findings:
        print(f"  {finding.severity}: {finding}")
    for use in report.models:
        state = "present" if use.present else "missing"
        pin = f"pin {use.pin} at {use.target_path}" if use.pin else "no pin"
        print(f"  model: {use.file} (node {use.node_id}, {use.input_name}): {state}, {pin}")
    for one in report.files:
        print(f"  file: {one.name} (node {one.node_id}, {one.input_name}), from {one.folder}")


def _print_inputs(inputs: "Sequence[WorkflowInput]") -> None:
    if not inputs:
        print("Nothing of the main kinds can be set; see --all.", file=sys.stderr)
        return
    rows = [
        (one.name, one.kind, one.target, _range(one), json.dumps(one.default, ensure_ascii=False)) for one in inputs
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        value = row[4] if len(row[4]) <= 60 else f"{row[4][:59]}…"
        print(f"{cells}  {value}")


def _range(one: "WorkflowInput") -> str:
    if one.minimum is not None and one.maximum is not None:
        return f"{one.type} {one.minimum:g}..{one.maximum:g}"
    return f"{len(one.choices)} choices" if one.choices is not None else one.type


def _beside(workflow: str) -> Path:
    return Path() if workflow == "-" else Path(workflow).parent


def _write(path: Path, text: str) -> None:
    from comfypin.atomic_files import write_atomically

    try:
        write_atomically(path, text.encode())
    except OSError as exc:
        raise UsageError(f"-o {path} cannot be written: {exc.strerror or exc}.") from exc
