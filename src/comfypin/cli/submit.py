"""Send a workflow as a job to a server elsewhere, follow it, and save its outputs.

The server is comfypin serve, a Runpod Serverless endpoint, or any that speaks Comfy API v2; which one it is, its
address tells, or it is asked once. Ctrl-C stops the following, not the job: `comfypin jobs` watches and cancels.

stdout holds the paths of the saved outputs, or the addresses of those in a bucket, one a line; with --detach the id.
"""

import argparse
from typing import TYPE_CHECKING

from comfypin.cli.common import read_workflow
from comfypin.cli.remote_jobs import (
    add_out_dir_flag,
    add_server_flags,
    add_wait_flag,
    follow_to_end,
    open_server,
    save_job_outputs,
    saying_that_job_goes_on,
)

if TYPE_CHECKING:
    from comfypin.client.interface import JobOrder


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("workflow", help="a workflow of any kind (API v2 takes API format); - is stdin")
    parser.add_argument(
        "--set", metavar="NODE.INPUT=VALUE", action="append", default=[], help="change an input; repeatable"
    )
    parser.add_argument(
        "--input",
        metavar="NODE=FILE",
        action="append",
        default=[],
        help="give a load node a file of this machine, or an address that the server fetches; repeatable",
    )
    parser.add_argument("--randomize-seeds", action="store_true", help="change the seeds as ComfyUI's page does")
    parser.add_argument("--detach", action="store_true", help="print the job's id, and do not follow it")
    add_out_dir_flag(parser)
    add_wait_flag(parser)
    add_server_flags(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Send the job."""
    order = _make_order(arguments)
    opened_server = open_server(arguments)
    job = opened_server.server.submit(order)
    with saying_that_job_goes_on(opened_server, job.id):
        if arguments.detach:
            opened_server.print_result({"job": job.to_json()}, lambda: [job.id])
            return 0
        opened_server.report(f"Sent as job {job.id}.")
        ended = follow_to_end(opened_server, job, timeout_s=arguments.timeout)
    saved = save_job_outputs(opened_server, ended, arguments.out_dir)
    facts: dict[str, object] = {"job": ended.to_json(), "saved": [saved_output.to_json() for saved_output in saved]}
    opened_server.print_result(facts, lambda: [str(saved_output.path or saved_output.uri) for saved_output in saved])
    return 0


def _make_order(arguments: argparse.Namespace) -> "JobOrder":
    from comfypin.client.interface import JobOrder
    from comfypin.client.order_files import parse_input_source
    from comfypin.workflow.override_nodes import require_override_nodes
    from comfypin.workflow.overrides import parse_override

    document = read_workflow(arguments.workflow)
    overrides = tuple(parse_override(override_text) for override_text in arguments.set)
    # A job that cannot begin need not wait in a queue until that shows.
    require_override_nodes(document, overrides)
    return JobOrder(
        overrides=overrides,
        inputs=tuple(parse_input_source(input_text) for input_text in arguments.input),
        randomize_seeds=arguments.randomize_seeds,
        document=document,
    )
