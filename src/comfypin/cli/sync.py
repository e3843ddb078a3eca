"""Sync a folder to a bucket without losing a file: each one is recorded on disk, then delivered and confirmed.

comfypin sync DIR gs://bucket/prefix          keys are the paths under DIR
comfypin sync DIR az://container/prefix       Azure Blob Storage
comfypin sync DIR s3://bucket/prefix --once   deliver the present files, then exit
comfypin sync DIR /mnt/backup                 a folder is a destination too
comfypin sync status DIR DESTINATION          what is pending, what fails and why
"""

import argparse
import contextlib
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.flag_values import parse_rate, seconds_below
from comfypin.cli.transfer_progress import TransferMeter, describe_time, ticking
from comfypin.errors import ComfypinError, UsageError
from comfypin.plurals import format_count, format_rate, format_size

if TYPE_CHECKING:
    from comfypin.sync.outbox import Outbox
    from comfypin.sync.outbox_row import OutboxCounts, OutboxRow
    from comfypin.sync.sync_events import SyncEvent
    from comfypin.sync.sync_options import SyncOptions

_SECONDS = seconds_below(1e6, or_zero=True)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("words", nargs="+", metavar="[status] DIR DESTINATION", help="the folder, and its destination")
    parser.add_argument("--include", action="append", default=[], metavar="GLOB", help="take only these names")
    parser.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="never take these names")
    parser.add_argument("--once", action="store_true", help="deliver the present files, then exit")
    parser.add_argument("--delete-after", action="store_true", help="remove each file here once it is confirmed there")
    parser.add_argument(
        "--on-change",
        choices=["overwrite", "version", "ignore"],
        default="overwrite",
        help="a file that is rewritten: replace the object, add a.r2.png, or leave the first (overwrite)",
    )
    parser.add_argument(
        "--settle", type=_SECONDS, default=2.0, metavar="S", help="a file is complete if unchanged for S seconds (2)"
    )
    parser.add_argument(
        "--poll",
        type=_SECONDS,
        default=5.0,
        metavar="S",
        help="scan every S seconds if the file system sends no events (5)",
    )
    parser.add_argument(
        "--limit", type=parse_rate, metavar="RATE", help="the rate limit of all uploads together, such as 20MB/s"
    )
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="uploads at once (8)")
    parser.add_argument(
        "--grace", type=_SECONDS, default=10.0, metavar="S", help="after SIGTERM, deliver for S more seconds (10)"
    )
    parser.add_argument("--outbox", type=Path, metavar="FILE", help="the outbox, on a local disk")
    parser.add_argument("--outbox-copy", type=Path, metavar="FILE", help="a copy of it on a volume, for the next pod")
    parser.add_argument(
        "--manifest", action="store_true", help="keep a list of delivered files at the destination (.comfypin/)"
    )
    parser.add_argument("--metrics", action="store_true", help="with status: print Prometheus text")
    parser.add_argument("--json", action="store_true", help="events and results as JSON lines")
    parser.add_argument("--verbose", action="store_true", help="print a line for every file")


def execute(arguments: argparse.Namespace) -> int:
    """Sync the folder, or print the status."""
    if arguments.words[0] == "status" and len(arguments.words) == 3:
        return _show_status(arguments, *arguments.words[1:])
    if len(arguments.words) != 2 or arguments.words[0] == "status":
        raise UsageError("comfypin sync takes a folder and a destination: comfypin sync DIR s3://bucket/prefix.")
    if not 1 <= arguments.workers <= 64:
        raise UsageError(f"--workers {arguments.workers} is not a number from 1 to 64.")
    return _sync_folder(arguments, Path(arguments.words[0]), arguments.words[1])


def _sync_folder(arguments: argparse.Namespace, folder: Path, destination: str) -> int:
    from comfypin.outputs.media_types import identify_file
    from comfypin.sync.errors import FolderMissing, StillOwed
    from comfypin.sync.syncer import Syncer
    from comfypin.wiring import open_store

    if not folder.is_dir():
        raise FolderMissing(folder=str(folder))
    _refuse_nested(folder, destination)
    outbox_path = _choose_outbox_path(arguments, folder, destination)
    meter = TransferMeter()
    with (
        _open_outbox(outbox_path, arguments.outbox_copy, folder, destination) as outbox,
        _open_event_reporter(arguments, outbox_path, meter) as report_event,
    ):
        syncer = Syncer(
            folder,
            open_store(destination, arguments.settings),
            outbox,
            _make_options(arguments, outbox_path, meter),
            media_type=lambda path: identify_file(path, b"").media_type,
            on_event=report_event,
        )
        # The syncer is synchronous, so that a plain handler is enough.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: syncer.stop())
        owed_rows = syncer.run_sync()
        tally = outbox.count_rows()
    if arguments.json:
        print(json.dumps({"event": "ended", "owed": len(owed_rows), **_tally_to_json(tally)}), flush=True)
    elif not owed_rows:
        verb = "is" if tally.done == 1 else "are"
        print(f"{format_count(tally.done, 'file')} {verb} in {destination}", file=sys.stderr)
    if not owed_rows:
        return 0
    error = StillOwed(
        files=len(owed_rows),
        size_bytes=tally.owed_bytes,
        examples=[_escape_name(outbox_row.path) for outbox_row in owed_rows[:3]],
    )
    print(f"comfypin: {error.message}", file=sys.stderr, flush=True)
    # An upload that hangs would keep the interpreter from ending; its debt is on the disk.
    os._exit(error.exit_code)


def _refuse_nested(folder: Path, destination: str) -> None:
    """Raise `UsageError` if the destination is inside the folder: it would be copied into itself without end."""
    scheme, separator, folder_text = destination.partition("://")
    if separator and scheme != "file":
        return
    # Resolved, since a link may lead back into the folder.
    if Path(folder_text if separator else destination).resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"{destination} is inside {folder}, which would be synced into itself; name a destination outside it."
        )


def _show_status(arguments: argparse.Namespace, folder: str, destination: str) -> int:
    from comfypin.sync.outbox import Outbox

    outbox_path = _choose_outbox_path(arguments, Path(folder), destination)
    if not outbox_path.exists():
        raise UsageError(
            f"Nothing was synced from {folder} to {destination} on this machine: "
            f"the outbox {outbox_path} is missing; name another with --outbox."
        )
    # A syncer may be writing to it meanwhile.
    outbox = Outbox(outbox_path, read_only=True)
    tally, failing_rows = outbox.count_rows(), outbox.failing_rows(10)
    if arguments.metrics:
        print(_format_metrics(tally), end="")
    elif arguments.json:
        reasons = [
            {"path": _escape_name(outbox_row.path), "failures": outbox_row.failures, "reason": outbox_row.reason}
            for outbox_row in failing_rows
        ]
        print(json.dumps({**_tally_to_json(tally), "failing": reasons}))
    else:
        print("\n".join(_format_status(tally, failing_rows)))
    return 0


def _make_options(arguments: argparse.Namespace, outbox: Path, meter: TransferMeter) -> "SyncOptions":
    from comfypin.sync.delivery_log import DeliveryLog
    from comfypin.sync.key_names import FileFilter
    from comfypin.sync.sync_options import SyncOptions

    return SyncOptions(
        filter=FileFilter(include=tuple(arguments.include), exclude=tuple(arguments.exclude)),
        settle_s=arguments.settle,
        on_change=arguments.on_change,
        delete_after=arguments.delete_after,
        once=arguments.once,
        workers=arguments.workers,
        bytes_per_s=arguments.limit,
        grace_s=arguments.grace,
        poll_s=arguments.poll,
        on_bytes=lambda outbox_row, byte_count: meter.advance(outbox_row.path, byte_count),
        manifest=DeliveryLog(outbox.with_suffix(".jsonl"), f".comfypin/manifest-{outbox.stem}.jsonl")
        if arguments.manifest
        else None,
    )


def _choose_outbox_path(arguments: argparse.Namespace, folder: Path, destination: str) -> Path:
    from comfypin.sync.outbox import choose_outbox

    if arguments.outbox is not None:
        return Path(arguments.outbox)
    return choose_outbox(arguments.settings.state_dir, folder, destination)


@contextlib.contextmanager
def _open_outbox(outbox_path: Path, outbox_copy: Path | None, folder: Path, destination: str) -> "Iterator[Outbox]":
    from comfypin.lease import Lease, try_acquire_lease
    from comfypin.sync.errors import AlreadySyncing, OutboxOfAnother, OutboxUnusable
    from comfypin.sync.outbox import Outbox

    try:
        outbox_path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutboxUnusable(path=str(outbox_path), reason=(exc.strerror or str(exc)).lower()) from exc
    # Two syncers with one outbox would upload every file twice.
    lease = try_acquire_lease(outbox_path.with_name(f"{outbox_path.name}.lease"), purpose="sync")
    if not isinstance(lease, Lease):
        raise AlreadySyncing(path=str(outbox_path), holder=str(lease))
    with lease:
        outbox = Outbox(outbox_path, copy=outbox_copy)
        folder_pair = f"{os.fsencode(folder.resolve())!r} -> {destination}"
        # An outbox of another pair would call files delivered that never were.
        recorded = outbox.read_fact("pair")
        if recorded not in (None, folder_pair):
            raise OutboxOfAnother(path=str(outbox_path), wanted=folder_pair, recorded=str(recorded))
        outbox.record_facts(pair=folder_pair)
        try:
            yield outbox
        finally:
            outbox.close()


@contextlib.contextmanager
def _open_event_reporter(
    arguments: argparse.Namespace, outbox_path: Path, meter: TransferMeter
) -> "Iterator[Callable[[SyncEvent], None]]":
    """Yield a callback that prints events: JSON on stdout, or on stderr a live line or plain lines."""
    backlog = _SyncBacklog(outbox_path, meter)
    if arguments.json:
        yield lambda event: print(json.dumps(_event_to_json(event)), flush=True)
    elif sys.stderr.isatty() and not arguments.verbose:
        with _open_live_line(backlog) as report_event:
            yield report_event
    else:
        with ticking(backlog.print_line):
            yield lambda event: _print_event(event, verbose=arguments.verbose)


class _SyncBacklog:
    """Says what is still to be delivered, how fast it goes and how long it will take; called from a thread."""

    def __init__(self, outbox_path: Path, meter: TransferMeter) -> None:
        self._outbox_path = outbox_path
        self._meter = meter

    def describe(self) -> tuple[str, int]:
        """Return the sentence, and how many files are pending."""
        from comfypin.sync.outbox import Outbox

        # The syncer's own connection belongs to its thread.
        outbox = Outbox(self._outbox_path, read_only=True)
        try:
            tally = outbox.count_rows()
        finally:
            outbox.close()
        _, _, bytes_per_s = self._meter.measure()
        backlog_text = f"{format_count(tally.owed, 'file')} pending ({format_size(tally.owed_bytes)})"
        backlog_text += f", {tally.failing} of them failing" if tally.failing else ""
        if tally.owed and bytes_per_s >= 1:
            backlog_text += f", {format_rate(bytes_per_s)}, {describe_time(tally.owed_bytes / bytes_per_s)} left"
        return f"{backlog_text}; {tally.done} done", tally.owed

    def print_line(self) -> None:
        """Print a line for a log, if anything is pending."""
        # The syncer itself says what is wrong with its outbox.
        with contextlib.suppress(ComfypinError, sqlite3.Error):
            backlog_text, pending = self.describe()
            if pending:
                print(backlog_text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _open_live_line(backlog: _SyncBacklog) -> "Iterator[Callable[[SyncEvent], None]]":
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    with Live(Text("watching"), console=console, auto_refresh=False, transient=True) as live:

        def report_event(event: "SyncEvent") -> None:
            if (line := _describe_event(event, verbose=False)) is not None:
                console.print(Text(line))

        def redraw() -> None:
            with contextlib.suppress(ComfypinError, sqlite3.Error):
                live.update(Text(backlog.describe()[0]), refresh=True)

        # Redrawing more often only makes the line flicker.
        with ticking(redraw, every_s=0.5):
            yield report_event


def _print_event(event: "SyncEvent", *, verbose: bool) -> None:
    if (line := _describe_event(event, verbose=verbose)) is not None:
        print(line, file=sys.stderr, flush=True)


def _describe_event(event: "SyncEvent", *, verbose: bool) -> str | None:
    from comfypin.sync.folder_watch import SyncNotice
    from comfypin.sync.sync_events import Delivered, UploadFailed, WatchStarted

    match event:
        case WatchStarted(file_count):
            return f"watching, {format_count(file_count, 'file')} to look at" if verbose else None
        case Delivered(outbox_row, sent):
            return f"{'delivered' if sent else 'there already'} {_escape_name(outbox_row.path)}" if verbose else None
        case UploadFailed(outbox_row, wait_s):
            what = f"{_escape_name(outbox_row.path)} failed ({outbox_row.failures}x)"
            return f"{what}: {outbox_row.reason}; again in {wait_s:.1f} s"
        case SyncNotice(text):
            return text


def _event_to_json(event: "SyncEvent") -> dict[str, object]:
    from comfypin.sync.folder_watch import SyncNotice
    from comfypin.sync.sync_events import Delivered, UploadFailed, WatchStarted

    match event:
        case WatchStarted(file_count):
            return {"event": "watching", "found": file_count}
        case Delivered(outbox_row, sent):
            facts = {"key": outbox_row.key, "size_bytes": outbox_row.fingerprint.size, "sha256": outbox_row.sha256.hex}
            return {
                "event": "delivered",
                "path": _escape_name(outbox_row.path),
                "sent": sent,
                "revision": outbox_row.revision,
                **facts,
            }
        case UploadFailed(outbox_row, wait_s):
            facts = {"failures": outbox_row.failures, "reason": outbox_row.reason, "wait_s": round(wait_s, 2)}
            return {"event": "failed", "path": _escape_name(outbox_row.path), **facts}
        case SyncNotice(text):
            return {"event": "notice", "text": text}


def _tally_to_json(tally: "OutboxCounts") -> dict[str, object]:
    return {
        "pending": tally.owed,
        "pending_bytes": tally.owed_bytes,
        "failed": tally.failing,
        "done": tally.done,
        "gone": tally.gone,
        "oldest_debt_s": _oldest_age_s(tally),
        # The outbox counts the last 300 seconds.
        "files_per_s": round(tally.recent_files / 300, 3),
        "bytes_per_s": round(tally.recent_bytes / 300),
    }


def _format_status(tally: "OutboxCounts", failing_rows: "Sequence[OutboxRow]") -> list[str]:
    oldest_age = _oldest_age_s(tally)
    lines = [
        f"done     {tally.done}" + (f", {tally.gone} deleted before they were delivered" if tally.gone else ""),
        f"pending  {tally.owed} ({format_size(tally.owed_bytes)})"
        + (f", oldest {oldest_age:.0f} s" if oldest_age else ""),
        f"rate     {tally.recent_files / 300:.2f} files/s, {format_rate(tally.recent_bytes / 300)} (5 minutes)",
    ]
    return [
        *lines,
        *(
            f"failing  {_escape_name(outbox_row.path)} ({outbox_row.failures}x): {outbox_row.reason}"
            for outbox_row in failing_rows
        ),
    ]


def _format_metrics(tally: "OutboxCounts") -> str:
    values = {
        "comfypin_sync_pending_files": tally.owed,
        "comfypin_sync_pending_bytes": tally.owed_bytes,
        "comfypin_sync_failing_files": tally.failing,
        "comfypin_sync_done_files": tally.done,
        "comfypin_sync_oldest_debt_seconds": _oldest_age_s(tally) or 0,
    }
    return "".join(f"# TYPE {metric_name} gauge\n{metric_name} {value}\n" for metric_name, value in values.items())


def _oldest_age_s(tally: "OutboxCounts") -> float | None:
    return None if tally.oldest_owed_at is None else max(0.0, round(time.time() - tally.oldest_owed_at, 1))


def _escape_name(path: str) -> str:
    """Return the name on one line, with bytes that are not text and control characters escaped."""
    return path.encode("unicode_escape", "surrogatepass").decode() if not path.isprintable() else path
