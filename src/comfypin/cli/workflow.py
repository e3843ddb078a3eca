"""Convert workflows into the API format, check them against a release, and list what can be set in them.

A workflow is a file as ComfyUI saves it (UI format), exports it (API format), or a picture that ComfyUI saved; `-` is
stdin. The engine's node classes come from --object-info FILE, from a running ComfyUI (--engine URL), or from the engine
of a lock, which is started to ask it. docs/workflows.md says more.
"""

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import read_named_lock, read_workflow
from comfypin.errors import UsageError, WorkflowError
from comfypin.plurals import format_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from comfypin.digest import JsonValue
    from comfypin.lock.model import Lock
    from comfypin.workflow.graph import ApiGraph
    from comfypin.workflow.object_info import Catalogue
    from comfypin.workflow.release_check import WorkflowCheck
    from comfypin.workflow.settable_inputs import WorkflowInput

_CONVERT = """Convert a workflow into the API format, exactly as ComfyUI's page does it when it queues a prompt, and
print it. If something cannot be converted, all of it is named and nothing is printed (exit code 11)."""
_CHECK = """Check whether a workflow would run: its classes, values, links, model files (with the pin of the lock that
provides each) and input files. Exit code 11 if it would not."""
_INPUTS = """List what can be set in a workflow (prompts, seeds, sizes, files, models) by the names that --set takes,
with types, ranges and current values. If the author chose inputs for ComfyUI's app mode, these are listed, in that
order. A NAME.inputs.toml beside the workflow can rename and limit them."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    convert_parser = verbs.add_parser("convert", help="print a workflow in API format", description=_CONVERT)
    convert_parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="write a file instead of stdout")
    convert_parser.add_argument(
        "--randomize-seeds", action="store_true", help="change the seeds as the page does after a run"
    )
    convert_parser.set_defaults(act=_convert_workflow)
    check_parser = verbs.add_parser("check", help="check whether a workflow would run", description=_CHECK)
    check_parser.add_argument(
        "--input-dir", metavar="DIR", type=Path, help="the folder of input files (default: the workflow's folder)"
    )
    check_parser.set_defaults(act=_check_workflow)
    inputs_parser = verbs.add_parser("inputs", help="list what can be set in a workflow", description=_INPUTS)
    inputs_parser.add_argument("--all", action="store_true", help="list every value, not only the main kinds")
    inputs_parser.add_argument("--schema", action="store_true", help="print a JSON Schema of an object that sets them")
    inputs_parser.set_defaults(act=_list_inputs)
    for verb_parser in (convert_parser, check_parser, inputs_parser):
        verb_parser.add_argument("workflow", metavar="WORKFLOW", help="the workflow's file; - is stdin")
        _add_engine_flags(verb_parser)
        verb_parser.add_argument("--json", action="store_true", help="print JSON, failures too")
        verb_parser.add_argument("--verbose", action="store_true", help="show the cause of failures")


def execute(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.verb is None:
        raise UsageError("comfypin workflow needs a verb: convert, check or inputs; see comfypin workflow --help.")
    return int(arguments.act(arguments))


def _add_engine_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what the engine knows")
    group.add_argument("--object-info", metavar="FILE", type=Path, help="a saved response of ComfyUI's /object_info")
    group.add_argument(
        "--engine", "--engine-url", dest="engine_url", metavar="URL", help="the address of a running ComfyUI"
    )
    group.add_argument("--lock", metavar="FILE|NAME", help="the release, for its engine and its model pins")
    group.add_argument("--comfy-home", metavar="DIR", type=Path, help="the ComfyUI to start (default: COMFY_HOME)")
    group.add_argument("--python", metavar="PYTHON|DIR", type=Path, help="its Python (default: it is looked for)")


def _convert_workflow(arguments: argparse.Namespace) -> int:
    from comfypin.workflow.findings import raise_if_errors
    from comfypin.workflow.load import load_workflow
    from comfypin.workflow.seeds import change_seeds

    document = read_workflow(arguments.workflow)
    # A graph that is in API format already needs no engine, unless its seeds are to be changed.
    needs_no_engine = document.format != "ui" and not arguments.randomize_seeds
    catalogue = {} if needs_no_engine else _load_catalogue(arguments, _choose_lock(arguments))
    workflow = load_workflow(document, catalogue)
    if workflow.conversion is not None:
        # A node of an unknown class cannot be converted, and the rest without it is another workflow.
        raise_if_errors(workflow.source, workflow.conversion.unknown)
    for warning in workflow.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    graph = workflow.graph
    if arguments.randomize_seeds:
        graph = change_seeds(graph, workflow.seeds, catalogue)
    api_json = json.dumps(
        workflow.fill_texts(graph, datetime.now().astimezone()).to_api(), indent=2, ensure_ascii=False
    )
    if arguments.out is None:
        print(api_json)
        return 0
    _write_text(arguments.out, api_json + "\n")
    return 0


def _check_workflow(arguments: argparse.Namespace) -> int:
    from comfypin.workflow.input_files import file_inputs, find_files
    from comfypin.workflow.load import load_workflow
    from comfypin.workflow.release_check import check_workflow, find_unpinned

    document = read_workflow(arguments.workflow)
    lock = _choose_lock(arguments)
    catalogue = _load_catalogue(arguments, lock)
    workflow = load_workflow(document, catalogue)
    graph = workflow.graph
    folder = arguments.input_dir or _folder_beside(arguments.workflow)
    # Only named here, not uploaded: a check must work without an engine's disk.
    found_files = find_files(file_inputs(graph, catalogue), folder)
    report = check_workflow(
        workflow, catalogue, lock, brought=frozenset((file.node_id, file.input_name) for file in found_files)
    )
    # A remote ComfyUI has models of its own, which no lock pins.
    if lock is not None and lock.engine.kind == "comfyui":
        report = find_unpinned(report, graph, catalogue, lock)
    if arguments.json:
        facts = {"workflow": document.source, "format": document.format, "nodes": len(graph.nodes)}
        print(json.dumps({**facts, **_survey_json(report)}, indent=2, ensure_ascii=False))
    else:
        _print_survey(report, document.source, graph)
    return 0 if report.can_run else WorkflowError.exit_code


def _list_inputs(arguments: argparse.Namespace) -> int:
    from comfypin.workflow.app_inputs import offered_inputs
    from comfypin.workflow.inputs_file import read_inputs_file
    from comfypin.workflow.load import load_workflow
    from comfypin.workflow.settable_inputs import MAIN_KINDS, describe_inputs, input_schema

    document = read_workflow(arguments.workflow)
    catalogue = _load_catalogue(arguments, _choose_lock(arguments))
    workflow = load_workflow(document, catalogue)
    inputs_file = None if arguments.workflow == "-" else read_inputs_file(Path(arguments.workflow))
    offered: Sequence[WorkflowInput] = offered_inputs(workflow, catalogue, inputs_file)
    inputs = list(offered)
    if inputs_file is None and (arguments.all or not offered):
        listed = {place for settable in offered for place in settable.places}
        inputs += [
            settable
            for settable in describe_inputs(workflow.graph, catalogue)
            # Most values of most nodes are never changed.
            if (arguments.all or settable.kind in MAIN_KINDS) and (settable.node_id, settable.input_name) not in listed
        ]
    if arguments.schema:
        title = (inputs_file.title if inputs_file else None) or Path(arguments.workflow).stem
        schema = input_schema(inputs, title=title, description=inputs_file.description if inputs_file else None)
        print(json.dumps(schema, indent=2, ensure_ascii=False))
    elif arguments.json:
        print(json.dumps({"inputs": [settable.to_json() for settable in inputs]}, indent=2, ensure_ascii=False))
    else:
        _print_inputs(inputs)
    return 0


def _choose_lock(arguments: argparse.Namespace) -> "Lock | None":
    """Return the lock that --lock or the environment names; None if --object-info or --engine replaces it."""
    named_engine = (arguments.object_info, arguments.engine_url, arguments.comfy_home)
    if arguments.lock is None and any(engine_flag is not None for engine_flag in named_engine):
        return None
    return read_named_lock(arguments.lock, arguments.settings)[1].lock


def _load_catalogue(arguments: argparse.Namespace, lock: "Lock | None") -> "Catalogue":
    from comfypin import wiring
    from comfypin.cli.signals import run_until_stopped
    from comfypin.lock.model import EngineSpec

    if arguments.object_info is not None:
        if arguments.engine_url is not None:
            raise UsageError("--object-info and --engine both describe the engine; give only one of them.")
        return _read_object_info(arguments.object_info)
    has_home = arguments.comfy_home is not None and arguments.engine_url is None
    engine_spec = lock.engine if lock is not None else EngineSpec(kind="comfyui" if has_home else "remote")
    choice = wiring.choose_engine(
        engine_spec,
        arguments.settings.with_flags(comfy_home=arguments.comfy_home, comfy_python=arguments.python),
        kind="comfyui" if has_home else None,
        engine_url=arguments.engine_url,
    )

    async def ask_engine() -> "Catalogue":
        async with wiring.open_engine(choice) as engine:
            return await engine.catalogue()

    return run_until_stopped(ask_engine())


def _read_object_info(path: Path) -> "Catalogue":
    from comfypin.workflow.object_info import to_catalogue

    try:
        object_info = json.loads(path.read_bytes())
    except OSError as exc:
        raise UsageError(f"--object-info {path} cannot be read: {exc.strerror or exc}.") from exc
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"--object-info {path} is not JSON: {exc}.") from exc
    if not isinstance(object_info, dict) or not all(
        isinstance(node_class, dict) and "input" in node_class for node_class in object_info.values()
    ):
        raise UsageError(
            f"--object-info {path} is not a response of ComfyUI's /object_info, "
            "which is a JSON object of node classes by name."
        )
    return to_catalogue(object_info)


def _survey_json(survey: "WorkflowCheck") -> "Mapping[str, JsonValue]":
    return {
        "runs": survey.can_run,
        "findings": [finding.to_json() for finding in survey.preflight.findings],
        "dropped_outputs": list(survey.preflight.dropped),
        "models": [model_use.to_json() for model_use in survey.models],
        "files": [
            {
                "node": input_file.node_id,
                "input": input_file.input_name,
                "file": input_file.name,
                "folder": input_file.folder,
            }
            for input_file in survey.files
        ],
    }


def _print_survey(survey: "WorkflowCheck", workflow_source: str, graph: "ApiGraph") -> None:
    verdict = "would run" if survey.can_run else "would not run"
    print(f"{workflow_source}: {format_count(len(graph.nodes), 'node')}, {verdict}")
    for finding in survey.preflight.findings:
        print(f"  {finding.severity}: {finding}")
    for model_use in survey.models:
        state = "present" if model_use.present else "missing"
        pin = f"pin {model_use.pin} at {model_use.target_path}" if model_use.pin else "no pin"
        print(f"  model: {model_use.file} (node {model_use.node_id}, {model_use.input_name}): {state}, {pin}")
    for input_file in survey.files:
        print(
            f"  file: {input_file.name} (node {input_file.node_id}, {input_file.input_name}), from {input_file.folder}"
        )


def _print_inputs(inputs: "Sequence[WorkflowInput]") -> None:
    if not inputs:
        print("No input of the main kinds can be set; --all lists every value.", file=sys.stderr)
        return
    rows = [
        (
            settable.name,
            settable.kind,
            settable.target,
            _describe_range(settable),
            json.dumps(settable.default, ensure_ascii=False),
        )
        for settable in inputs
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        # Not strict: the last cell, the value, is not padded.
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        # Prompts may be pages long.
        shown_value = row[4] if len(row[4]) <= 60 else f"{row[4][:59]}…"
        print(f"{cells}  {shown_value}")


def _describe_range(settable: "WorkflowInput") -> str:
    if settable.minimum is not None and settable.maximum is not None:
        return f"{settable.type} {settable.minimum:g}..{settable.maximum:g}"
    return f"{format_count(len(settable.choices), 'choice')}" if settable.choices is not None else settable.type


def _folder_beside(workflow: str) -> Path:
    return Path() if workflow == "-" else Path(workflow).parent


def _write_text(path: Path, text: str) -> None:
    from comfypin.atomic_files import write_atomically

    try:
        write_atomically(path, text.encode())
    except OSError as exc:
        raise UsageError(f"-o {path} cannot be written: {exc.strerror or exc}.") from exc
