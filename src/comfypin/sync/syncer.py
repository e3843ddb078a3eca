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
from comfypin.sync.folder_scan import Fingerprint, is_being_written, read_fingerprint
from comfypin.sync.folder_watch import FileClosed, FileFound, FolderWatcher, ScanEnded, Sighting, SyncNotice
from comfypin.sync.outbox import Outbox
from comfypin.sync.outbox_row import OutboxRow
from comfypin.sync.remove_delivered import finish_removal, is_set_aside, remove_unchanged
from comfypin.sync.revisions import RevisionPlanner
from comfypin.sync.row_saving import save_when_possible
from comfypin.sync.sync_events import Delivered, SyncEvent, UploadFailed, WatchStarted
from comfypin.sync.sync_options import SyncOptions
from comfypin.sync.upload_order import UploadQueue
from comfypin.sync.uploader import UploadEnded, Uploader

# One core can hash faster than most networks send.
_HASH_THREADS = 2
# Bounds a transaction, so that a scan of a million files does not delay the first upload.
_MOST_AT_ONCE = 5000
# A warning while there is still room for one video.
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
        root_folder: Path,
        store: ObjectStore,
        outbox: Outbox,
        options: SyncOptions,
        *,
        media_type: Callable[[str], str],
        on_event: Callable[[SyncEvent], None] = lambda _event: None,
    ) -> None:
        if not root_folder.is_dir():
            raise FolderMissing(folder=str(root_folder))
        self._root = str(root_folder)
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
        self._uploader = Uploader(
            root_folder,
            store,
            self._inbox.put,
            media_type=media_type,
            bytes_per_s=options.bytes_per_s,
            on_bytes=options.on_bytes,
        )
        self._scanned = False
        self._is_disk_warned = False
        self._stopping = threading.Event()
        self._deadline: float | None = None
        self._watch = FolderWatcher(root_folder, self._inbox.put, poll_s=options.poll_s)
        self._hashers = ThreadPoolExecutor(_HASH_THREADS, thread_name_prefix="hash")
        self._uploaders = ThreadPoolExecutor(options.workers, thread_name_prefix="upload")

    def stop(self) -> None:
        """Ask for the end, from any thread: known files are delivered within the grace time, smallest first."""
        # Besides the message: the loop may be waiting for a full disk, and read no messages.
        self._stopping.set()
        self._inbox.put(_StopRequested())

    def run_sync(self) -> list[OutboxRow]:
        """Sync until stopped (or, once, until all files are delivered); return what is still owed."""
        for outbox_row in self._outbox.owed_rows():
            self._upload_queue.add_upload(outbox_row.path, outbox_row.fingerprint.size, due_s=0.0)
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
        now_s = time.monotonic()
        due_times = [self._debouncer.next_due_s(), self._deadline, self._refresh_copy(), self._copy_manifest()]
        if self._upload_queue.running_count < self._options.workers:
            due_times.append(self._upload_queue.next_due_s())
        next_due_s = min((due_time for due_time in due_times if due_time is not None), default=None)
        try:
            first_message = self._inbox.get(timeout=None if next_due_s is None else max(0.0, next_due_s - now_s))
        except queue.Empty:
            return []
        return [first_message, *self._pending_messages()]

    def _pending_messages(self) -> list[_Message]:
        messages: list[_Message] = []
        while len(messages) < _MOST_AT_ONCE and not self._inbox.empty():
            messages.append(self._inbox.get_nowait())
        return messages

    def _handle_messages(self, messages: Iterable[_Message]) -> None:
        """Handle all messages, record their outcome in one transaction, and only then act on it."""
        changed_rows: dict[str, OutboxRow] = {}
        follow_ups: list[Callable[[], None]] = []
        for message in messages:
            match message:
                case _FileHashed():
                    self._handle_hashed(message, changed_rows, follow_ups)
                case UploadEnded():
                    self._handle_upload_end(message, changed_rows, follow_ups)
                case _StopRequested():
                    if self._deadline is None:
                        self._deadline = time.monotonic() + self._options.grace_s
                        self._hurry_owed()
                case FileClosed() | FileFound() | ScanEnded() | SyncNotice():
                    self._handle_sighting(message)
        if changed_rows:
            save_when_possible(self._outbox, list(changed_rows.values()), self._options, self._stopping, self._on_event)
            self._record_delivered(changed_rows.values())
        for follow_up in follow_ups:
            follow_up()

    def _refresh_copy(self) -> float | None:
        """Update the outbox's copy when it is due; report a failure, and try again later."""
        try:
            return self._outbox.refresh_copy()
        except OutboxUnusable as error:
            self._on_event(SyncNotice(error.message))
            return self._outbox.refresh_copy()  # when it is due again

    def _record_delivered(self, changed_rows: Iterable[OutboxRow]) -> None:
        delivered_rows = [outbox_row for outbox_row in changed_rows if outbox_row.state == "done"]
        if self._options.manifest is not None and delivered_rows:
            self._options.manifest.record_batch(delivered_rows)
        if not self._is_disk_warned and free_bytes(Path(self._root)) < _NEARLY_FULL_BYTES:
            self._is_disk_warned = True
            self._on_event(
                SyncNotice(f"The disk of {self._root} is nearly full (less than 1 GB); --delete-after makes room.")
            )

    def _copy_manifest(self, *, now: bool = False) -> float | None:
        """Copy the manifest when it is due; report a failure, and try again with the next batch."""
        delivery_log = self._options.manifest
        if delivery_log is None:
            return None
        try:
            delivery_log.copy_to_store(self._store, now=now)
        except (StorageError, OutboxUnusable) as error:
            self._on_event(SyncNotice(f"The manifest could not be copied: {error.message}"))
        return delivery_log.due_s()

    def _start_due_work(self) -> None:
        """Start whatever is due: hash files that have settled, and upload while there are free workers."""
        now_s = time.monotonic()
        for relative_path in self._debouncer.due_paths(now_s):
            self._consider_file(relative_path, now_s)
        while (next_path := self._upload_queue.take_next(now_s)) is not None:
            outbox_row = self._outbox.find_row(next_path)
            if outbox_row is None or outbox_row.state != "owed":
                self._upload_queue.release_path(next_path)
                continue
            self._uploaders.submit(self._uploader.upload_file, outbox_row)

    def _hurry_owed(self) -> None:
        """Order uploads by size and end their back-off: there may be no next time."""
        # Small files first: most files are safe soonest.
        smallest_first = sorted(self._outbox.owed_rows(), key=lambda outbox_row: outbox_row.fingerprint.size)
        self._upload_queue = self._upload_queue.reorder_uploads(
            [outbox_row.path for outbox_row in smallest_first], due_s=time.monotonic()
        )
        self._debouncer.hurry_all(time.monotonic())

    # -- sightings -----------------------------------------------------------------------------------------------------

    def _handle_sighting(self, sighting: Sighting) -> None:
        now_s = time.monotonic()
        match sighting:
            case FileClosed(relative_path):
                if self._options.filter.takes_path(relative_path):
                    self._removal_tried.pop(relative_path, None)
                    self._debouncer.note_closed(relative_path, now_s)
            case FileFound(relative_path, fingerprint):
                self._handle_found(relative_path, fingerprint, now_s)
            case ScanEnded(is_first):
                self._scanned = True
                if is_first:
                    self._on_event(WatchStarted(len(self._debouncer)))
                if is_first and self._outbox.is_new:
                    # Without an outbox, what lies here may be in the store already; what comes from now on is not.
                    self._revisions.doubtful_paths = frozenset(self._debouncer.waiting_paths())
            case SyncNotice():
                self._on_event(sighting)

    def _handle_found(self, relative_path: str, fingerprint: Fingerprint, now_s: float) -> None:
        if self._options.delete_after and is_set_aside(relative_path):
            self._finish_removal(relative_path, fingerprint)
        elif not self._options.filter.takes_path(relative_path):
            return
        elif self._outbox.known_fingerprint(relative_path) == fingerprint:
            self._remove_confirmed(relative_path, fingerprint)
        else:
            self._debouncer.note_found(relative_path, fingerprint, now_s)

    def _remove_confirmed(self, relative_path: str, fingerprint: Fingerprint) -> None:
        """Hash a file that an earlier run delivered and left here, to remove it if it is still what was confirmed."""
        if (
            not self._options.delete_after
            or relative_path in self._hashing
            or self._removal_tried.get(relative_path) == fingerprint
        ):
            return
        outbox_row = self._outbox.find_row(relative_path)
        if outbox_row is not None and outbox_row.state == "done":
            self._removal_tried[relative_path] = fingerprint
            self._hashing[relative_path] = False
            self._hashers.submit(self._hash_file, relative_path, fingerprint)

    def _finish_removal(self, relative_path: str, fingerprint: Fingerprint) -> None:
        """Remove a file that a killed run had set aside, if the outbox has confirmed exactly that file."""
        if self._removal_tried.get(relative_path) == fingerprint:
            return
        self._removal_tried[relative_path] = fingerprint
        confirmed_digests = self._outbox.confirmed_digests(fingerprint)
        if (
            confirmed_digests
            and (kept_reason := finish_removal(self._root, relative_path, fingerprint, confirmed_digests)) is not None
        ):
            self._on_event(SyncNotice(f"{relative_path} was set aside for removal, but was kept: {kept_reason}."))

    def _consider_file(self, relative_path: str, now_s: float) -> None:
        """Hash a file whose time has come, unless it is gone, still changing, or being hashed."""
        fingerprint = read_fingerprint(self._root, relative_path)
        if fingerprint is None:
            self._debouncer.forget_path(relative_path)
        elif self._outbox.known_fingerprint(relative_path) == fingerprint:
            self._debouncer.forget_path(relative_path)
            self._remove_confirmed(relative_path, fingerprint)
        elif relative_path in self._hashing:
            self._hashing[relative_path] = True
            self._debouncer.forget_path(relative_path)
        elif not self._debouncer.has_settled(relative_path, fingerprint, now_s) or is_being_written(
            self._root, relative_path
        ):
            self._debouncer.wait_longer(relative_path, fingerprint, now_s)
        else:
            self._debouncer.forget_path(relative_path)
            self._hashing[relative_path] = False
            self._hashers.submit(self._hash_file, relative_path, fingerprint)

    def _hash_file(self, relative_path: str, fingerprint: Fingerprint) -> None:
        digest: Digest | None = None
        try:
            digest = Digest.of_file(Path(self._root, relative_path))
        except OSError:
            pass  # gone, or closed to us; the next scan sees what is there then
        self._inbox.put(
            _FileHashed(
                relative_path,
                fingerprint,
                digest if read_fingerprint(self._root, relative_path) == fingerprint else None,
            )
        )

    # -- results -------------------------------------------------------------------------------------------------------

    def _handle_hashed(
        self, hashed_file: _FileHashed, changed_rows: dict[str, OutboxRow], follow_ups: list[Callable[[], None]]
    ) -> None:
        relative_path = hashed_file.path
        seen_again = self._hashing.pop(relative_path)
        if hashed_file.digest is None or seen_again:
            # It changed while it was read: its time begins anew.
            if (fingerprint := read_fingerprint(self._root, relative_path)) is not None:
                self._debouncer.note_found(relative_path, fingerprint, time.monotonic())
            return
        is_uploading = self._upload_queue.is_busy(relative_path)
        outbox_row = self._revisions.next_revision(
            relative_path, hashed_file.fingerprint, hashed_file.digest, changed_rows, is_uploading=is_uploading
        )
        changed_rows[relative_path] = outbox_row
        if outbox_row.state == "owed":
            follow_ups.append(lambda: self._queue_upload(outbox_row))
        elif self._options.delete_after and outbox_row.sha256 == hashed_file.digest:
            # With `--on-change ignore` the row may stand for bytes that are not the ones in the bucket.
            follow_ups.append(lambda: self._delete_local(outbox_row))

    def _queue_upload(self, outbox_row: OutboxRow) -> None:
        # While an older revision is on its way this one waits; the end of that upload brings it up.
        if not self._upload_queue.is_busy(outbox_row.path):
            self._upload_queue.add_upload(outbox_row.path, outbox_row.fingerprint.size, due_s=time.monotonic())

    def _handle_upload_end(
        self, upload_end: UploadEnded, changed_rows: dict[str, OutboxRow], follow_ups: list[Callable[[], None]]
    ) -> None:
        outbox_row = upload_end.row
        self._upload_queue.release_path(outbox_row.path)
        current_row = changed_rows.get(outbox_row.path) or self._outbox.find_row(outbox_row.path)
        if (
            current_row is None
            or current_row.sha256 != outbox_row.sha256
            or current_row.revision != outbox_row.revision
        ):
            # A newer revision is owed; it was held back while this one was on its way.
            if current_row is not None and current_row.state == "owed":
                follow_ups.append(lambda: self._queue_upload(current_row))
            return
        current_fingerprint = read_fingerprint(self._root, outbox_row.path)
        if upload_end.failure is None and (
            not upload_end.sent or current_fingerprint in (outbox_row.fingerprint, None)
        ):
            delivered_row = replace(current_row, state="done", doubtful=False, reason=None, done_at=time.time())
            changed_rows[outbox_row.path] = delivered_row
            follow_ups.append(lambda: self._on_event(Delivered(delivered_row, upload_end.sent)))
            if self._options.delete_after:
                follow_ups.append(lambda: self._delete_local(delivered_row))
        elif current_fingerprint is None:
            # The file is gone: nobody can deliver it any more.
            changed_rows[outbox_row.path] = replace(outbox_row, state="gone", reason="deleted before it was delivered")
            follow_ups.append(
                lambda: self._on_event(SyncNotice(f"{outbox_row.path} was deleted before it was delivered."))
            )
        else:
            self._retry_later(outbox_row, upload_end.failure, current_fingerprint, changed_rows, follow_ups)

    def _retry_later(
        self,
        outbox_row: OutboxRow,
        upload_error: ComfypinError | None,
        current_fingerprint: Fingerprint,
        changed_rows: dict[str, OutboxRow],
        follow_ups: list[Callable[[], None]],
    ) -> None:
        if current_fingerprint != outbox_row.fingerprint:
            self._debouncer.note_found(outbox_row.path, current_fingerprint, time.monotonic())
        failure_reason = upload_error.message if upload_error is not None else "it changed during the upload"
        failed_row = replace(outbox_row, failures=outbox_row.failures + 1, reason=failure_reason)
        changed_rows[outbox_row.path] = failed_row
        delay_s = self._options.retry_policy.delay_s(failed_row.failures) or 0.0
        due_s = time.monotonic() + delay_s
        follow_ups.append(
            lambda: self._upload_queue.add_upload(outbox_row.path, outbox_row.fingerprint.size, due_s=due_s)
        )
        follow_ups.append(lambda: self._on_event(UploadFailed(failed_row, delay_s)))

    def _delete_local(self, outbox_row: OutboxRow) -> None:
        if (kept_reason := remove_unchanged(self._root, outbox_row.path, outbox_row.fingerprint)) is not None:
            self._on_event(SyncNotice(f"{outbox_row.path} is delivered, but was kept here: {kept_reason}."))
