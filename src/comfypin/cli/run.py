"""Run a workflow on a release, and deliver its outputs.

The release is a lock (--lock FILE or NAME, else LOCK_PATH, else COMFY_VERSION_NAME). The workflow is a file as
ComfyUI saves it (UI format), exports it (API format), or a picture that ComfyUI saved; `-` reads it from stdin, and an
empty one, {}, is a smoke test of the engine.

stdout holds results only: with --output base64 the outputs as base64, one a line; with file, gcs and s3 the place of
each, one a line; with --json one JSON object. Progress and logs go to stderr, as JSON lines with --json.
"""

import argparse
import json
import math
import re
import sys
import time
import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import read_release, read_workflow
from comfypin.cli.signals import run_until_stopped
from comfypin.engine.interface import Warned
from comfypin.errors import UsageError
from comfypin.outputs.errors import NothingToWrite
from comfypin.outputs.modes import DEFAULT_MODE, OUTPUT_MODES, OutputMode, named_mode
from comfypin.settings.environment import Settings

if TYPE_CHECKING:
    from comfypin.cli.console import Teller
    from comfypin.jobs.job import JobResult
    from comfypin.jobs.prepare import Request
    from comfypin.lock.model import Lock
    from comfypin.outputs.interface import Output, OutputSink
    from comfypin.wiring import EngineChoice

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UNDELIVERED = Path("out/undelivered")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `run`; the door `python -m rp_handler.main` has the same."""
    what = parser.add_argument_group("what to run")
    what.add_argument("--lock", metavar="FILE|NAME", help="the release: a lock file, or the name of one in ./lockfiles")
    what.add_argument("--workflow", metavar="FILE", required=True, help="the workflow; - is stdin")
    what.add_argument(
        "--set",
        metavar="NODE.INPUT=VALUE",
        action="append",
        default=[],
        help='change an input: 6.text="a cat", KSampler.seed=random (by node id, title or unique class); repeatable',
    )
    what.add_argument(
        "--randomize-seeds",
        action="store_true",
        help="change the seeds as ComfyUI's page does between runs (fixed ones stay; --set has the last word)",
    )
    what.add_argument(
        "--input-dir", metavar="DIR", type=Path, help="where input files lie (default: beside the workflow)"
    )
    what.add_argument(
        "--input", metavar="NODE=FILE", action="append", default=[], help="point a load node at a file; repeatable"
    )
    add_engine_flags(parser)
    add_output_flags(parser)
    how = parser.add_argument_group("how to run")
    how.add_argument("--timeout", metavar="S", type=_seconds, help="give up, and cancel the prompt, after S seconds")
    how.add_argument(
        "--job-id", metavar="ID", type=_job_id, help="the job's name in results and keys (default: random)"
    )
    add_telling_flags(parser)


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that say which engine runs the workflow."""
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--engine",
        choices=("embedded", "comfyui", "remote"),
        help="the built-in CPU engine for nodes without models, a ComfyUI that is started, or one that runs already "
        "(default: what the lock says; remote where --engine-url is given)",
    )
    group.add_argument("--engine-url", metavar="URL", help="where a running ComfyUI answers")
    group.add_argument("--comfy-home", metavar="DIR", type=Path, help="the ComfyUI to start (default: COMFY_HOME)")
    group.add_argument("--models-dir", metavar="DIR", type=Path, help="where models lie (default: MODELS_DIR)")


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that say where outputs go."""
    group = parser.add_argument_group("outputs")
    group.add_argument(
        "--output", choices=OUTPUT_MODES, help="where outputs go (default: OUTPUT_MODE, else gcs; file with --out-dir)"
    )
    group.add_argument(
        "--out-file",
        metavar="FILE",
        type=Path,
        help="with base64: write the decoded bytes here instead of printing; further outputs go to FILE-2, FILE-3, ...",
    )
    group.add_argument(
        "--out-dir", metavar="DIR", type=Path, help="with file: the folder (default: out); existing files are kept"
    )
    group.add_argument("--gcs-bucket", metavar="BUCKET", help="with gcs: the bucket (default: GCS_BUCKET)")
    group.add_argument("--gcs-prefix", metavar="PREFIX", help="with gcs: the keys' beginning (default: GCS_PREFIX)")
    group.add_argument("--previews", action="store_true", help="deliver temporary outputs (PreviewImage) too")


def add_telling_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that say what is told, and how."""
    group = parser.add_argument_group("telling")
    group.add_argument("--json", action="store_true", help="print the result as JSON; progress as JSON lines on stderr")
    group.add_argument("--keep-temp", action="store_true", help="keep what the engine wrote, for debugging")
    group.add_argument("--verbose", action="store_true", help="add the engine's log, and tracebacks")


def execute(arguments: argparse.Namespace) -> int:
    """Run the workflow and print where its outputs are."""
    from comfypin.cli import console

    console.configure_logging(as_json=arguments.json, verbose=arguments.verbose)
    plan = _plan(arguments, arguments.settings)
    with console.telling(as_json=arguments.json) as teller:
        plan = _realized(plan, teller)
        result = run_until_stopped(_run(plan, teller))
    _print_result(result, plan)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The command line, parsed: all that can be checked without an engine was."""

    request: "Request"
    lock: "Lock"
    engine: "EngineChoice"
    sink: "OutputSink"
    mode: OutputMode
    out_file: Path | None
    as_json: bool


def _plan(arguments: argparse.Namespace, settings: Settings) -> Plan:
    from comfypin import wiring

    mode = _mode(arguments, settings)
    sink = wiring.make_sink(
        mode,
        settings,
        out_file=arguments.out_file,
        out_dir=arguments.out_dir,
        bucket=arguments.gcs_bucket,
        prefix=arguments.gcs_prefix,
        keep_in=_UNDELIVERED,
    )
    lock = read_release(arguments.lock, settings)
    engine = wiring.choose_engine(
        lock.engine,
        settings.overridden(comfy_home=arguments.comfy_home, models_dir=arguments.models_dir),
        kind=arguments.engine,
        url=arguments.engine_url,
        keep_temp=arguments.keep_temp,
    )
    return Plan(
        request=_request(arguments),
        lock=lock,
        engine=engine,
        sink=sink,
        mode=mode,
        out_file=arguments.out_file,
        as_json=arguments.json,
    )


def _realized(plan: Plan, teller: "Teller") -> Plan:
    """The plan with an engine whose env is what the lock says; made now, where it is not there yet."""
    from comfypin import wiring

    engine = wiring.ensure_env(plan.lock, plan.engine, tell=teller.say)
    return replace(plan, engine=engine)


async def _run(plan: Plan, teller: "Teller") -> "JobResult":
    from comfypin import wiring
    from comfypin.jobs.prepare import prepare
    from comfypin.jobs.run import run

    began_s = time.monotonic()
    remote = plan.engine.kind == "remote"
    teller.say("Asking the running engine." if remote else f"Starting the {plan.engine.kind} engine.")
    async with wiring.open_engine(plan.engine) as engine:
        catalogue = await engine.catalogue()
        ready_s = time.monotonic()
        job = prepare(plan.request, lock=plan.lock, catalogue=catalogue, now=datetime.now().astimezone())
        prepared_s = time.monotonic()
        teller.watch(job.graph)
        for warning in job.warnings:
            teller.hear(Warned(message=warning))
        wiring.watch_uploads(plan.sink, teller.hear_upload)
        result = await run(job, engine=engine, sink=plan.sink, on_event=teller.hear)
    before = {"start": ready_s - began_s, "prepare": prepared_s - ready_s}
    return replace(result, phase_s={**before, **result.phase_s})


def _mode(arguments: argparse.Namespace, settings: Settings) -> OutputMode:
    """Where outputs go; flags that only fit one place choose it, and contradict any other that is named."""
    implied: dict[OutputMode, bool] = {
        "file": arguments.out_dir is not None,
        "base64": arguments.out_file is not None,
        "gcs": arguments.gcs_bucket is not None or arguments.gcs_prefix is not None,
    }
    flags = {"file": "--out-dir", "base64": "--out-file", "gcs": "--gcs-bucket and --gcs-prefix"}
    named: list[OutputMode] = [mode for mode, given in implied.items() if given]
    chosen: OutputMode = arguments.output or (named[0] if named else named_mode(settings.variables) or DEFAULT_MODE)
    for mode in named:
        if mode != chosen:
            raise UsageError(
                f"With --output {chosen} there is no use for {flags[mode]} (meant for {mode}); see --help."
            )
    return chosen


def _request(arguments: argparse.Namespace) -> "Request":
    from comfypin.jobs.prepare import Request, graph_of
    from comfypin.workflow.inputs_file import read_inputs_file
    from comfypin.workflow.overrides import parse_override

    document = read_workflow(arguments.workflow)
    if document.format != "ui":
        graph_of(document)  # what is wrong with it by itself is said before an engine is started
    submission = str(uuid.uuid4())
    beside = Path() if arguments.workflow == "-" else Path(arguments.workflow).parent
    if arguments.input_dir is not None and not arguments.input_dir.is_dir():
        raise UsageError(f"--input-dir {arguments.input_dir} is not a folder.")
    return Request(
        document=document,
        job_id=arguments.job_id or submission,
        submission=submission,
        overrides=tuple(parse_override(text) for text in arguments.set),
        input_files=tuple(arguments.input),
        input_folder=arguments.input_dir or beside,
        timeout_s=arguments.timeout,
        with_previews=arguments.previews,
        randomize_seeds=arguments.randomize_seeds,
        inputs_file=None if arguments.workflow == "-" else read_inputs_file(Path(arguments.workflow)),
    )


def _print_result(result: "JobResult", plan: Plan) -> None:
    if plan.out_file is not None and not result.deliveries:
        raise NothingToWrite(path=plan.out_file, temporary=result.held_back)
    if plan.as_json:
        print(json.dumps(result.to_json(), ensure_ascii=False))
        return
    for node_id, texts in result.texts.items():
        for text in texts:
            print(f"Node {node_id} says: {text}", file=sys.stderr)
    for delivery in result.deliveries:
        if delivery.data_base64 is not None:
            print(delivery.data_base64)
        elif plan.mode == "base64":
            # A file, or what was too big for INLINE_MAX_BYTES: stdout is for base64 alone.
            print(f"Wrote {delivery.uri} ({_described(delivery.output)}).", file=sys.stderr)
        else:
            print(delivery.uri)


def _described(output: "Output") -> str:
    size = f"{output.size_bytes:,} bytes"
    pixels = f"{output.width}x{output.height} " if output.width else ""
    return f"{pixels}{output.media_type}, {size}, from node {output.node_id}"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (0 < seconds < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _job_id(text: str) -> str:
    if not _JOB_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 100 letters, digits, '.', '_' or '-'")
    return text
