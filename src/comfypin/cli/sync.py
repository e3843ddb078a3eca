"""Sync a folder to a bucket, losing nothing: every finished file is owed on disk first, then delivered and confirmed.

comfypin sync DIR gs://bucket/prefix          keys are the paths under DIR
comfypin sync DIR az://container/prefix       Azure Blob Storage
comfypin sync DIR s3://bucket/prefix --once   deliver what is there, then end
comfypin sync DIR /mnt/backup                 a folder is a destination too
comfypin sync status DIR DESTINATION          what is owed, what fails and why
"""

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.sync.outbox import Outbox
    from comfypin.sync.outbox_row import OutboxCounts, OutboxRow
    from comfypin.sync.sync_events import SyncEvent
    from comfypin.sync.sync_options import SyncOptions

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("words", nargs="+", metavar="[status] DIR DESTINATION", help="the folder, and where it goes")
    parser.add_argument("--include", action="append", default=[], metavar="GLOB", help="take only these names")
    parser.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="never take these names")
    parser.add_argument("--once", action="store_true", help="deliver what is there now, then end")
    parser.add_argument("--delete-after", action="store_true", help="remove each file here once it is confirmed there")
    parser.add_argument(
        "--on-change",
        choices=["overwrite", "version", "ignore"],
        default="overwrite",
        help="a file that is rewritten: replace the object, add a.r2.png, or leave the first (overwrite)",
    )
    parser.add_argument(
        "--settle", type=_seconds, default=2.0, metavar="S", help="unchanged for S seconds is complete (2)"
    )
    parser.add_argument("--poll", type=_seconds, default=5.0, metavar="S", help="scan every S s without events (5)")
    parser.add_argument("--limit", type=_rate, metavar="RATE", help="bytes a second for all uploads, like 20MB/s")
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="uploads at once (8)")
    parser.add_argument("--grace", type=_seconds, default=10.0, metavar="S", help="on SIGTERM go on for S seconds (10)")
    parser.add_argument("--outbox", type=Path, metavar="FILE", help="the outbox, on a local disk")
    parser.add_argument("--outbox-copy", type=Path, metavar="FILE", help="a copy of it on a volume, for the next pod")
    parser.add_argument(
        "--manifest", action="store_true", help="keep a list of what was delivered at the destination (.comfypin/)"
    )
    parser.add_argument("--metrics", action="store_true", help="with status: print Prometheus text")
    parser.add_argument("--json", action="store_true", help="events and results as JSON lines")
    parser.add_argument("--verbose", action="store_true", help="say every file")


def execute(arguments: argparse.Namespace) -> int:
    """Sync, or tell the status."""
    if arguments.words[0] == "status" and len(arguments.words) == 3:
        return _status(arguments, *arguments.words[1:])
    if len(arguments.words) != 2 or arguments.words[0] == "status":
        raise UsageError("sync takes a folder and a destination: comfypin sync DIR s3://bucket/prefix.")
    if not 1 <= arguments.workers <= 64:
        raise UsageError(f"--workers is {arguments.workers}; it must be from 1 to 64.")
    return _sync(arguments, Path(arguments.words[0]), arguments.words[1])


def _sync(arguments: argparse.Namespace, folder: Path, destination: str) -> int:
    from comfypin.outputs.media_types import identify_file
    from comfypin.sync.errors import FolderMissing, StillOwed
    from comfypin.sync.syncer import Syncer
    from comfypin.wiring import open_store

    if not folder.is_dir():
        raise FolderMissing(folder=str(folder))
    _refuse_itself(folder, destination)
    path = _outbox_path(arguments, folder, destination)
    with _open_outbox(path, arguments.outbox_copy, folder, destination) as outbox, _telling(arguments, outbox) as hear:
        syncer = Syncer(
            folder,
            open_store(destination, arguments.settings),
            outbox,
            _options(arguments, path),
            media_type=lambda path: identify_file(path, b"").media_type,
            on_event=hear,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: syncer.stop())
        owed = syncer.run_sync()
        tally = outbox.count_rows()
    if arguments.json:
        print(json.dumps({"event": "ended", "owed": len(owed), **_tally_to_json(tally)}), flush=True)
    elif not owed:
        print(f"{tally.done} files are in {destination}", file=sys.stderr)
    if not owed:
        return 0
    error = StillOwed(files=len(owed), size_bytes=tally.owed_bytes, examples=[_shown(row.path) for row in owed[:3]])
    print(f"comfypin: {error.message}", file=sys.stderr, flush=True)
    # An upload that hangs would keep the interpreter from ending; its debt is on the disk.
    os._exit(error.exit_code)


def _refuse_itself(folder: Path, destination: str) -> None:
    """A folder synced into itself would be copied deeper and deeper without end."""
    scheme, separator, rest = destination.partition("://")
    if separator and scheme != "file":
        return
    if Path(rest if separator else destination).resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{destination} lies in {folder}, which would be synced into itself; name a place outside it.")


def _status(arguments: argparse.Namespace, folder: str, destination: str) -> int:
    from comfypin.sync.outbox import Outbox

    path = _outbox_path(arguments, Path(folder), destination)
    if not path.exists():
        raise UsageError(f"Nothing was synced from {folder} to {destination} on this machine (no outbox {path}).")
    outbox = Outbox(path, read_only=True)
    tally, failing = outbox.count_rows(), outbox.failing_rows(10)
    if arguments.metrics:
        print(_prometheus(tally), end="")
    elif arguments.json:
        reasons = [{"path": _shown(row.path), "failures": row.failures, "reason": row.reason} for row in failing]
        print(json.dumps({**_tally_to_json(tally), "failing": reasons}))
    else:
        print("\n".join(_status_lines(tally, failing)))
    return 0


def _options(arguments: argparse.Namespace, outbox: Path) -> "SyncOptions":
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
        manifest=DeliveryLog(outbox.with_suffix(".jsonl"), f".comfypin/manifest-{outbox.stem}.jsonl")
        if arguments.manifest
        else None,
    )


def _outbox_path(arguments: argparse.Namespace, folder: Path, destination: str) -> Path:
    from comfypin.digest import Digest

    if arguments.outbox is not None:
        return Path(arguments.outbox)
    pair = Digest.of(f"{folder.resolve()}\0{destination}".encode(errors="surrogateescape"))
    state: Path = arguments.settings.state_dir
    return state / "sync" / f"{pair.hex[:16]}.sqlite"


@contextlib.contextmanager
def _open_outbox(path: Path, copy: Path | None, folder: Path, destination: str) -> "Iterator[Outbox]":
    from comfypin.lease import Lease, try_acquire_lease
    from comfypin.sync.errors import AlreadySyncing, OutboxOfAnother, OutboxUnusable
    from comfypin.sync.outbox import Outbox

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutboxUnusable(path=str(path), reason=(exc.strerror or str(exc)).lower()) from exc
    lease = try_acquire_lease(path.with_name(f"{path.name}.lease"), purpose="sync")
    if not isinstance(lease, Lease):
        raise AlreadySyncing(path=str(path), holder=str(lease))
    with lease:
        outbox = Outbox(path, copy=copy)
        pair = f"{os.fsencode(folder.resolve())!r} -> {destination}"
        recorded = outbox.read_fact("pair")
        if recorded not in (None, pair):
            raise OutboxOfAnother(path=str(path), wanted=pair, recorded=str(recorded))
        outbox.record_facts(pair=pair)
        try:
            yield outbox
        finally:
            outbox.close()


@contextlib.contextmanager
def _telling(arguments: argparse.Namespace, outbox: "Outbox") -> "Iterator[Callable[[SyncEvent], None]]":
    """JSON lines, a live line on a terminal, or plain lines; all but JSON go to stderr."""
    if arguments.json:
        yield lambda event: print(json.dumps(_event_to_json(event)), flush=True)
    elif sys.stderr.isatty() and not arguments.verbose:
        with _live(outbox) as hear:
            yield hear
    else:
        yield lambda event: _tell(event, verbose=arguments.verbose)


@contextlib.contextmanager
def _live(outbox: "Outbox") -> "Iterator[Callable[[SyncEvent], None]]":
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    last = 0.0
    with Live(Text("watching"), console=console, auto_refresh=False, transient=True) as live:

        def hear(event: "SyncEvent") -> None:
            nonlocal last
            if (line := _line(event, verbose=False)) is not None:
                console.print(Text(line))
            if time.monotonic() - last > 0.2:
                last = time.monotonic()
                live.update(Text("  ".join(_status_lines(outbox.count_rows(), []))), refresh=True)

        yield hear


def _tell(event: "SyncEvent", *, verbose: bool) -> None:
    if (line := _line(event, verbose=verbose)) is not None:
        print(line, file=sys.stderr, flush=True)


def _line(event: "SyncEvent", *, verbose: bool) -> str | None:
    from comfypin.sync.sync_events import Delivered, UploadFailed, WatchStarted
    from comfypin.sync.watch import SyncNotice

    match event:
        case WatchStarted(found):
            return f"watching, {found} files to look at" if verbose else None
        case Delivered(row, sent):
            return f"{'delivered' if sent else 'there already'} {_shown(row.path)}" if verbose else None
        case UploadFailed(row, wait_s):
            return f"{_shown(row.path)} failed ({row.failures}x): {row.reason}; again in {wait_s:.1f} s"
        case SyncNotice(text):
            return text


def _event_to_json(event: "SyncEvent") -> dict[str, object]:
    from comfypin.sync.sync_events import Delivered, UploadFailed, WatchStarted
    from comfypin.sync.watch import SyncNotice

    match event:
        case WatchStarted(found):
            return {"event": "watching", "found": found}
        case Delivered(row, sent):
            facts = {"key": row.key, "size_bytes": row.fingerprint.size, "sha256": row.sha256.hex}
            return {"event": "delivered", "path": _shown(row.path), "sent": sent, "revision": row.revision, **facts}
        case UploadFailed(row, wait_s):
            facts = {"failures": row.failures, "reason": row.reason, "wait_s": round(wait_s, 2)}
            return {"event": "failed", "path": _shown(row.path), **facts}
        case SyncNotice(text):
            return {"event": "notice", "text": text}


def _tally_to_json(tally: "OutboxCounts") -> dict[str, object]:
    return {
        "pending": tally.owed,
        "pending_bytes": tally.owed_bytes,
        "failed": tally.failing,
        "done": tally.done,
        "gone": tally.gone,
        "oldest_debt_s": _age_s(tally),
        "files_per_s": round(tally.recent_files / 300, 3),
        "bytes_per_s": round(tally.recent_bytes / 300),
    }


def _status_lines(tally: "OutboxCounts", failing: "Sequence[OutboxRow]") -> list[str]:
    age = _age_s(tally)
    lines = [
        f"done     {tally.done}" + (f", {tally.gone} deleted before they were delivered" if tally.gone else ""),
        f"pending  {tally.owed} ({tally.owed_bytes / 1e6:.1f} MB)" + (f", oldest {age:.0f} s" if age else ""),
        f"rate     {tally.recent_files / 300:.2f} files/s, {tally.recent_bytes / 300 / 1e6:.2f} MB/s (5 minutes)",
    ]
    return [*lines, *(f"failing  {_shown(row.path)} ({row.failures}x): {row.reason}" for row in failing)]


def _prometheus(tally: "OutboxCounts") -> str:
    values = {
        "comfypin_sync_pending_files": tally.owed,
        "comfypin_sync_pending_bytes": tally.owed_bytes,
        "comfypin_sync_failing_files": tally.failing,
        "comfypin_sync_done_files": tally.done,
        "comfypin_sync_oldest_debt_seconds": _age_s(tally) or 0,
    }
    return "".join(f"# TYPE {name} gauge\n{name} {value}\n" for name, value in values.items())


def _age_s(tally: "OutboxCounts") -> float | None:
    return None if tally.oldest_owed_at is None else max(0.0, round(time.time() - tally.oldest_owed_at, 1))


def _shown(path: str) -> str:
    """A name as a line of text: what is no text, or would break the line, is escaped."""
    return path.encode("unicode_escape", "surrogatepass").decode() if not path.isprintable() else path


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return value


def _rate(text: str) -> float:
    """`20MB/s`, `500K`, `1.5G` as bytes a second."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)i?B?(?:/s)?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate; write it like 20MB/s")
    return float(match[1]) * _UNITS[match[2].upper()]
