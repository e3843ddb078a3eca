"""List, show, watch, cancel, retry and download the jobs of a server elsewhere.

The server is comfypin serve, a Runpod Serverless endpoint, or any that speaks Comfy API v2 (--server or
COMFYPIN_SERVER). What one of them cannot do is said.
"""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from comfypin.cli.common import shown_address
from comfypin.cli.flag_values import whole_number
from comfypin.cli.job_progress import describe_progress
from comfypin.cli.remote_jobs import (
    OpenServer,
    add_out_dir_flag,
    add_server_flags,
    add_wait_flag,
    follow_to_end,
    open_server,
    raise_unless_completed,
    save_job_outputs,
    saying_that_job_goes_on,
)
from comfypin.errors import UsageError
from comfypin.plurals import format_size

if TYPE_CHECKING:
    from comfypin.client.interface import RemoteJob, RemoteJobFilter

_STATES = ("IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(dest="verb", metavar="COMMAND")
    list_parser = commands.add_parser("ls", help="list jobs, newest first")
    list_parser.add_argument(
        "--state",
        action="append",
        default=[],
        type=str.upper,
        choices=_STATES,
        help="only jobs of this state; repeatable",
    )
    list_parser.add_argument("--workflow", metavar="NAME", help="only jobs of this workflow of the server")
    list_parser.add_argument("--text", help="only jobs with this text in a prompt, the id or the workflow's name")
    list_parser.add_argument("--release", metavar="NAME", help="only jobs of this release")
    list_parser.add_argument(
        "--limit", metavar="N", type=whole_number(1, 10_000), default=50, help="the most jobs to list (50)"
    )
    list_parser.add_argument("--after", metavar="CURSOR", help="go on where an earlier list ended, as it says")
    add_server_flags(list_parser)
    for verb, help_text in (
        ("show", "show a job: state, progress, outputs, error"),
        ("watch", "follow a job to its end"),
        ("cancel", "stop a job"),
        ("retry", "run a job again"),
        ("download", "save the outputs of a job that has completed"),
    ):
        verb_parser = commands.add_parser(verb, help=help_text)
        verb_parser.add_argument("job", metavar="ID", help="the job's id")
        if verb == "watch":
            add_wait_flag(verb_parser)
        if verb == "download":
            add_out_dir_flag(verb_parser)
        add_server_flags(verb_parser)


def execute(arguments: argparse.Namespace) -> int:
    """Do what the subcommand says."""
    if arguments.verb is None:
        raise UsageError("Say what to do: comfypin jobs ls, show, watch, cancel, retry or download.")
    if arguments.verb != "ls" and not arguments.job.strip():
        raise UsageError("The job's id is empty; `comfypin jobs ls` lists them.")
    opened_server = open_server(arguments)
    match arguments.verb:
        case "ls":
            _list_jobs(opened_server, arguments)
        case "show":
            _print_job(opened_server, opened_server.server.show(arguments.job))
        case "watch":
            with saying_that_job_goes_on(opened_server, arguments.job):
                ended = follow_to_end(opened_server, arguments.job, timeout_s=arguments.timeout)
            _print_job(opened_server, ended)
        case "cancel":
            _print_job(opened_server, opened_server.server.cancel(arguments.job))
        case "retry":
            job = opened_server.server.retry(arguments.job)
            opened_server.print_result({"job": job.to_json()}, lambda: [job.id])
        case "download":
            _download(opened_server, arguments)
    return 0


def _list_jobs(opened_server: OpenServer, arguments: argparse.Namespace) -> None:
    from comfypin.client.interface import RemoteJobFilter

    job_filter = RemoteJobFilter(
        states=tuple(arguments.state),
        workflow=arguments.workflow,
        release=arguments.release,
        text=arguments.text,
        after=arguments.after,
        limit=arguments.limit,
    )
    jobs, after = _read_pages(opened_server, job_filter)
    opened_server.print_result(
        {"jobs": [job.summary_json() for job in jobs], "next": after}, lambda: _table_lines(jobs)
    )
    if after is not None and not opened_server.as_json:
        opened_server.report(f"There are more jobs: add --after {after}")


def _read_pages(opened_server: OpenServer, job_filter: "RemoteJobFilter") -> "tuple[list[RemoteJob], str | None]":
    """Return as many jobs as are wanted, and where the list goes on."""
    page = opened_server.server.list_jobs(job_filter)
    jobs = list(page.jobs)
    while page.next is not None and len(jobs) < job_filter.limit:
        page = opened_server.server.list_jobs(replace(job_filter, after=page.next, limit=job_filter.limit - len(jobs)))
        jobs += page.jobs
    return jobs[: job_filter.limit], page.next


def _download(opened_server: OpenServer, arguments: argparse.Namespace) -> None:
    from comfypin.client.errors import NotOffered
    from comfypin.client.interface import API_NAMES

    job = opened_server.server.show(arguments.job)
    raise_unless_completed(opened_server, job)
    if not job.has_ended:
        address = opened_server.server.address
        reason = f"has not finished the job: it is {job.status}; follow it with `comfypin jobs watch {job.id}`"
        raise NotOffered(server=address.named, api=API_NAMES[address.kind], reason=reason)
    saved = save_job_outputs(opened_server, job, arguments.out_dir)
    facts: dict[str, object] = {"job": job.to_json(), "saved": [saved_output.to_json() for saved_output in saved]}
    opened_server.print_result(facts, lambda: [str(saved_output.path or saved_output.uri) for saved_output in saved])


def _print_job(opened_server: OpenServer, job: "RemoteJob") -> None:
    opened_server.print_result({"job": job.to_json()}, lambda: _job_lines(job))


def _job_lines(job: "RemoteJob") -> list[str]:
    from comfypin.client.json_client import printable

    facts = {
        "id": job.id,
        "status": job.status,
        "workflow": job.workflow,
        "release": job.release,
        "created": job.created_at,
        "started": job.started_at,
        "finished": job.finished_at,
        "place": job.position,
        "progress": _progress_text(job) or None,
        "error": job.error,
    }
    lines = [f"{fact_name + ':':<10} {printable(str(fact))}" for fact_name, fact in facts.items() if fact is not None]
    for output in job.outputs:
        # Those of our own servers open with a token only: `jobs download` has it.
        address = shown_address(output.uri, output.url) if output.uri else None
        output_uri = f"  {printable(address)}" if address else ""
        size = f"  {format_size(output.size_bytes)}" if output.size_bytes is not None else ""
        lines.append(f"{'output:':<10} {printable(output.filename)}{size}{output_uri}")
    return lines + [f"{'warning:':<10} {printable(warning)}" for warning in job.warnings]


def _table_lines(jobs: "list[RemoteJob]") -> list[str]:
    from comfypin.client.json_client import printable

    rows = [("ID", "STATUS", "CREATED", "WORKFLOW", "")]
    rows += [
        (job.id, job.status, (job.created_at or "-")[:19], job.workflow or "-", _progress_text(job) or job.error or "")
        for job in jobs
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        printable("  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[4]])).rstrip()
        for row in rows
    ]


def _progress_text(job: "RemoteJob") -> str:
    if job.has_ended or job.progress is None:
        return f"place {job.position}" if job.position and not job.has_ended else ""
    return describe_progress(job.progress).strip()
