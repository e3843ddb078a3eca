"""Transfers one file: parts arrive over many connections, are written where they belong, and are hashed in order."""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable

from comfypin.digest import Digest
from comfypin.errors import ComfypinError
from comfypin.http.stall_watch import StallWatch
from comfypin.models.download_parts import FilePart, FileParts
from comfypin.models.errors import SourceChanged, SourceFailed, SourceUnavailable, WrongDigest, WrongLength
from comfypin.models.interface import ExpectedFile, ModelSource, RangeReader, RemoteFile, StopSwitch, hide_secrets
from comfypin.models.partial_file import PartialFile, TransferJournal
from comfypin.models.pull_limits import ConnectionDemand, FetchFailures, FetchPolicy, PullBudget
from comfypin.plurals import format_count, format_rate
from comfypin.retry import Failures, RetryPolicy

# What is asked for first, before the size is known; a file that is not larger needs no other request.
FIRST_BYTES = 8 << 20
# A file up to this size is hashed after it was written, without a thread for it.
INLINE_BYTES = 8 << 20
# Small enough to stay in the processor's cache between writing and hashing.
HASH_BUFFER_BYTES = 512 << 10
# How often whoever waits for bytes looks up. A file begins with one connection, and has twice as many whenever its
# hasher is hungry: more than the network can fill only take turns at the processor.
POLL_S = 0.05
# What has arrived is written when the buffer is full, or when it is this old: TLS gives 16 KiB at a time.
FLUSH_AFTER_S = 0.5
# A file that was replaced at its source while it came is fetched anew at once.
CHANGED_RETRIES = RetryPolicy(retries=2, base_s=0.0)


class FileTransfer:
    """Fetches one file from one source into one partial file. Used once."""

    def __init__(
        self,
        source: ModelSource,
        address: str,
        partial: PartialFile,
        *,
        expected_file: ExpectedFile,
        budget: PullBudget,
        effort: FetchPolicy,
    ) -> None:
        self._source = source
        self._uri = address
        self._partial = partial
        self._wanted = expected_file
        self._budget = budget
        self._fetch_policy = effort
        self._parts = FileParts()
        self._demand = ConnectionDemand()
        self._hasher = hashlib.sha256()
        self._fetchers: list[threading.Thread] = []
        self._descriptor = -1
        # Opened late: a complete file that is resumed needs no connection at all.
        self._remote: RemoteFile | None = None
        self._opening = threading.Lock()
        self._advanced: Callable[[int], None] = lambda count: None
        self._stop = StopSwitch()
        self._size: int | None = None
        self._prefixes: dict[int, str] = {}
        self.resumed_bytes = 0

    def fetch_file(
        self, *, stop: StopSwitch, begun: Callable[[int | None, int], None], advanced: Callable[[int], None]
    ) -> Digest:
        """Fetch what is missing; return the digest of the whole. `on_begin` gets the size and how much was already
        there.

        Raises `SourceFailed` if the source does not give the promised bytes; what has arrived stays for the next
        attempt unless it was wrong. Raises what `on_begin` raises (no space).
        """
        self._stop, self._advanced = stop, advanced
        try:
            self._size = self._prepare_parts()
            begun(self._size, self.resumed_bytes)
            # While more files come than there are processors, fetchers hash what they write.
            with self._budget.counted_file():
                digest = self._fetch_and_hash()
        finally:
            if self._remote is not None:
                self._remote.close()
        if self._wanted.sha256 is not None and digest != self._wanted.sha256:
            raise BytesDiffer(uri=hide_secrets(self._uri), expected=self._wanted.sha256.hex, actual=digest.hex)
        return digest

    # -- before the bytes

    def _prepare_parts(self) -> int | None:
        journal = self._load_usable_journal()
        if journal is not None:
            self._lay_out_parts(journal)
            return journal.size_bytes
        remote_file = self._open_remote(0, FIRST_BYTES)
        size_bytes = remote_file.size_bytes
        self._check_size(size_bytes)
        if not remote_file.ranged or size_bytes is None:
            # A server without ranges: one stream, from the beginning, and nothing to go on with after a kill.
            self._partial.forget_bytes()
            self._parts.add_part(0, size_bytes)
            return size_bytes
        journal = TransferJournal(
            size_bytes=size_bytes,
            part_bytes=remote_file.part_bytes,
            validator=remote_file.validator,
            source=hide_secrets(self._uri),
        )
        self._partial.forget_bytes()
        if size_bytes > remote_file.part_bytes:
            self._partial.begin_session(journal, fresh=True)
        self._lay_out_parts(journal)
        return size_bytes

    def _load_usable_journal(self) -> TransferJournal | None:
        journal = self._partial.load_journal()
        if journal is None:
            return None
        if self._wanted.size_bytes not in {None, journal.size_bytes}:
            return None
        if self._wanted.sha256 is None:
            # Without a digest only the source can say that it is still the same file.
            remote_file = self._open_remote(0, FIRST_BYTES)
            same = (
                journal.source == hide_secrets(self._uri)
                and journal.validator
                and journal.validator == remote_file.validator
            )
            # Without a digest nothing but the validator can tell two versions apart.
            if not same or remote_file.size_bytes != journal.size_bytes or not remote_file.ranged:
                remote_file.close()
                self._remote = None
                return None
        self._partial.begin_session(journal, fresh=False)
        return journal

    def _lay_out_parts(self, journal: TransferJournal) -> None:
        size_bytes, part_bytes = journal.size_bytes, journal.part_bytes
        self._prefixes = journal.prefixes
        for part_index, start in enumerate(range(0, size_bytes, part_bytes)):
            file_part = self._parts.add_part(
                start, min(part_bytes, size_bytes - start), there=part_index in journal.written
            )
            self.resumed_bytes += file_part.written
        if not size_bytes:
            self._parts.add_part(0, 0, there=True)

    def _open_remote(self, start: int, length: int | None) -> RemoteFile:
        """Open the source's file once, by whoever needs it first, with retries."""
        with self._opening:
            fetch_failures = FetchFailures(self._fetch_policy.retry_policy)
            while self._remote is None:
                try:
                    with self._budget.connection_buffer():
                        self._remote = self._source.open(self._uri, self._wanted, start=start, length=length)
                except SourceUnavailable as error:
                    fetch_failures.add_failure(self._parts.fetched_bytes)
                    self._pause_after(fetch_failures, error)
            return self._remote

    def _check_size(self, size_bytes: int | None) -> None:
        expected = self._wanted.size_bytes
        if size_bytes is not None and expected is not None and size_bytes != expected:
            raise WrongLength(uri=hide_secrets(self._uri), expected_bytes=expected, actual_bytes=size_bytes)

    # -- the bytes

    def _fetch_and_hash(self) -> Digest:
        # Opened before there are threads that would each open it.
        self._descriptor = self._partial.descriptor
        (first_part, *others) = self._parts.all
        if not others and first_part.length is not None and first_part.length <= INLINE_BYTES:
            if self._parts.missing_count:
                self._fetch_parts()
            return self._hash_parts()
        self._start_fetchers(1)
        try:
            return self._hash_parts()
        finally:
            self._parts.end_all()
            if self._remote is not None:
                self._remote.abort()
            for fetcher in self._fetchers:
                fetcher.join()

    def _start_fetchers(self, count: int) -> None:
        """Start more fetchers, up to one for each missing part and each connection of the budget."""
        for _ in range(min(count, self._parts.missing_count, self._budget.connections - len(self._fetchers))):
            fetcher = threading.Thread(target=self._fetch_parts, name=f"fetch-{len(self._fetchers)}", daemon=True)
            self._fetchers.append(fetcher)
            fetcher.start()

    def _fetch_parts(self) -> None:
        """Fetch missing parts, the first one first, until all are done or something failed."""
        fetch_failures = FetchFailures(self._fetch_policy.retry_policy)
        try:
            while not self._stop.is_set() and (file_part := self._parts.take_missing()) is not None:
                try:
                    self._stream_part(file_part)
                except SourceUnavailable as error:
                    self._put_back(file_part, error)
                    fetch_failures.add_failure(self._parts.fetched_bytes)
                    self._pause_after(fetch_failures, error)
                    continue
                fetch_failures.own = 0
                if len(self._parts.all) == 1:
                    return
                self._partial.record_part(file_part.index)
        except (ComfypinError, OSError) as error:
            self._parts.fail_all(error)

    def _put_back(self, file_part: FilePart, error: SourceUnavailable) -> None:
        """Let another fetcher continue the part. A stream without ranges has to begin again instead."""
        if self._remote is not None and not self._remote.ranged and file_part.written:
            raise StreamBroke(uri=error.uri, reason=error.reason) from error
        self._parts.put_back(file_part)

    def _stream_part(self, file_part: FilePart) -> None:
        length = None if file_part.length is None else file_part.length - file_part.written
        position = file_part.start + file_part.written
        remote_file = self._remote or self._open_remote(position, length)
        self._check_size(remote_file.size_bytes)
        if position and (not remote_file.ranged or remote_file.size_bytes != self._size):
            raise SourceChanged(uri=hide_secrets(self._uri), reason="it cannot continue what an earlier pull fetched")
        with self._budget.connection_buffer() as buffer, remote_file.read(position, length) as reader:
            self._copy_range(file_part, reader, buffer)
        if file_part.length is None:
            self._parts.record_end(file_part)

    def _copy_range(self, file_part: FilePart, reader: RangeReader, buffer: memoryview) -> None:
        stall_watch = StallWatch(self._fetch_policy.stall_s)
        # Filled before it is written: TLS gives 16 KiB at a time, and each write costs a system call.
        filled_bytes, started_s = 0, time.monotonic()
        try:
            while byte_count := reader.readinto(buffer[filled_bytes:]):
                filled_bytes += byte_count
                if file_part.length is not None and file_part.written + filled_bytes > file_part.length:
                    filled_bytes = 0
                    raise SourceChanged(uri=hide_secrets(self._uri), reason="it sends more bytes than it announced")
                if (
                    self._wanted.size_bytes is not None
                    and file_part.start + file_part.written + filled_bytes > self._wanted.size_bytes
                ):
                    reason = f"it sends more than the {self._wanted.size_bytes} bytes that the lock says"
                    raise SourceFailed(uri=hide_secrets(self._uri), reason=reason)
                if filled_bytes == len(buffer) or time.monotonic() - started_s > FLUSH_AFTER_S:
                    self._write_bytes(file_part, buffer[:filled_bytes])
                    filled_bytes, started_s = 0, time.monotonic()
                if self._stop.is_set() or self._parts.failure is not None or self._parts.over:
                    raise SourceFailed(uri=hide_secrets(self._uri), reason="the pull was stopped")
                if stall_watch.is_too_slow(byte_count):
                    reason = f"it stalled at {format_rate(stall_watch.bytes_per_s())}; try again later"
                    raise SourceUnavailable(uri=hide_secrets(self._uri), reason=reason)
        finally:
            self._write_bytes(file_part, buffer[:filled_bytes])
        if file_part.length is not None and file_part.written < file_part.length:
            raise SourceUnavailable(
                uri=hide_secrets(self._uri),
                reason=f"it closed the connection {file_part.length - file_part.written} bytes before the end",
            )

    def _write_bytes(self, file_part: FilePart, received: memoryview) -> None:
        offset = file_part.start + file_part.written
        written_bytes = 0
        while written_bytes < len(received):
            written_bytes += os.pwrite(self._descriptor, received[written_bytes:], offset + written_bytes)
        if not written_bytes:
            return
        # Hashed where they are at hand, as long as there are other files for the other processors.
        hashed = self._budget.is_crowded and self._parts.lend_hash(file_part)
        if hashed:
            self._hasher.update(received)
        self._parts.record_written(file_part, written_bytes, hashed=hashed)
        self._advanced(written_bytes)

    def _pause_after(self, fetch_failures: FetchFailures, error: SourceUnavailable) -> None:
        if fetch_failures.is_hopeless:
            raise SourceFailed(
                uri=error.uri, reason=f"{error.reason} (tried {format_count(fetch_failures.stuck, 'time')})"
            ) from error
        delay_s = fetch_failures.delay_s(error.retry_after_s)
        if delay_s is None:
            reason = f"{error.reason}, and asks to come back in {error.retry_after_s:.0f} s"
            raise SourceFailed(uri=error.uri, reason=reason) from error
        until = time.monotonic() + delay_s
        # Short waits, so that an interrupt does not have to wait for a server's Retry-After.
        while (pause_s := until - time.monotonic()) > 0 and not self._parts.over:
            self._stop.wait(min(0.2, pause_s))
            self._raise_failure()

    # -- the hash

    def _hash_parts(self) -> Digest:
        buffer = memoryview(bytearray(HASH_BUFFER_BYTES))
        for file_part in self._parts.all:
            self._hash_part(file_part, buffer)
        self._raise_failure()
        return Digest(self._hasher.hexdigest())

    def _hash_part(self, file_part: FilePart, buffer: memoryview) -> None:
        # A resumed part may turn out wrong: then the hash goes back to where the part begins.
        before = self._hasher.copy()
        while self._wait_for_bytes(file_part):
            # All that is there, so that the fetcher may have the hash for what comes next.
            while unhashed_bytes := file_part.written - file_part.hashed:
                byte_count = os.preadv(
                    self._descriptor, [buffer[: min(unhashed_bytes, len(buffer))]], file_part.start + file_part.hashed
                )
                # pread gives nothing only beyond the end, and this file was as long as it said.
                if byte_count == 0:
                    raise OSError(errno.EIO, "another process made it shorter", str(self._partial.data))
                self._hasher.update(buffer[:byte_count])
                file_part.hashed += byte_count
        # A single part has no journal: it is fetched whole or not at all.
        if len(self._parts.all) == 1:
            return
        prefix_sha256 = self._hasher.hexdigest()
        end_offset = file_part.start + file_part.hashed
        if file_part.resumed and self._prefixes.get(end_offset, prefix_sha256) != prefix_sha256:
            self.resumed_bytes -= file_part.written
            self._hasher = before
            self._parts.fetch_again(file_part)
            self._hash_part(file_part, buffer)
        elif end_offset not in self._prefixes or not file_part.resumed:
            self._partial.record_prefix(end_offset, prefix_sha256)

    def _wait_for_bytes(self, file_part: FilePart) -> bool:
        """Wait for more of a part; return False when all of it is hashed. Start more fetchers if the hasher runs
        dry.
        """
        while True:
            began = time.monotonic()
            arrived = self._parts.wait_for_bytes(file_part, wait_s=POLL_S)
            if self._parts.fetched_bytes and self._demand.wants_more(time.monotonic() - began):
                self._start_fetchers(len(self._fetchers))
            if arrived:
                return file_part.written > file_part.hashed
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._parts.failure is not None:
            raise self._parts.failure
        if self._stop.is_set():
            raise SourceFailed(uri=hide_secrets(self._uri), reason="the pull was stopped")


class BytesDiffer(WrongDigest):
    """The fetched bytes have another digest; `WrongDigest` is raised if a source says so before any byte."""


class StreamBroke(SourceFailed):
    """A stream without ranges broke, and has to begin again."""


def fetch_with_retries(
    source: ModelSource,
    address: str,
    partial_file: PartialFile,
    *,
    expected_file: ExpectedFile,
    budget: PullBudget,
    fetch_policy: FetchPolicy,
    stop_switch: StopSwitch,
    begun: Callable[[int | None, int], None],
    advanced: Callable[[int], None],
) -> Digest:
    """Fetch a whole file from one source into `partial_file`, beginning again if it cannot continue.

    Returns the digest. Raises `SourceFailed`; wrong bytes are removed, unfinished ones are kept.
    """
    broken, changed = Failures(fetch_policy.retry_policy), Failures(CHANGED_RETRIES)
    while True:
        transfer = FileTransfer(
            source, address, partial_file, expected_file=expected_file, budget=budget, effort=fetch_policy
        )
        try:
            return transfer.fetch_file(stop=stop_switch, begun=begun, advanced=advanced)
        except (StreamBroke, SourceChanged, BytesDiffer) as error:
            partial_file.forget_bytes()
            # Whole and wrong, with nothing of an earlier process in it: the source has other bytes.
            if isinstance(error, BytesDiffer) and not transfer.resumed_bytes:
                raise
            failures = broken if isinstance(error, StreamBroke) else changed
            delay_s = failures.count_failure()
            if delay_s is None:
                raise SourceFailed(
                    uri=error.uri, reason=f"{error.reason} (tried {format_count(failures.in_a_row, 'time')})"
                ) from error
            if stop_switch.wait(delay_s):
                raise
        except BaseException:
            # Nobody can go on with a stream that has no journal; its bytes would only fill the disk.
            if not partial_file.has_journal:
                partial_file.forget_bytes()
            raise
        finally:
            partial_file.close_files()
