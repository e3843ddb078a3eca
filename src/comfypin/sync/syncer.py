"""The syncer: hashes a file once it is complete, owes it in the outbox, uploads it, and marks it done when the server
agrees.

One thread (the one that calls `run_sync`) decides and owns the outbox; a watching thread, a few that hash and a few
that upload send it messages. All waiting messages are handled together and recorded in one transaction, so that
thousands of small files cost a few commits, and nothing is sent before the commit that owes it.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from comfypin.atomic_files import free_bytes
from comfypin.digest import Digest
from comfypin.errors import ComfypinError, StorageError
from comfypin.storage.interface import ObjectStore
from comfypin.sync.debounce import Debouncer
from comfypin.sync.errors import FolderMissing, OutboxUnusable
from comfypin.sync.outbox import Outbox
from comfypin.sync.outbox_row import OutboxRow
from comfypin.sync.remove import finish_removal, is_set_aside, remove_unchanged
from comfypin.sync.revisions import RevisionPlanner
from comfypin.sync.row_saving import save_when_possible
from comfypin.sync.scan import Fingerprint, is_being_written, read_fingerprint
from comfypin.sync.sync_events import Delivered, SyncEvent, UploadFailed, WatchStarted
from comfypin.sync.sync_options import SyncOptions
from comfypin.sync.upload_order import UploadQueue
from comfypin.sync.uploader import UploadEnded, Uploader
from comfypin.sync.watch import FileClosed, FileFound, FolderWatcher, ScanEnded, Sighting, SyncNotice

# One core can hash faster than most networks send.
_HASH_THREADS = 2
# Bounds a transaction, so that a scan of a million files does not delay the first upload.
_MOST_AT_ONCE = 5000
_NEARLY_FULL_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _FileHashed:
    path: str
    fingerprint: Fingerprint
    digest: Digest | None


class _StopRequested:
    """Asks the syncer to stop."""


_Message = FileClosed | FileFound | ScanEnded | SyncNotice | _FileHashed | UploadEnded | _StopRequested


class Syncer:
    """Syncs one folder into one store until `stop`, or once; reports every delivery and failure to `on_event`."""

    def __init__(
        self,
        root: Path,
        store: ObjectStore,
        outbox: Outbox,
        options: SyncOptions,
        *,
        media_type: Callable[[str], str],
        on_event: Callable[[SyncEvent], None] = lambda _event: None,
    ) -> None:
        if not root.is_dir():
            raise FolderMissing(folder=str(root))
        self._root = str(root)
        self._store = store
        self._outbox = outbox
        self._options = options
        self._on_event = on_event
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._debouncer = Debouncer(settle_s=options.settle_s)
        self._upload_queue = UploadQueue(options.workers)
        # The files being hashed; True once one was seen again meanwhile, so that its digest is outdated.
        self._hashing: dict[str, bool] = {}
        # Confirmed files that --delete-after has looked at in this run; one that stays is not hashed at every scan.
        self._removal_tried: dict[str, Fingerprint] = {}
        self._revisions = RevisionPlanner(outbox, options.on_change)
        self._uploader = Uploader(root, store, self._inbox.put, media_type=media_type, bytes_per_s=options.bytes_per_s)
        self._scanned = False
        self._is_disk_warned = False
        self._stopping = threading.Event()
        self._deadline: float | None = None
        self._watch = FolderWatcher(root, self._inbox.put, poll_s=options.poll_s)
        self._hashers = ThreadPoolExecutor(_HASH_THREADS, thread_name_prefix="hash")
        self._uploaders = ThreadPoolExecutor(options.workers, thread_name_prefix="upload")

    def stop(self) -> None:
        """Ask for the end, from any thread: known files are delivered within the grace time, smallest first."""
        # Besides the message: the loop may be waiting for a full disk, and read no messages.
        self._stopping.set()
        self._inbox.put(_StopRequested())

    def run_sync(self) -> list[OutboxRow]:
        """Sync until stopped (or, once, until all files are delivered); return what is still owed."""
        for row in self._outbox.owed_rows():
            self._upload_queue.add_upload(row.path, row.fingerprint.size, due_s=0.0)
        self._watch.start()
        try:
            while not self._is_finished():
                self._handle_messages(self._wait_for_messages())
                self._start_due_work()
            self._watch.stop()
            self._handle_messages(self._pending_messages())
            self._copy_manifest(now=True)
            return list(self._outbox.owed_rows())
        finally:
            self._hashers.shutdown(cancel_futures=True)
            # An upload that hangs must not hold us beyond the grace time; its debt is on the disk.
            self._uploaders.shutdown(wait=self._deadline is None, cancel_futures=True)

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _is_finished(self) -> bool:
        is_quiet = not (
            self._hashing or self._upload_queue.running_count or len(self._upload_queue) or len(self._debouncer)
        )
        if self._deadline is not None:
            return time.monotonic() >= self._deadline or is_quiet
        return self._options.once and self._scanned and is_quiet

    def _wait_for_messages(self) -> list[_Message]:
        """Wait for the first message, at most until our own next work is due; return all that are there."""
        now = time.monotonic()
        dues = [self._debouncer.next_due_s(), self._deadline, self._refresh_copy(), self._copy_manifest()]
        if self._upload_queue.running_count < self._options.workers:
            dues.append(self._upload_queue.next_due_s())
        due = min((item for item in dues if item is not None), default=None)
        try:
            first = self._inbox.get(timeout=None if due is None else max(0.0, due - now))
        except queue.Empty:
            return []
        return [first, *self._pending_messages()]

    def _pending_messages(self) -> list[_Message]:
        messages: list[_Message] = []
        while len(messages) < _MOST_AT_ONCE and not self._inbox.empty():
            messages.append(self._inbox.get_nowait())
        return messages

    def _handle_messages(self, messages: Iterable[_Message]) -> None:
        """Handle all messages, record their outcome in one transaction, and only then act on it."""
        rows: dict[str, OutboxRow] = {}
        after: list[Callable[[], None]] = []
        for message in messages:
            match message:
                case _FileHashed():
                    self._handle_hashed(message, rows, after)
                case UploadEnded():
                    self._handle_upload_end(message, rows, after)
                case _StopRequested():
                    if self._deadline is None:
                        self._deadline = time.monotonic() + self._options.grace_s
                        self._hurry_owed()
                case FileClosed() | FileFound() | ScanEnded() | SyncNotice():
                    self._handle_sighting(message)
        if rows:
            save_when_possible(self._outbox, list(rows.values()), self._options, self._stopping, self._on_event)
            self._record_delivered(rows.values())
        for act in after:
            act()

    def _refresh_copy(self) -> float | None:
        """Update the outbox's copy when it is due; report a failure, and try again later."""
        try:
            return self._outbox.refresh_copy()
        except OutboxUnusable as exc:
            self._on_event(SyncNotice(exc.message))
            return self._outbox.refresh_copy()  # when it is due again

    def _record_delivered(self, rows: Iterable[OutboxRow]) -> None:
        delivered = [row for row in rows if row.state == "done"]
        if self._options.manifest is not None and delivered:
            self._options.manifest.record_batch(delivered)
        if not self._is_disk_warned and free_bytes(Path(self._root)) < _NEARLY_FULL_BYTES:
            self._is_disk_warned = True
            self._on_event(
                SyncNotice(f"The disk of {self._root} is nearly full (less than 1 GB); --delete-after makes room.")
            )

    def _copy_manifest(self, *, now: bool = False) -> float | None:
        """Copy the manifest when it is due; report a failure, and try again with the next batch."""
        manifest = self._options.manifest
        if manifest is None:
            return None
        try:
            manifest.copy_to_store(self._store, now=now)
        except (StorageError, OutboxUnusable) as exc:
            self._on_event(SyncNotice(f"The manifest could not be copied: {exc.message}"))
        return manifest.due_s()

    def _start_due_work(self) -> None:
        """Start whatever is due: hash files that have settled, and upload while there are free workers."""
        now = time.monotonic()
        for path in self._debouncer.due_paths(now):
            self._consider_file(path, now)
        while (taken := self._upload_queue.take_next(now)) is not None:
            row = self._outbox.find_row(taken)
            if row is None or row.state != "owed":
                self._upload_queue.release_path(taken)
                continue
            self._uploaders.submit(self._uploader.upload_file, row)

    def _hurry_owed(self) -> None:
        """Order uploads by size and end their back-off: there may be no next time."""
        # Small files first: most files are safe soonest.
        smallest_first = sorted(self._outbox.owed_rows(), key=lambda row: row.fingerprint.size)
        self._upload_queue = self._upload_queue.reorder_uploads(
            [row.path for row in smallest_first], due_s=time.monotonic()
        )
        self._debouncer.hurry_all(time.monotonic())

    # -- sightings -----------------------------------------------------------------------------------------------------

    def _handle_sighting(self, sighting: Sighting) -> None:
        now = time.monotonic()
        match sighting:
            case FileClosed(path):
                if self._options.filter.takes_path(path):
                    self._removal_tried.pop(path, None)
                    self._debouncer.note_closed(path, now)
            case FileFound(path, mark):
                self._handle_found(path, mark, now)
            case ScanEnded(first):
                self._scanned = True
                if first:
                    self._on_event(WatchStarted(len(self._debouncer)))
                if first and self._outbox.is_new:
                    # Without an outbox, what lies here may be in the store already; what comes from now on is not.
                    self._revisions.doubtful_paths = frozenset(self._debouncer.waiting_paths())
            case SyncNotice():
                self._on_event(sighting)

    def _handle_found(self, path: str, mark: Fingerprint, now: float) -> None:
        if self._options.delete_after and is_set_aside(path):
            self._finish_removal(path, mark)
        elif not self._options.filter.takes_path(path):
            return
        elif self._outbox.known_fingerprint(path) == mark:
            self._remove_confirmed(path, mark)
        else:
            self._debouncer.note_found(path, mark, now)

    def _remove_confirmed(self, path: str, mark: Fingerprint) -> None:
        """Hash a file that an earlier run delivered and left here, to remove it if it is still what was confirmed."""
        if not self._options.delete_after or path in self._hashing or self._removal_tried.get(path) == mark:
            return
        row = self._outbox.find_row(path)
        if row is not None and row.state == "done":
            self._removal_tried[path] = mark
            self._hashing[path] = False
            self._hashers.submit(self._hash_file, path, mark)

    def _finish_removal(self, path: str, mark: Fingerprint) -> None:
        """Remove a file that a killed run had set aside, if the outbox has confirmed exactly that file."""
        if self._removal_tried.get(path) == mark:
            return
        self._removal_tried[path] = mark
        digests = self._outbox.confirmed_digests(mark)
        if digests and (reason := finish_removal(self._root, path, mark, digests)) is not None:
            self._on_event(SyncNotice(f"{path} was set aside for removal, but was kept: {reason}."))

    def _consider_file(self, path: str, now: float) -> None:
        """Hash a file whose time has come, unless it is gone, still changing, or being hashed."""
        mark = read_fingerprint(self._root, path)
        if mark is None:
            self._debouncer.forget_path(path)
        elif self._outbox.known_fingerprint(path) == mark:
            self._debouncer.forget_path(path)
            self._remove_confirmed(path, mark)
        elif path in self._hashing:
            self._hashing[path] = True
            self._debouncer.forget_path(path)
        elif not self._debouncer.has_settled(path, mark, now) or is_being_written(self._root, path):
            self._debouncer.wait_longer(path, mark, now)
        else:
            self._debouncer.forget_path(path)
            self._hashing[path] = False
            self._hashers.submit(self._hash_file, path, mark)

    def _hash_file(self, path: str, mark: Fingerprint) -> None:
        digest: Digest | None = None
        try:
            digest = Digest.of_file(Path(self._root, path))
        except OSError:
            pass  # gone, or closed to us; the next scan sees what is there then
        self._inbox.put(_FileHashed(path, mark, digest if read_fingerprint(self._root, path) == mark else None))

    # -- results -------------------------------------------------------------------------------------------------------

    def _handle_hashed(self, hashed: _FileHashed, rows: dict[str, OutboxRow], after: list[Callable[[], None]]) -> None:
        path = hashed.path
        seen_again = self._hashing.pop(path)
        if hashed.digest is None or seen_again:
            # It changed while it was read: its time begins anew.
            if (mark := read_fingerprint(self._root, path)) is not None:
                self._debouncer.note_found(path, mark, time.monotonic())
            return
        is_uploading = self._upload_queue.is_busy(path)
        row = self._revisions.next_revision(path, hashed.fingerprint, hashed.digest, rows, is_uploading=is_uploading)
        rows[path] = row
        if row.state == "owed":
            after.append(lambda: self._queue_upload(row))
        elif self._options.delete_after and row.sha256 == hashed.digest:
            # With `--on-change ignore` the row may stand for bytes that are not the ones in the bucket.
            after.append(lambda: self._delete_local(row))

    def _queue_upload(self, row: OutboxRow) -> None:
        # While an older revision is on its way this one waits; the end of that upload brings it up.
        if not self._upload_queue.is_busy(row.path):
            self._upload_queue.add_upload(row.path, row.fingerprint.size, due_s=time.monotonic())

    def _handle_upload_end(
        self, uploaded: UploadEnded, rows: dict[str, OutboxRow], after: list[Callable[[], None]]
    ) -> None:
        row = uploaded.row
        self._upload_queue.release_path(row.path)
        current = rows.get(row.path) or self._outbox.find_row(row.path)
        if current is None or current.sha256 != row.sha256 or current.revision != row.revision:
            # A newer revision is owed; it was held back while this one was on its way.
            if current is not None and current.state == "owed":
                after.append(lambda: self._queue_upload(current))
            return
        now_there = read_fingerprint(self._root, row.path)
        if uploaded.failure is None and (not uploaded.sent or now_there in (row.fingerprint, None)):
            done = replace(current, state="done", doubtful=False, reason=None, done_at=time.time())
            rows[row.path] = done
            after.append(lambda: self._on_event(Delivered(done, uploaded.sent)))
            if self._options.delete_after:
                after.append(lambda: self._delete_local(done))
        elif now_there is None:
            # The file is gone: nobody can deliver it any more.
            rows[row.path] = replace(row, state="gone", reason="deleted before it was delivered")
            after.append(lambda: self._on_event(SyncNotice(f"{row.path} was deleted before it was delivered.")))
        else:
            self._retry_later(row, uploaded.failure, now_there, rows, after)

    def _retry_later(
        self,
        row: OutboxRow,
        failure: ComfypinError | None,
        now_there: Fingerprint,
        rows: dict[str, OutboxRow],
        after: list[Callable[[], None]],
    ) -> None:
        if now_there != row.fingerprint:
            self._debouncer.note_found(row.path, now_there, time.monotonic())
        reason = failure.message if failure is not None else "it changed during the upload"
        failed = replace(row, failures=row.failures + 1, reason=reason)
        rows[row.path] = failed
        delay_s = self._options.retry_policy.delay_s(failed.failures) or 0.0
        due_s = time.monotonic() + delay_s
        after.append(lambda: self._upload_queue.add_upload(row.path, row.fingerprint.size, due_s=due_s))
        after.append(lambda: self._on_event(UploadFailed(failed, delay_s)))

    def _delete_local(self, row: OutboxRow) -> None:
        if (reason := remove_unchanged(self._root, row.path, row.fingerprint)) is not None:
            self._on_event(SyncNotice(f"{row.path} is delivered, but was kept here: {reason}."))
