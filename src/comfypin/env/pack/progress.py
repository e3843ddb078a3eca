"""Counts the bytes of a pack while it is packed, uploaded or unpacked."""

import threading
from collections.abc import Callable
from typing import TypeAlias

ByteReport: TypeAlias = Callable[[str, int, int], None]
"""Is called with what happens ("Packing"), the bytes that are done, and all of them; from any thread, very often."""


def ignore_bytes(_label: str, _done_bytes: int, _total_bytes: int) -> None:
    """Tell nobody."""


class ByteCounter:
    """Adds up bytes and reports the sum; bytes that are sent again do not count beyond the total."""

    def __init__(self, label: str, total_bytes: int, report: ByteReport) -> None:
        self._label = label
        self._total_bytes = total_bytes
        self._report = report
        self._done_bytes = 0
        self._lock = threading.Lock()

    def __call__(self, byte_count: int) -> None:
        """Count bytes that were moved."""
        with self._lock:
            self._done_bytes = min(self._done_bytes + byte_count, self._total_bytes)
            done_bytes = self._done_bytes
        self._report(self._label, done_bytes, self._total_bytes)
