"""What `submit` and `jobs` share: the server, following a job, and what is printed of its end."""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import print_on_stderr
from comfypin.cli.flag_values import parse_seconds
from comfypin.cli.stopping import Stopped

if TYPE_CHECKING:
    from comfypin.client.interface import JobServer, RemoteJob
    from comfypin.client.save_outputs import SavedOutput
    from comfypin.http.client import HttpClient


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every command of jobs elsewhere has."""
    parser.add_argument(
        "--server",
        metavar="URL",
        help="comfypin serve (http://HOST:8000), runpod://ENDPOINT_ID, or Comfy API v2 (https://HOST/api/v2) "
        "(default: COMFYPIN_SERVER); its token is COMFYPIN_TOKEN, Runpod's RUNPOD_API_KEY",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object; progress as JSON lines on stderr")
    parser.add_argument("--verbose", action="store_true", help="show the cause of failures")


def add_out_dir_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag of the folder for outputs."""
    parser.add_argument(
        "--out-dir", metavar="DIR", type=Path, default=Path("out"), help="the folder for outputs (out); files stay"
    )


def add_wait_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag that limits how long a job is followed."""
    parser.add_argument(
        "--timeout", metavar="S", type=parse_seconds, help="stop following after S seconds; the job goes on"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenServer:
    """A server that was found, and the client that fetches outputs from it."""

    server: "JobServer"
    downloads: "HttpClient"
    as_json: bool

    def report(self, sentence: str) -> None:
        """Print a sentence on stderr, with --json as a JSON line."""
        report_sentence(sentence, as_json=self.as_json)

    def print_result(self, facts: dict[str, object], lines: "Callable[[], list[str]]") -> None:
        """Print one JSON object with the server, or the lines for people."""
        if self.as_json:
            print(json.dumps({"server": self.server.address.to_json(), **facts}, ensure_ascii=False))
        elif shown_lines := lines():
            print("\n".join(shown_lines))


def open_server(arguments: argparse.Namespace) -> OpenServer:
    """Find the server that is meant, and say on stderr what it is."""
    from comfypin.cli import console
    from comfypin.client.interface import API_NAMES
    from comfypin.wiring import open_job_server

    console.configure_logging(as_json=arguments.json, verbose=arguments.verbose)

    report = partial(report_sentence, as_json=arguments.json)
    server, downloads = open_job_server(arguments.server, arguments.settings, report=report)
    report(f"Server: {server.address.named} ({API_NAMES[server.address.kind]}).")
    return OpenServer(server=server, downloads=downloads, as_json=arguments.json)


def report_sentence(sentence: str, *, as_json: bool) -> None:
    """Print a sentence on stderr, as a JSON line if asked for."""
    print_on_stderr(json.dumps({"event": "note", "message": sentence}, ensure_ascii=False) if as_json else sentence)


@contextmanager
def saying_that_job_goes_on(opened_server: OpenServer, job_id: str) -> Iterator[None]:
    """Raise `FollowingStopped` if a signal ends the block: it ends the following, not the job."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        from comfypin.client.errors import FollowingStopped, FollowingTerminated

        is_terminated = isinstance(stopped, Stopped) and stopped.failure.exit_code != 130
        failure = FollowingTerminated if is_terminated else FollowingStopped
        raise failure(job_id=job_id, server=opened_server.server.address.named) from None


def follow_to_end(opened_server: OpenServer, job: "RemoteJob | str", *, timeout_s: float | None) -> "RemoteJob":
    """Follow a job with progress on stderr, and return it if it completed. Raises `RemoteJobFailed` if it did not."""
    from comfypin.cli.job_progress import open_job_reporter
    from comfypin.client.follow import FollowReports, follow_job
    from comfypin.client.json_client import printable

    server_name = opened_server.server.address.named
    with open_job_reporter(as_json=opened_server.as_json) as reporter:
        reports = FollowReports(
            changed=reporter.report_job,
            lost=lambda reason: reporter.report_note(f"{reason} The job may go on; asking again until it answers."),
            found=lambda: reporter.report_note(f"{server_name} answers again."),
        )
        ended = follow_job(opened_server.server, job, reports, timeout_s=timeout_s)
    for warning in ended.warnings:
        opened_server.report(f"warning: {printable(warning)}")
    raise_unless_completed(opened_server, ended)
    return ended


def raise_unless_completed(opened_server: OpenServer, job: "RemoteJob") -> None:
    """Raise `RemoteJobFailed` if a job ended and did not complete."""
    from comfypin.client.errors import RemoteJobFailed, RemoteJobTimedOut
    from comfypin.client.json_client import clean_text

    if job.has_ended and job.status != "COMPLETED":
        failure = RemoteJobTimedOut if job.status == "TIMED_OUT" else RemoteJobFailed
        reason = clean_text(job.error or "the server gives no reason.")
        raise failure(job_id=job.id, status=job.status, reason=reason, server=opened_server.server.address.named)


def save_job_outputs(opened_server: OpenServer, job: "RemoteJob", out_dir: Path) -> "list[SavedOutput]":
    """Save a job's outputs. Raises `OutputNotFetched`."""
    from comfypin.client.save_outputs import save_outputs

    if not job.outputs:
        opened_server.report(f"Job {job.id} has no outputs.")
    return save_outputs(job.outputs, out_dir, opened_server.downloads)
