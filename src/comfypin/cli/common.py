"""The code that commands share: reading a release or a workflow, common flags, and lines on stderr.

Imported by every command, so nothing heavy is imported at the top.
"""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import ComfypinError

if TYPE_CHECKING:
    from comfypin.lock.codec import ReadLock
    from comfypin.lock.model import Lock
    from comfypin.models.job_models import JobModels
    from comfypin.settings.environment import Settings
    from comfypin.workflow.document import Document

log = logging.getLogger(__name__)


def add_home_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag --home, the same for every command that needs it."""
    parser.add_argument(
        "--home", type=Path, metavar="DIR", help="the folder of the env (default: COMFY_HOME, /opt/comfy)"
    )


def add_job_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that let jobs bring models, the same for `serve` and `worker`."""
    from comfypin.cli.flag_values import whole_number

    flags = parser.add_argument_group("models of jobs")
    flags.add_argument(
        "--allow-models",
        metavar="HOST,...",
        help="let jobs bring models from these hosts and buckets, such as huggingface.co,civitai.com,s3://mine "
        "(default: COMFYPIN_ALLOW_MODELS, else none)",
    )
    flags.add_argument(
        "--max-model-gb",
        type=whole_number(1, 100_000),
        metavar="N",
        help="the largest model that a job may bring, in GB (default: COMFYPIN_MAX_MODEL_GB, else 20)",
    )
    flags.add_argument(
        "--keep-models-gb",
        type=whole_number(1, 1_000_000),
        metavar="N",
        help="the disk space for models that jobs brought, in GB (default: COMFYPIN_KEEP_MODELS_GB, else 100)",
    )


def open_job_models(arguments: argparse.Namespace, lock: "Lock | None", settings: "Settings") -> "JobModels | None":
    """Return what brings the models that jobs name, as the flags say; None if they may name none."""
    from comfypin import wiring
    from comfypin.settings.models import split_names

    return wiring.open_job_models(
        lock,
        settings,
        allowed=split_names(arguments.allow_models or ""),
        private=arguments.allow_private_inputs,
        max_model_gb=arguments.max_model_gb,
        keep_models_gb=arguments.keep_models_gb,
    )


def read_named_lock(lock_name: str | None, settings: "Settings") -> "tuple[str, ReadLock]":
    """Return where the lock that `--lock` or the environment names is, and the lock. Raises `LockError`."""
    # Imported here, so that --help does not pay for it.
    from comfypin.lock.codec import parse_lock, read_lock
    from comfypin.lock.lookup import find_lock

    machine = settings.machine
    if lock_name is None and machine.lock_path is None and (machine.carried_lock or machine.lock_url):
        from comfypin.wiring.carried_locks import fetch_carried_lock

        where, lock_bytes = fetch_carried_lock(settings)
        return where, parse_lock(lock_bytes, where=where)
    lock_path = find_lock(lock_name, lock_path=machine.lock_path, version_name=machine.version_name)
    return str(lock_path), read_lock(lock_path)


def read_release(lock_name: str | None, settings: "Settings") -> "Lock":
    """Return the lock that a flag or the environment names, and log its warnings. Raises `LockError`."""
    lock_path, reading = read_named_lock(lock_name, settings)
    for warning in reading.warnings:
        log.warning("%s: %s", lock_path, warning)
    return reading.lock


def read_workflow(path: str) -> "Document":
    """Read a workflow file of any format, or stdin for `-`. Raises `WorkflowNotFound`, `WorkflowUnreadable`."""
    from comfypin.workflow.errors import WorkflowNotFound
    from comfypin.workflow.read_file import MAX_FILE_BYTES, read_workflow_bytes

    if not path:
        raise WorkflowNotFound(path="(an empty name)", reason="is the variable that should hold its name unset?")
    try:
        if path == "-":
            # A limit, since stdin may never end.
            return read_workflow_bytes(sys.stdin.buffer.read(MAX_FILE_BYTES), source="on stdin")
        with Path(path).open("rb") as workflow_file:
            return read_workflow_bytes(workflow_file.read(MAX_FILE_BYTES), source=path)
    # `open` raises ValueError for a path with a NUL byte.
    except (OSError, ValueError) as exc:
        reason = (exc.strerror or str(exc)).lower() if isinstance(exc, OSError) else str(exc)
        raise WorkflowNotFound(path=path, reason=reason, near=_files_named_like(path)) from exc


def _files_named_like(path: str) -> tuple[str, ...]:
    """Return the files beside a missing one whose names are near to its."""
    import difflib

    wanted_path = Path(path)
    try:
        names = {entry.name.casefold(): entry for entry in wanted_path.parent.iterdir() if entry.is_file()}
        near = difflib.get_close_matches(wanted_path.name.casefold(), names, n=3, cutoff=0.8)
    # The name that is not there may hold what no path can.
    except (OSError, ValueError):
        return ()
    return tuple(str(names[file_name]) for file_name in near if names[file_name].name != wanted_path.name)


def report_progress(progress_text: str) -> None:
    """Print one line of progress on stderr."""
    print(f"comfypin: {progress_text}", file=sys.stderr)


def print_on_stderr(message: str) -> None:
    """Print a line that is meant for people; stdout belongs to results."""
    print(message, file=sys.stderr)


def shown_address(uri: str | None, url: str | None) -> str | None:
    """Return where an output is: on a terminal the link that a browser opens, if its bucket gives one.

    Elsewhere it is the object's own address: scripts take that on, and what they write into logs must not be signed.
    """
    is_in_bucket = uri is None or "://" in uri
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return url if url is not None and is_in_bucket and is_terminal else uri


def report_failure(error: ComfypinError, arguments: Sequence[str]) -> None:
    """Print a failure: one sentence on stderr, and with --json an object on stdout."""
    if "--json" in arguments:
        import json

        try:
            print(json.dumps({"error": {**error.to_json(), "message": error.command_message}}, default=str), flush=True)
        except OSError:
            abandon_stdout()  # nobody listens there; stderr and the exit code still tell
    with contextlib.suppress(OSError):
        print(f"comfypin: {error.command_message}", file=sys.stderr)
        if "--verbose" in arguments:
            if error.__cause__ is not None:
                print(f"  because of {type(error.__cause__).__name__}: {error.__cause__}", file=sys.stderr)
            print(f"  comfypin explain {type(error).__name__} says what helps", file=sys.stderr)
        sys.stderr.flush()


def abandon_stdout() -> None:
    """Discard what is still buffered for stdout, so that Python does not fail when it closes it."""
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, 1)
    os.close(null_device)
