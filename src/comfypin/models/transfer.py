"""One file on its way: parts come over many connections, go where they belong, and are hashed in order meanwhile."""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable

from comfypin.digest import Digest
from comfypin.errors import ComfypinError
from comfypin.http.stall import StallWatch
from comfypin.models.download_parts import Part, Parts
from comfypin.models.errors import SourceChanged, SourceFailed, SourceUnavailable, WrongDigest, WrongLength
from comfypin.models.interface import ModelSource, Reader, RemoteFile, Stop, Wanted, shown
from comfypin.models.partial_file import Journal, Partial
from comfypin.models.pull_limits import Budget, Effort, Hunger, Trouble
from comfypin.retry import Failures, RetryPolicy

# What is asked for first, before the size is known; a file that is not larger needs no other request.
FIRST_BYTES = 8 << 20
# A file up to this size is hashed after it was written, without a thread for it.
INLINE_BYTES = 8 << 20
HASH_BUFFER_BYTES = 512 << 10
# How often whoever waits for bytes looks up. A file begins with one connection, and has twice as many whenever its
# hasher is hungry: more than the network can fill only take turns at the processor.
PATIENCE_S = 0.05
# What has arrived is written when the buffer is full, or when it is this old: TLS gives 16 KiB at a time.
FLUSH_AFTER_S = 0.5
# A file that was replaced at its source while it came is fetched anew at once.
CHANGED_RETRIES = RetryPolicy(retries=2, base_s=0.0)


class Transfer:
    """Fetches one file from one source into one partial file. Used once."""

    def __init__(
        self, source: ModelSource, uri: str, partial: Partial, *, wanted: Wanted, budget: Budget, effort: Effort
    ) -> None:
        self._source = source
        self._uri = uri
        self._partial = partial
        self._wanted = wanted
        self._budget = budget
        self._effort = effort
        self._parts = Parts()
        self._hunger = Hunger()
        self._hasher = hashlib.sha256()
        self._fetchers: list[threading.Thread] = []
        self._descriptor = -1
        self._remote: RemoteFile | None = None
        self._opening = threading.Lock()
        self._advanced: Callable[[int], None] = lambda count: None
        self._stop = Stop()
        self._size: int | None = None
        self._prefixes: dict[int, str] = {}
        self.resumed_bytes = 0

    def run(self, *, stop: Stop, begun: Callable[[int | None, int], None], advanced: Callable[[int], None]) -> Digest:
        """Fetch what is missing; the digest of the whole. `begun` hears the size and what was there already.

        Raises `SourceFailed` where the source does not give the promised bytes; what has arrived stays for the next
        attempt unless it was wrong. Raises what `begun` raises (no space).
        """
        self._stop, self._advanced = stop, advanced
        try:
            self._size = self._prepare()
            begun(self._size, self.resumed_bytes)
            with self._budget.file():
                digest = self._fetch_and_hash()
        finally:
            if self._remote is not None:
                self._remote.close()
        if self._wanted.sha256 is not None and digest != self._wanted.sha256:
            raise BytesDiffer(uri=shown(self._uri), expected=self._wanted.sha256.hex, actual=digest.hex)
        return digest

    # -- before the bytes

    def _prepare(self) -> int | None:
        journal = self._usable_journal()
        if journal is not None:
            self._lay_out(journal)
            return journal.size_bytes
        remote = self._open(0, FIRST_BYTES)
        size = remote.size_bytes
        self._check_size(size)
        if not remote.ranged or size is None:
            # A server without ranges: one stream, from the beginning, and nothing to go on with after a kill.
            self._partial.reset()
            self._parts.add(0, size)
            return size
        journal = Journal(
            size_bytes=size, part_bytes=remote.part_bytes, validator=remote.validator, source=shown(self._uri)
        )
        self._partial.reset()
        if size > remote.part_bytes:
            self._partial.begin(journal, fresh=True)
        self._lay_out(journal)
        return size

    def _usable_journal(self) -> Journal | None:
        journal = self._partial.load()
        if journal is None:
            return None
        if self._wanted.size_bytes not in {None, journal.size_bytes}:
            return None
        if self._wanted.sha256 is None:
            # Without a digest only the source can say that it is still the same file.
            remote = self._open(0, FIRST_BYTES)
            same = journal.source == shown(self._uri) and journal.validator and journal.validator == remote.validator
            if not same or remote.size_bytes != journal.size_bytes or not remote.ranged:
                remote.close()
                self._remote = None
                return None
        self._partial.begin(journal, fresh=False)
        return journal

    def _lay_out(self, journal: Journal) -> None:
        size, step = journal.size_bytes, journal.part_bytes
        self._prefixes = journal.prefixes
        for index, start in enumerate(range(0, size, step)):
            part = self._parts.add(start, min(step, size - start), there=index in journal.written)
            self.resumed_bytes += part.written
        if not size:
            self._parts.add(0, 0, there=True)

    def _open(self, start: int, length: int | None) -> RemoteFile:
        """The source's file, opened once by whoever needs it first; failures that may pass are tried again."""
        with self._opening:
            trouble = Trouble(self._effort.retry_policy)
            while self._remote is None:
                try:
                    with self._budget.buffer():
                        self._remote = self._source.open(self._uri, self._wanted, start=start, length=length)
                except SourceUnavailable as error:
                    trouble.add(self._parts.fetched_bytes)
                    self._pause(trouble, error)
            return self._remote

    def _check_size(self, size: int | None) -> None:
        expected = self._wanted.size_bytes
        if size is not None and expected is not None and size != expected:
            raise WrongLength(uri=shown(self._uri), expected_bytes=expected, actual_bytes=size)

    # -- the bytes

    def _fetch_and_hash(self) -> Digest:
        # Opened before there are threads that would each open it.
        self._descriptor = self._partial.descriptor
        (first, *others) = self._parts.all
        if not others and first.length is not None and first.length <= INLINE_BYTES:
            if self._parts.missing:
                self._fetch_all()
            return self._hash_all()
        self._hire(1)
        try:
            return self._hash_all()
        finally:
            self._parts.end()
            if self._remote is not None:
                self._remote.abort()
            for fetcher in self._fetchers:
                fetcher.join()

    def _hire(self, count: int) -> None:
        """Start more fetchers, up to one for each missing part and each connection of the budget."""
        for _ in range(min(count, self._parts.missing, self._budget.connections - len(self._fetchers))):
            fetcher = threading.Thread(target=self._fetch_all, name=f"fetch-{len(self._fetchers)}", daemon=True)
            self._fetchers.append(fetcher)
            fetcher.start()

    def _fetch_all(self) -> None:
        """A fetcher: take the first missing part, bring it, until all is done or something failed."""
        trouble = Trouble(self._effort.retry_policy)
        try:
            while not self._stop.is_set() and (part := self._parts.take()) is not None:
                try:
                    self._stream(part)
                except SourceUnavailable as error:
                    self._put_back(part, error)
                    trouble.add(self._parts.fetched_bytes)
                    self._pause(trouble, error)
                    continue
                trouble.own = 0
                if len(self._parts.all) == 1:
                    return
                self._partial.wrote(part.index)
        except (ComfypinError, OSError) as error:
            self._parts.fail(error)

    def _put_back(self, part: Part, error: SourceUnavailable) -> None:
        """Let anybody go on with the part where it broke off. A stream without ranges has to begin again instead."""
        if self._remote is not None and not self._remote.ranged and part.written:
            raise StreamBroke(uri=error.uri, reason=error.reason) from error
        self._parts.put_back(part)

    def _stream(self, part: Part) -> None:
        length = None if part.length is None else part.length - part.written
        position = part.start + part.written
        remote = self._remote or self._open(position, length)
        self._check_size(remote.size_bytes)
        if position and (not remote.ranged or remote.size_bytes != self._size):
            raise SourceChanged(uri=shown(self._uri), reason="it cannot go on with what an earlier pull has fetched")
        with self._budget.buffer() as buffer, remote.read(position, length) as reader:
            self._copy(part, reader, buffer)
        if part.length is None:
            self._parts.ended(part)

    def _copy(self, part: Part, reader: Reader, buffer: memoryview) -> None:
        pace = StallWatch(self._effort.stall_s)
        filled, began = 0, time.monotonic()
        try:
            while count := reader.readinto(buffer[filled:]):
                filled += count
                if part.length is not None and part.written + filled > part.length:
                    filled = 0
                    raise SourceChanged(uri=shown(self._uri), reason="it sends more bytes than it said")
                if self._wanted.size_bytes is not None and part.start + part.written + filled > self._wanted.size_bytes:
                    reason = f"it sends more than the {self._wanted.size_bytes} bytes that the lock says"
                    raise SourceFailed(uri=shown(self._uri), reason=reason)
                if filled == len(buffer) or time.monotonic() - began > FLUSH_AFTER_S:
                    self._write(part, buffer[:filled])
                    filled, began = 0, time.monotonic()
                if self._stop.is_set() or self._parts.failure is not None or self._parts.over:
                    raise SourceFailed(uri=shown(self._uri), reason="the pull was stopped")
                if pace.is_too_slow(count):
                    reason = f"it stalled ({pace.bytes_per_s():.0f} bytes a second)"
                    raise SourceUnavailable(uri=shown(self._uri), reason=reason)
        finally:
            self._write(part, buffer[:filled])
        if part.length is not None and part.written < part.length:
            raise SourceUnavailable(
                uri=shown(self._uri),
                reason=f"it closed the connection {part.length - part.written} bytes before the end",
            )

    def _write(self, part: Part, data: memoryview) -> None:
        offset = part.start + part.written
        done = 0
        while done < len(data):
            done += os.pwrite(self._descriptor, data[done:], offset + done)
        if not done:
            return
        # Hashed where they are at hand, as long as there are other files for the other processors.
        hashed = self._budget.crowded and self._parts.lend_hash(part)
        if hashed:
            self._hasher.update(data)
        self._parts.wrote(part, done, hashed=hashed)
        self._advanced(done)

    def _pause(self, trouble: Trouble, error: SourceUnavailable) -> None:
        if trouble.is_hopeless:
            raise SourceFailed(uri=error.uri, reason=f"{error.reason} (tried {trouble.stuck} times)") from error
        delay_s = trouble.delay_s(error.retry_after_s)
        if delay_s is None:
            reason = f"{error.reason}, and asks to come back in {error.retry_after_s:.0f} seconds"
            raise SourceFailed(uri=error.uri, reason=reason) from error
        until = time.monotonic() + delay_s
        while (left := until - time.monotonic()) > 0 and not self._parts.over:
            self._stop.wait(min(0.2, left))
            self._raise_failure()

    # -- the hash

    def _hash_all(self) -> Digest:
        buffer = memoryview(bytearray(HASH_BUFFER_BYTES))
        for part in self._parts.all:
            self._hash_part(part, buffer)
        self._raise_failure()
        return Digest(self._hasher.hexdigest())

    def _hash_part(self, part: Part, buffer: memoryview) -> None:
        before = self._hasher.copy()
        while self._wait_for(part):
            # All that is there, so that the fetcher may have the hash for what comes next.
            while left := part.written - part.hashed:
                count = os.preadv(self._descriptor, [buffer[: min(left, len(buffer))]], part.start + part.hashed)
                if count == 0:
                    raise OSError(errno.EIO, "somebody else made it shorter", str(self._partial.data))
                self._hasher.update(buffer[:count])
                part.hashed += count
        if len(self._parts.all) == 1:
            return
        prefix = self._hasher.hexdigest()
        end = part.start + part.hashed
        if part.resumed and self._prefixes.get(end, prefix) != prefix:
            self.resumed_bytes -= part.written
            self._hasher = before
            self._parts.fetch_again(part)
            self._hash_part(part, buffer)
        elif end not in self._prefixes or not part.resumed:
            self._partial.hashed(end, prefix)

    def _wait_for(self, part: Part) -> bool:
        """Wait for more of a part, once that is worth a look; False when all of it is hashed. A hungry hasher hires."""
        while True:
            began = time.monotonic()
            arrived = self._parts.arrived(part, wait_s=PATIENCE_S)
            if self._parts.fetched_bytes and self._hunger.is_felt(time.monotonic() - began):
                self._hire(len(self._fetchers))
            if arrived:
                return part.written > part.hashed
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._parts.failure is not None:
            raise self._parts.failure
        if self._stop.is_set():
            raise SourceFailed(uri=shown(self._uri), reason="the pull was stopped")


class BytesDiffer(WrongDigest):
    """What arrived has another digest; a source that only says so beforehand raises `WrongDigest`."""


class StreamBroke(SourceFailed):
    """A stream that cannot be gone on with has to be begun again."""


def fetch(
    source: ModelSource,
    uri: str,
    partial: Partial,
    *,
    wanted: Wanted,
    budget: Budget,
    effort: Effort,
    stop: Stop,
    begun: Callable[[int | None, int], None],
    advanced: Callable[[int], None],
) -> Digest:
    """Bring a whole file from one source into `partial`, beginning again where going on is impossible.

    Returns the digest of what is there. Raises `SourceFailed`; wrong bytes are not kept, unfinished ones are.
    """
    broken, changed = Failures(effort.retry_policy), Failures(CHANGED_RETRIES)
    while True:
        transfer = Transfer(source, uri, partial, wanted=wanted, budget=budget, effort=effort)
        try:
            return transfer.run(stop=stop, begun=begun, advanced=advanced)
        except (StreamBroke, SourceChanged, BytesDiffer) as error:
            partial.reset()
            # Whole and wrong, with nothing of an earlier process in it: the source has other bytes.
            if isinstance(error, BytesDiffer) and not transfer.resumed_bytes:
                raise
            failures = broken if isinstance(error, StreamBroke) else changed
            delay_s = failures.add()
            if delay_s is None:
                raise SourceFailed(uri=error.uri, reason=f"{error.reason} (tried {failures.in_a_row} times)") from error
            if stop.wait(delay_s):
                raise
        except BaseException:
            # Nobody can go on with a stream that has no journal; its bytes would only fill the disk.
            if not partial.has_journal:
                partial.reset()
            raise
        finally:
            partial.close()
