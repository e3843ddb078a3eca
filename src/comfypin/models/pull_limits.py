"""Limits what a pull may use and how hard it tries: connections and their memory, retries, the stall timeout."""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from comfypin.retry import RetryPolicy

# Memory that each open connection takes.
BUFFER_BYTES = 512 << 10
# Less is not progress: a server may send a few bytes each time before it breaks off.
LEAST_PROGRESS_BYTES = 64 << 10
# The hub's limits count in windows of five minutes, so it may ask us to wait that long.
MODEL_RETRIES = RetryPolicy(retries=6, base_s=0.5, longest_s=20.0, longest_asked_s=600.0)


def available_cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none


class PullBudget:
    """The connections of a pull with their memory, and the processors that its files share.

    Whoever holds a buffer may open a connection.
    """

    def __init__(self, connections: int, *, buffer_bytes: int = BUFFER_BYTES, processors: int | None = None) -> None:
        self.connections = connections
        self._processors = processors or available_cores()
        self._files = 0
        self._counting = threading.Lock()
        # Last in, first out: a warm buffer is taken again, and idle ones are never made.
        self._buffers: queue.LifoQueue[memoryview | None] = queue.LifoQueue()
        self._buffer_bytes = buffer_bytes
        for _ in range(connections):
            self._buffers.put(None)

    @contextlib.contextmanager
    def connection_buffer(self) -> Iterator[memoryview]:
        """Wait for one of the connections; yield the memory that goes with it."""
        buffer = self._buffers.get()
        try:
            if buffer is None:
                buffer = memoryview(bytearray(self._buffer_bytes))
            yield buffer
        finally:
            self._buffers.put(buffer)

    @contextlib.contextmanager
    def counted_file(self) -> Iterator[None]:
        """Count a file as being fetched."""
        with self._counting:
            self._files += 1
        try:
            yield
        finally:
            with self._counting:
                self._files -= 1

    @property
    def is_crowded(self) -> bool:
        """Return whether enough files are being fetched to keep every processor busy."""
        return self._files >= self._processors


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """How hard to try: the retry policy, and how long a connection may send almost nothing (the stall timeout)."""

    retry_policy: RetryPolicy = MODEL_RETRIES
    stall_s: float = 30.0


@dataclass(slots=True)
class FetchFailures:
    """Counts one fetcher's failures in a row; all of them set the delay, those without progress the end."""

    policy: RetryPolicy

    own: int = 0
    stuck: int = 0
    _seen: int = 0

    def add_failure(self, fetched_bytes: int) -> None:
        """Count a failure; `fetched_bytes` is what the whole file has by now."""
        self.own += 1
        # A server that serves four connections and refuses the others is slow, not broken: the file makes progress.
        # Progress of any fetcher counts for all, since they share the server.
        self.stuck = 1 if fetched_bytes - self._seen >= LEAST_PROGRESS_BYTES else self.stuck + 1
        self._seen = fetched_bytes

    @property
    def is_hopeless(self) -> bool:
        """Return whether there were more failures without progress than the policy allows."""
        return self.policy.is_exhausted(self.stuck)

    def delay_s(self, asked_s: float | None) -> float | None:
        """Return how long to wait, at least as long as the server asked for; None if it asked for too long."""
        return replace(self.policy, retries=None).delay_s(self.own, asked_s=asked_s)


class ConnectionDemand:
    """Decides when a file's hasher needs more connections: it waited most of a window, and not for the processors.

    One wait tells little: a connection at 50 MB/s keeps every wait short and the hasher idle, and if the processors are
    full, more connections only take turns at them.
    """

    WINDOW_S = 0.05
    MOST_WAITING = 0.7
    MOST_BUSY = 0.6

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        processor_s: Callable[[], float] = time.process_time,
        processors: int | None = None,
    ) -> None:
        self._clock = clock
        self._processor_s = processor_s
        self._processors = processors or available_cores()
        self._waited_s = 0.0
        self._since: tuple[float, float] | None = None

    def wants_more(self, waited_s: float) -> bool:
        """Add how long the hasher has just waited, from the first byte on; return True at the end of a slow window."""
        now_s, processor_s_spent = self._clock(), self._processor_s()
        if self._since is None:
            self._since = now_s, processor_s_spent
            return False
        self._waited_s += waited_s
        window_s, spent_s = now_s - self._since[0], processor_s_spent - self._since[1]
        # A shorter window would be decided by a single packet.
        if window_s < self.WINDOW_S:
            return False
        waiting, busy = self._waited_s / window_s, spent_s / (window_s * self._processors)
        self._since, self._waited_s = (now_s, processor_s_spent), 0.0
        return waiting > self.MOST_WAITING and busy < self.MOST_BUSY
