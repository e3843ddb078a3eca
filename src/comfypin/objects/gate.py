"""Bytes in memory at once, bounded: large uploads wait for each other, small ones pass together."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ByteGate:
    """Lets holders in while the sum of what they hold stays within the limit; one alone always passes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size_bytes: int) -> Iterator[None]:
        """Wait for room, keep it for the block."""
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + size_bytes <= self._limit)
            self._held += size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._held -= size_bytes
                self._changed.notify_all()
