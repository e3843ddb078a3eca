"""Run a workflow on a release, and deliver its outputs.

The release is a lock (--lock FILE or NAME, else LOCK_PATH, else COMFY_VERSION_NAME). A ComfyUI of your own needs none:
the one in --comfy-home DIR, the one at --engine-url URL, or, if nothing is named, the one that runs at port 8188. The
result then says "unpinned", because nobody knows what made it. The workflow is a file as ComfyUI saves it (UI format),
exports it (API format), or a picture that ComfyUI saved; `-` reads it from stdin, and an empty one, {}, is a smoke test
of the engine.

stdout holds results only: with --output base64 the outputs as base64, one a line; with file and buckets the place of
each, one a line; with --json one JSON object. Progress and logs go to stderr, as JSON lines with --json.
"""

import argparse
import json
import re
import sys
import time
import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import print_on_stderr, read_release, read_workflow, shown_address
from comfypin.cli.flag_values import parse_seconds
from comfypin.cli.signals import run_until_stopped
from comfypin.engine.interface import Warned
from comfypin.errors import ConfigError, UsageError
from comfypin.outputs.errors import NothingToWrite
from comfypin.outputs.modes import DEFAULT_MODE, OUTPUT_MODES, OutputMode, named_mode
from comfypin.plurals import format_size
from comfypin.settings.environment import Settings

if TYPE_CHECKING:
    from comfypin.cli.console import ProgressReporter
    from comfypin.jobs.job import JobResult
    from comfypin.jobs.prepare import RunRequest
    from comfypin.lock.model import Lock
    from comfypin.outputs.interface import Output, OutputSink
    from comfypin.wiring import EngineChoice

# The id becomes part of keys and file names.
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Outputs cost GPU time, so those that a bucket refuses are kept here.
_UNDELIVERED = Path("out/undelivered")

EXAMPLES = """examples:
  comfypin run --comfy-home ~/ComfyUI --workflow cat.json --output file
  comfypin run --engine-url http://127.0.0.1:8188 --workflow cat.png --set KSampler.seed=random --out-dir pictures
  comfypin run --lock wan22 --workflow video.json --input LoadImage=first.png --output s3
  comfypin run --lock demo --workflow - --json < workflow.json"""
_WITHOUT_LOCK = (
    "Without a lock: --comfy-home DIR starts a ComfyUI of your own, --engine-url URL takes one that runs (none answers "
    "at http://127.0.0.1:8188), and --lock demo is the built-in engine, which has no models."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `run_job`; the door `python -m rp_handler.main` has the same."""
    request_flags = parser.add_argument_group("what to run")
    request_flags.add_argument(
        "--lock", metavar="FILE|NAME", help="the release: a lock file, or the name of one in ./lockfiles"
    )
    request_flags.add_argument("--workflow", metavar="FILE", required=True, help="the workflow; - is stdin")
    request_flags.add_argument(
        "--set",
        metavar="NODE.INPUT=VALUE",
        action="append",
        default=[],
        help='change an input: 6.text="a cat", KSampler.seed=random (by node id, title or unique class); repeatable',
    )
    request_flags.add_argument(
        "--randomize-seeds",
        action="store_true",
        help="change the seeds as ComfyUI's page does between runs (fixed ones stay; --set has the last word)",
    )
    request_flags.add_argument(
        "--input-dir", metavar="DIR", type=Path, help="the folder of input files (default: the workflow's folder)"
    )
    request_flags.add_argument(
        "--input", metavar="NODE=FILE", action="append", default=[], help="point a load node at a file; repeatable"
    )
    add_engine_flags(parser)
    add_output_flags(parser)
    job_flags = parser.add_argument_group("how to run")
    job_flags.add_argument("--timeout", metavar="S", type=parse_seconds, help="cancel the prompt after S seconds")
    job_flags.add_argument(
        "--job-id", metavar="ID", type=_parse_job_id, help="the job's name in results and keys (default: random)"
    )
    add_report_flags(parser)


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which engine runs the workflow."""
    engine_flags = parser.add_argument_group("engine")
    engine_flags.add_argument(
        "--engine",
        choices=("embedded", "comfyui", "remote"),
        help="the built-in CPU engine for nodes without models, a ComfyUI that is started, or one that runs already "
        "(default: the lock's; remote if --engine-url is given, comfyui if --comfy-home is)",
    )
    engine_flags.add_argument("--engine-url", metavar="URL", help="the address of a running ComfyUI")
    engine_flags.add_argument(
        "--comfy-home",
        metavar="DIR",
        type=Path,
        help="the ComfyUI to start (default: COMFY_HOME); with --engine-url, the folder "
        "that it runs from, which is then compared with the lock",
    )
    engine_flags.add_argument(
        "--python",
        metavar="PYTHON|DIR",
        type=Path,
        help="the Python of that ComfyUI, or its environment (default: COMFY_PYTHON, else the one that is found)",
    )
    engine_flags.add_argument("--models-dir", metavar="DIR", type=Path, help="the models folder (default: MODELS_DIR)")


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose the destination of outputs."""
    output_flags = parser.add_argument_group("outputs")
    output_flags.add_argument(
        "--output",
        choices=OUTPUT_MODES,
        help="how outputs are delivered (default: OUTPUT_MODE, else gcs; file with --out-dir)",
    )
    output_flags.add_argument(
        "--out-file",
        metavar="FILE",
        type=Path,
        help="with base64: write the decoded bytes here instead of printing; further outputs go to FILE-2, FILE-3, ...",
    )
    output_flags.add_argument(
        "--out-dir", metavar="DIR", type=Path, help="with file: the folder (default: out); existing files are kept"
    )
    output_flags.add_argument("--gcs-bucket", metavar="BUCKET", help="with gcs: the bucket (default: GCS_BUCKET)")
    output_flags.add_argument(
        "--gcs-prefix", metavar="PREFIX", help="with gcs: the prefix of keys (default: GCS_PREFIX)"
    )
    output_flags.add_argument("--previews", action="store_true", help="deliver temporary outputs (PreviewImage) too")


def add_report_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how results and progress are printed."""
    report_flags = parser.add_argument_group("reports")
    report_flags.add_argument(
        "--json", action="store_true", help="print the result as JSON; progress as JSON lines on stderr"
    )
    report_flags.add_argument("--keep-temp", action="store_true", help="keep what the engine wrote, for debugging")
    report_flags.add_argument("--verbose", action="store_true", help="add the engine's log, and tracebacks")


def execute(arguments: argparse.Namespace) -> int:
    """Run the workflow and print the addresses of its outputs."""
    from comfypin.cli import console

    console.configure_logging(as_json=arguments.json, verbose=arguments.verbose)
    run_plan = _make_plan(arguments, arguments.settings)
    with console.open_reporter(as_json=arguments.json) as reporter:
        run_plan = _ensure_env(run_plan, reporter)
        result = run_until_stopped(_run_job(run_plan, reporter))
    _print_result(result, run_plan)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Holds the parsed command line; everything that needs no engine has been checked. `lock` is None if unpinned."""

    request: "RunRequest"
    lock: "Lock | None"
    engine: "EngineChoice"
    sink: "OutputSink"
    mode: OutputMode
    out_file: Path | None
    as_json: bool


def _make_plan(arguments: argparse.Namespace, settings: Settings) -> RunPlan:
    mode = _choose_mode(arguments, settings)
    # Before the bucket is asked: a typo in a file's name is nearer than a key that expired.
    request = _make_request(arguments)
    lock = _read_lock(arguments, settings)
    engine = _choose_engine(arguments, settings, lock)
    return RunPlan(
        request=request,
        lock=lock,
        engine=engine,
        sink=_open_sink(mode, arguments, settings),
        mode=mode,
        out_file=arguments.out_file,
        as_json=arguments.json,
    )


def _open_sink(mode: OutputMode, arguments: argparse.Namespace, settings: Settings) -> "OutputSink":
    from comfypin import wiring
    from comfypin.settings.errors import SettingMissing

    try:
        return wiring.make_sink(
            mode,
            settings,
            out_file=arguments.out_file,
            out_dir=arguments.out_dir,
            bucket=arguments.gcs_bucket,
            prefix=arguments.gcs_prefix,
            keep_in=_UNDELIVERED,
        )
    except SettingMissing as error:
        # Most who meet this wanted no bucket, since the documented default is one, or have set another store's.
        error.command_hint = (
            _other_store_hint(mode, settings) + "To save the outputs on this machine instead, add --output file."
        )
        raise


def _other_store_hint(mode: OutputMode, settings: Settings) -> str:
    """Return which --output the variables are set for, if not for the one that was chosen."""
    from comfypin.storage.registry import KINDS, first_configured_kind

    try:
        configured_kind = first_configured_kind(settings.variables)
    except ConfigError:
        return ""
    if configured_kind is None or configured_kind == mode:
        return ""
    store_title = KINDS[configured_kind].title
    return f"The variables here name a bucket of {store_title}: to deliver there, add --output {configured_kind}. "


def _read_lock(arguments: argparse.Namespace, settings: Settings) -> "Lock | None":
    """Return the lock, or None if the user named none and has a ComfyUI that runs the job. Raises `LockError`.

    The ComfyUI is put into the flags if they name none: one that runs, COMFY_HOME's, or the one that is asked for.
    """
    from comfypin.lock.errors import LockNotNamed

    try:
        return read_release(arguments.lock, settings)
    except LockNotNamed as error:
        if arguments.engine_url is not None or arguments.comfy_home is not None or arguments.engine == "embedded":
            return None
        from comfypin.cli.own_comfyui import ask_for_comfyui, find_own_comfyui

        own_comfyui = find_own_comfyui(settings) or ask_for_comfyui()
        if own_comfyui is None:
            raise LockNotNamed(releases=error.releases, _instead=_WITHOUT_LOCK) from None
        print_on_stderr(f"No lock is named: {own_comfyui.said} runs it, unpinned.")
        arguments.engine_url, arguments.comfy_home = own_comfyui.url, own_comfyui.home
        return None


def _choose_engine(arguments: argparse.Namespace, settings: Settings, lock: "Lock | None") -> "EngineChoice":
    from comfypin import wiring
    from comfypin.lock.model import EngineKind, EngineSpec

    # A home that is named is to be used: the lock's own engine would leave it aside without a word.
    implied_kind: EngineKind | None = (
        "comfyui" if arguments.comfy_home is not None and arguments.engine_url is None else None
    )
    return wiring.choose_engine(
        EngineSpec() if lock is None else lock.engine,
        settings.with_flags(
            comfy_home=arguments.comfy_home, models_dir=arguments.models_dir, comfy_python=arguments.python
        ),
        kind=arguments.engine or implied_kind,
        engine_url=arguments.engine_url,
        keep_temp=arguments.keep_temp,
        url_home=arguments.comfy_home,
    )


def _ensure_env(run_plan: RunPlan, reporter: "ProgressReporter") -> RunPlan:
    """Return the plan with an engine whose env matches the lock; the env is realized if it is missing."""
    from comfypin import wiring

    if run_plan.lock is None:
        return run_plan
    engine = wiring.ensure_env(
        run_plan.lock, run_plan.engine, report=reporter.report_step, report_bytes=reporter.report_bytes
    )
    return replace(run_plan, engine=engine)


async def _run_job(run_plan: RunPlan, reporter: "ProgressReporter") -> "JobResult":
    import asyncio

    from comfypin import wiring
    from comfypin.jobs.prepare import prepare_job
    from comfypin.jobs.run import run_job

    began_s = time.monotonic()
    is_remote = run_plan.engine.kind == "remote"
    reporter.report_step("Asking the running engine." if is_remote else f"Starting the {run_plan.engine.kind} engine.")
    async with wiring.open_engine(run_plan.engine) as engine:
        catalogue = await engine.catalogue()
        ready_s = time.monotonic()
        release = await asyncio.to_thread(wiring.name_release, run_plan.lock, run_plan.engine, is_logged=False)
        prepared_job = prepare_job(
            run_plan.request,
            lock=run_plan.lock,
            catalogue=catalogue,
            now=datetime.now().astimezone(),
            release=release,
        )
        prepared_s = time.monotonic()
        reporter.attach_graph(prepared_job.graph)
        for warning in prepared_job.warnings:
            reporter.report_event(Warned(message=warning))
        wiring.watch_uploads(run_plan.sink, reporter.report_upload)
        result = await run_job(prepared_job, engine=engine, sink=run_plan.sink, on_event=reporter.report_event)
    # `run` measures from here on; these phases came before.
    earlier_phases = {"start": ready_s - began_s, "prepare": prepared_s - ready_s}
    return replace(result, phase_s={**earlier_phases, **result.phase_s})


def _choose_mode(arguments: argparse.Namespace, settings: Settings) -> OutputMode:
    """Return the output mode. A flag that fits one mode implies it. Raises `UsageError` if --output names another."""
    implied_modes: dict[OutputMode, bool] = {
        "file": arguments.out_dir is not None,
        "base64": arguments.out_file is not None,
        "gcs": arguments.gcs_bucket is not None or arguments.gcs_prefix is not None,
    }
    mode_flags = {"file": "--out-dir", "base64": "--out-file", "gcs": "--gcs-bucket or --gcs-prefix"}
    named_modes: list[OutputMode] = [mode for mode, given in implied_modes.items() if given]
    chosen_mode: OutputMode = arguments.output or (
        named_modes[0] if named_modes else named_mode(settings.variables) or DEFAULT_MODE
    )
    for mode in named_modes:
        if mode != chosen_mode:
            flags = mode_flags[mode]
            raise UsageError(f"{flags} only works with --output {mode}, not with --output {chosen_mode}; drop one.")
    return chosen_mode


def _make_request(arguments: argparse.Namespace) -> "RunRequest":
    from comfypin.jobs.prepare import RunRequest, graph_of_document
    from comfypin.workflow.inputs_file import read_inputs_file
    from comfypin.workflow.overrides import parse_override

    document = read_workflow(arguments.workflow)
    if document.format != "ui":
        graph_of_document(document)  # what is wrong with it by itself is said before an engine is started
    # --job-id may repeat, but each attempt must find its own files in the engine.
    submission = str(uuid.uuid4())
    workflow_folder = Path() if arguments.workflow == "-" else Path(arguments.workflow).parent
    if arguments.input_dir is not None and not arguments.input_dir.is_dir():
        raise UsageError(f"--input-dir {arguments.input_dir} is not a folder.")
    return RunRequest(
        document=document,
        job_id=arguments.job_id or submission,
        submission_id=submission,
        overrides=tuple(parse_override(override_text) for override_text in arguments.set),
        input_files=tuple(arguments.input),
        input_folder=arguments.input_dir or workflow_folder,
        timeout_s=arguments.timeout,
        with_previews=arguments.previews,
        randomize_seeds=arguments.randomize_seeds,
        # stdin has no file beside it.
        inputs_file=None if arguments.workflow == "-" else read_inputs_file(Path(arguments.workflow)),
    )


def _print_result(job_result: "JobResult", run_plan: RunPlan) -> None:
    if run_plan.out_file is not None and not job_result.deliveries:
        # A script would otherwise read an old file.
        raise NothingToWrite(path=run_plan.out_file, temporary=job_result.held_back)
    if run_plan.as_json:
        from comfypin.jobs.result_json import report_to_json

        print(json.dumps(report_to_json(job_result), ensure_ascii=False))
        return
    if run_plan.lock is None:
        print_on_stderr("Unpinned: no lock says what this engine runs.")
    for node_id, texts in job_result.texts.items():
        for output_text in texts:
            print(f"Node {node_id} says: {output_text}", file=sys.stderr)
    for delivery in job_result.deliveries:
        if delivery.data_base64 is not None:
            print(delivery.data_base64)
        elif run_plan.mode == "base64":
            # A file, or what was too big for INLINE_MAX_BYTES: stdout is for base64 alone.
            print(f"Wrote {delivery.uri} ({_describe_output(delivery.output)}).", file=sys.stderr)
        else:
            print(shown_address(delivery.uri, delivery.url))


def _describe_output(output: "Output") -> str:
    dimensions = f"{output.width}x{output.height} " if output.width else ""
    return f"{dimensions}{output.media_type}, {format_size(output.size_bytes)}, from node {output.node_id}"


def _parse_job_id(job_id_text: str) -> str:
    if not _JOB_ID.fullmatch(job_id_text):
        raise argparse.ArgumentTypeError(f"{job_id_text!r} is not 1 to 100 letters, digits, '.', '_' or '-'")
    return job_id_text
