"""Run a workflow on a Runpod endpoint: send the job, follow it, and save its outputs."""

import argparse
import json
import sys
from pathlib import Path

from comfypin.cli.common import print_on_stderr
from comfypin.cli.runpod.job_routes import find_route
from comfypin.errors import UsageError


def configure(run_parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    run_parser.description = __doc__
    run_parser.add_argument("workflow", help="a workflow of any kind (a picture with one too), or - for JSON on stdin")
    run_parser.add_argument("--endpoint", required=True, help="the endpoint's name in runpod.toml, or its id on Runpod")
    run_parser.add_argument(
        "--file", type=Path, default=Path("runpod.toml"), help="the deployment that names the endpoint (runpod.toml)"
    )
    run_parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="override an input")
    run_parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NODE=FILE",
        help="give a load node a file of this machine, or an address to fetch from; repeatable",
    )
    run_parser.add_argument("--randomize-seeds", action="store_true", help="change the seeds as ComfyUI's page does")
    run_parser.add_argument("--out-dir", type=Path, default=Path("out"), help="the folder for outputs (out)")
    run_parser.add_argument("--timeout", type=float, default=600, metavar="S", help="cancel after S seconds (600)")
    run_parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    run_parser.add_argument("--verbose", action="store_true", help="show the cause of failures")


def execute(arguments: argparse.Namespace) -> int:
    """Run the job to its end."""
    from comfypin.client.order_files import inline_input, override_values, parse_input_source
    from comfypin.client.result_outputs import outputs_of_result
    from comfypin.client.save_outputs import save_outputs
    from comfypin.http.client import HttpClient
    from comfypin.wiring import http_transport
    from comfypin.workflow.overrides import parse_override

    job_input: dict[str, object] = {"workflow": _read_workflow(arguments.workflow)}
    if arguments.set:
        job_input["set"] = override_values(parse_override(override_text) for override_text in arguments.set)
    if arguments.input:
        job_input["inputs"] = [inline_input(parse_input_source(input_text)) for input_text in arguments.input]
    if arguments.randomize_seeds:
        job_input["randomize_seeds"] = True
    output = find_route(arguments).run_job(
        job_input, arguments.settings, timeout_s=arguments.timeout, on_progress=print_job_progress
    )
    client = HttpClient(transport=http_transport(arguments.settings))
    saved_files = save_outputs(outputs_of_result(output), arguments.out_dir, client)
    # `errors` are those of single outputs; the job itself succeeded.
    for warning in _list_strings(output.get("warnings")) + _list_strings(output.get("errors")):
        print_on_stderr(f"warning: {warning}")
    if arguments.json:
        print(json.dumps({"saved": [saved_file.to_json() for saved_file in saved_files]}))
    else:
        print("\n".join(str(saved_file.path or saved_file.uri) for saved_file in saved_files))
    return 0


def _read_workflow(source: str) -> object:
    from comfypin.workflow.read_file import read_workflow_bytes

    try:
        workflow_bytes = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as exc:
        raise UsageError(f"The workflow {source} cannot be read: {(exc.strerror or str(exc)).lower()}.") from exc
    return read_workflow_bytes(workflow_bytes, source=source).content


def print_job_progress(status: str, progress: object) -> None:
    """Print the job's status and progress on one line."""
    progress_text = progress if progress is None or isinstance(progress, str) else json.dumps(progress)
    print_on_stderr(status if progress_text is None else f"{status}: {progress_text}")


def _list_strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
