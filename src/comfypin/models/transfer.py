"""One file on its way: parts come over many connections, go where they belong, and are hashed in order meanwhile."""

import contextlib
import hashlib
import heapq
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from comfypin.digest import Digest
from comfypin.errors import ComfypinError
from comfypin.errors.model import SourceChanged, SourceFailed, SourceUnavailable, WrongDigest, WrongLength
from comfypin.models.interface import ModelSource, Reader, RemoteFile, Stop, Wanted, shown
from comfypin.models.partial import Journal, Partial

# What is asked for first, before the size is known; a file that is not larger needs no other request.
FIRST_BYTES = 8 << 20
# A file up to this size is hashed after it was written, without a thread for it.
INLINE_BYTES = 8 << 20
BUFFER_BYTES = 512 << 10
HASH_BUFFER_BYTES = 512 << 10
# The hasher is woken for this much at once: waking it for every read of a socket costs more than the hash itself.
HASH_STEP_BYTES = 2 << 20
# Below this a connection is worth less than the hope for a better one.
STALL_BYTES_PER_S = 2_000
LEAST_PROGRESS_BYTES = 64 << 10
LONGEST_WAIT_S = 20.0


class Budget:
    """The connections of a pull and their memory: whoever has a buffer may have a connection open."""

    def __init__(self, connections: int, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.connections = connections
        self._buffers: queue.LifoQueue[memoryview | None] = queue.LifoQueue()
        self._buffer_bytes = buffer_bytes
        for _ in range(connections):
            self._buffers.put(None)

    @contextlib.contextmanager
    def buffer(self) -> Iterator[memoryview]:
        """Wait for one of the connections; yields the memory that goes with it."""
        buffer = self._buffers.get()
        try:
            if buffer is None:
                buffer = memoryview(bytearray(self._buffer_bytes))
            yield buffer
        finally:
            self._buffers.put(buffer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How hard to try: failures in a row without progress, the first pause, and how long silence is borne."""

    attempts: int = 6
    first_pause_s: float = 0.5
    stall_s: float = 30.0

    def pause_s(self, failures: int, asked_s: float | None) -> float:
        """How long to wait after that many failures in a row, with what the server asked for as the least."""
        backoff: float = min(LONGEST_WAIT_S, self.first_pause_s * 2 ** (failures - 1))
        backoff *= 0.5 + secrets.randbelow(500) / 1000
        return min(max(backoff, asked_s or 0.0), 120.0)


@dataclass(slots=True)
class _Part:
    index: int
    start: int
    length: int | None
    written: int = 0
    resumed: bool = False

    @property
    def whole(self) -> bool:
        return self.length is not None and self.written >= self.length


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
        self._parts: list[_Part] = []
        self._missing: list[int] = []
        self._changed = threading.Condition()
        self._awaited: _Part | None = None
        self._awaited_bytes = 0
        self._failure: Exception | None = None
        self._done = False
        self._descriptor = -1
        self._remote: RemoteFile | None = None
        self._opening = threading.Lock()
        self._advanced: Callable[[int], None] = lambda count: None
        self._stop = Stop()
        self._size: int | None = None
        self._prefixes: dict[int, str] = {}
        self.resumed_bytes = 0
        self.fetched_bytes = 0

    def run(self, *, stop: Stop, begun: Callable[[int | None, int], None], advanced: Callable[[int], None]) -> Digest:
        """Fetch what is missing; the digest of the whole. `begun` hears the size and what was there already.

        Raises `SourceFailed` where the source does not give the promised bytes; what has arrived stays for the next
        attempt unless it was wrong. Raises what `begun` raises (no space).
        """
        self._stop, self._advanced = stop, advanced
        try:
            self._size = self._prepare()
            begun(self._size, self.resumed_bytes)
            digest = self._fetch_and_hash()
        finally:
            if self._remote is not None:
                self._remote.close()
        if self._wanted.sha256 is not None and digest != self._wanted.sha256:
            raise WrongDigest(uri=shown(self._uri), expected=self._wanted.sha256.hex, actual=digest.hex)
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
            self._parts = [_Part(0, 0, size)]
            self._missing = [0]
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
            part = _Part(index, start, min(step, size - start))
            if index in journal.written:
                part.written, part.resumed = part.length or 0, True
                self.resumed_bytes += part.written
            else:
                self._missing.append(index)
            self._parts.append(part)
        if not size:
            self._parts.append(_Part(0, 0, 0))
        heapq.heapify(self._missing)

    def _open(self, start: int, length: int | None) -> RemoteFile:
        """The source's file, opened once by whoever needs it first; failures that may pass are tried again."""
        with self._opening:
            trouble = _Trouble()
            while self._remote is None:
                try:
                    with self._budget.buffer():
                        self._remote = self._source.open(self._uri, self._wanted, start=start, length=length)
                except SourceUnavailable as error:
                    trouble.add(self.fetched_bytes)
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
        if len(self._parts) == 1 and (self._parts[0].length or INLINE_BYTES + 1) <= INLINE_BYTES:
            if self._missing:
                self._fetch_all()
            return self._hash_all()
        count = min(self._budget.connections, max(1, len(self._missing)))
        fetchers = [threading.Thread(target=self._fetch_all, name=f"fetch-{n}", daemon=True) for n in range(count)]
        for fetcher in fetchers:
            fetcher.start()
        try:
            return self._hash_all()
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()
            if self._remote is not None:
                self._remote.abort()
            for fetcher in fetchers:
                fetcher.join()

    def _fetch_all(self) -> None:
        """A fetcher: take the first missing part, bring it, until all is done or something failed."""
        trouble = _Trouble()
        try:
            while (part := self._take()) is not None:
                try:
                    self._stream(part)
                except SourceUnavailable as error:
                    self._put_back(part, error)
                    trouble.add(self.fetched_bytes)
                    self._pause(trouble, error)
                    continue
                trouble.own = 0
                if len(self._parts) == 1:
                    return
                self._partial.wrote(part.index)
        except (ComfypinError, OSError) as error:
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _take(self) -> _Part | None:
        with self._changed:
            while True:
                if self._done or self._failure is not None or self._stop.is_set():
                    return None
                if self._missing:
                    return self._parts[heapq.heappop(self._missing)]
                self._changed.wait(0.5)

    def _put_back(self, part: _Part, error: SourceUnavailable) -> None:
        """Let anybody go on with the part where it broke off. A stream without ranges has to begin again instead."""
        if self._remote is not None and not self._remote.ranged and part.written:
            raise StreamBroke(uri=error.uri, reason=error.reason) from error
        with self._changed:
            heapq.heappush(self._missing, part.index)
            self._changed.notify_all()

    def _stream(self, part: _Part) -> None:
        length = None if part.length is None else part.length - part.written
        position = part.start + part.written
        remote = self._remote or self._open(position, length)
        self._check_size(remote.size_bytes)
        if position and (not remote.ranged or remote.size_bytes != self._size):
            raise SourceChanged(uri=shown(self._uri), reason="it cannot go on with what an earlier pull has fetched")
        with self._budget.buffer() as buffer, remote.read(position, length) as reader:
            self._copy(part, reader, buffer)
        if part.length is None:
            part.length = part.written
        self._announce(part, 0)

    def _copy(self, part: _Part, reader: Reader, buffer: memoryview) -> None:
        pace = Pace(self._effort.stall_s)
        while count := reader.readinto(buffer):
            if part.length is not None and part.written + count > part.length:
                raise SourceChanged(uri=shown(self._uri), reason="it sends more bytes than it said")
            offset = part.start + part.written
            done = 0
            while done < count:
                done += os.pwrite(self._descriptor, buffer[done:count], offset + done)
            self._announce(part, count)
            if self._stop.is_set() or self._failure is not None or self._done:
                raise SourceFailed(uri=shown(self._uri), reason="the pull was stopped")
            if pace.too_slow(count):
                raise SourceUnavailable(uri=shown(self._uri), reason=f"it stalled ({pace.rate():.0f} bytes a second)")
        if part.length is not None and part.written < part.length:
            raise SourceUnavailable(
                uri=shown(self._uri),
                reason=f"it closed the connection {part.length - part.written} bytes before the end",
            )

    def _announce(self, part: _Part, count: int) -> None:
        with self._changed:
            part.written += count
            self.fetched_bytes += count
            if part is self._awaited and (part.whole or part.written >= self._awaited_bytes):
                self._changed.notify_all()
        self._advanced(count)

    def _pause(self, trouble: "_Trouble", error: SourceUnavailable) -> None:
        if trouble.stuck >= self._effort.attempts:
            raise SourceFailed(uri=error.uri, reason=f"{error.reason} (tried {trouble.stuck} times)") from error
        until = time.monotonic() + self._effort.pause_s(trouble.own, error.retry_after_s)
        while (left := until - time.monotonic()) > 0 and not self._done:
            self._stop.wait(min(0.2, left))
            self._raise_failure()

    # -- the hash

    def _hash_all(self) -> Digest:
        hasher = hashlib.sha256()
        buffer = memoryview(bytearray(HASH_BUFFER_BYTES))
        for part in self._parts:
            hasher = self._hash_part(part, hasher, buffer)
        self._raise_failure()
        return Digest(hasher.hexdigest())

    def _hash_part(self, part: _Part, hasher: "hashlib._Hash", buffer: memoryview) -> "hashlib._Hash":
        before = hasher.copy()
        position = 0
        while (available := self._wait_for(part, position)) > position:
            wanted = min(len(buffer), available - position)
            count = os.preadv(self._descriptor, [buffer[:wanted]], part.start + position)
            if count == 0:
                break
            hasher.update(buffer[:count])
            position += count
        if len(self._parts) == 1:
            return hasher
        prefix = hasher.hexdigest()
        end = part.start + position
        if part.resumed and self._prefixes.get(end, prefix) != prefix:
            self._refetch(part)
            return self._hash_part(part, before, buffer)
        if end not in self._prefixes or not part.resumed:
            self._partial.hashed(end, prefix)
        return hasher

    def _wait_for(self, part: _Part, position: int) -> int:
        """How much of the part is written, once that is worth a look beyond `position`, or all there will be."""
        with self._changed:
            self._awaited, self._awaited_bytes = part, position + HASH_STEP_BYTES
            while part.written < self._awaited_bytes and not part.whole:
                self._raise_failure()
                self._changed.wait(0.5)
            self._awaited = None
            return part.written

    def _refetch(self, part: _Part) -> None:
        """The bytes on the disk are not those that had arrived: only this part is fetched again."""
        with self._changed:
            self.resumed_bytes -= part.written
            part.written, part.resumed = 0, False
            heapq.heappush(self._missing, part.index)
            self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._stop.is_set():
            raise SourceFailed(uri=shown(self._uri), reason="the pull was stopped")


class StreamBroke(SourceFailed):
    """A stream that cannot be gone on with has to be begun again."""


@dataclass(slots=True)
class _Trouble:
    """One fetcher's failures in a row: its own decide how long it rests, those without any progress when to give up."""

    own: int = 0
    stuck: int = 0
    _seen: int = 0

    def add(self, fetched_bytes: int) -> None:
        self.own += 1
        # A server that serves four connections and refuses the others is slow, not broken: the file gets on.
        self.stuck = 1 if fetched_bytes - self._seen >= LEAST_PROGRESS_BYTES else self.stuck + 1
        self._seen = fetched_bytes


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
    again = 0
    while True:
        transfer = Transfer(source, uri, partial, wanted=wanted, budget=budget, effort=effort)
        try:
            return transfer.run(stop=stop, begun=begun, advanced=advanced)
        except (StreamBroke, SourceChanged, WrongDigest) as error:
            partial.reset()
            # Whole and wrong, with nothing of an earlier process in it: the source has other bytes.
            if isinstance(error, WrongDigest) and not transfer.resumed_bytes:
                raise
            again += 1
            if again >= (effort.attempts if isinstance(error, StreamBroke) else 3):
                raise SourceFailed(uri=error.uri, reason=f"{error.reason} (tried {again} times)") from error
            if stop.wait(effort.pause_s(again, None) if isinstance(error, StreamBroke) else 0.0):
                raise
        finally:
            partial.close()


class Pace:
    """Notices a connection that still gives bytes, but hardly any."""

    def __init__(self, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._since = clock()
        self._count = 0

    def too_slow(self, count: int) -> bool:
        """Tell it what arrived; True when a whole window went by below the least rate."""
        self._count += count
        if self._clock() - self._since < self._window_s:
            return False
        if self.rate() < STALL_BYTES_PER_S:
            return True
        self._since, self._count = self._clock(), 0
        return False

    def rate(self) -> float:
        """Bytes a second in the present window."""
        return self._count / max(1e-9, self._clock() - self._since)
