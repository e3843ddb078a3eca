"""Limits the time of a whole fetch, however a server draws it out, and lets another thread end it.

A socket's own timeout starts again with each byte, so a server that sends one now and then can keep a request for as
long as it likes: in its head, its body, each redirect. Sockets under a deadline wait only for what is left of it.
"""

import contextlib
import math
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar


class DeadlinePassed(TimeoutError):
    """Raised by a read under a deadline that has passed."""


class Deadline:
    """Holds the moment by which something must end; None as `seconds` means never. Threads share it."""

    def __init__(self, seconds: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = math.inf if seconds is None else seconds
        self._at = clock() + self._seconds
        self._is_lifted = False
        self._is_cancelled = False
        # Weak, so that a deadline does not keep closed sockets alive.
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()

    @property
    def remaining_s(self) -> float:
        """Return the seconds that are left: 0 if it has passed or was cancelled, infinity if it never passes."""
        return 0.0 if self._is_cancelled else max(0.0, self._at - self._clock())

    @property
    def has_passed(self) -> bool:
        """Return whether it has passed or was cancelled."""
        return self.remaining_s <= 0

    @property
    def is_set(self) -> bool:
        """Return whether it can pass by itself."""
        return self._at != math.inf

    def bound_s(self, seconds: float) -> float:
        """Return a time limit that ends no later. Raises `DeadlinePassed`."""
        remaining_s = self.remaining_s
        if remaining_s <= 0:
            raise DeadlinePassed("the deadline has passed")
        return min(seconds, remaining_s)

    def lift_limit(self) -> None:
        """Let it never pass, because what it limited has ended; it can still be cancelled."""
        # The sockets stay watched: whoever reads the body can still cancel.
        self._at = math.inf
        self._is_lifted = True

    def renew_limit(self) -> None:
        """If the limit was lifted, start it again from now, for a next step that should not take long."""
        if self._is_lifted:
            self._at = self._clock() + self._seconds

    def cancel(self) -> None:
        """End everything under it now, from another thread: what waits for a server fails at once."""
        self._is_cancelled = True
        with self._lock:
            sockets = list(self._sockets)
        for connected_socket in sockets:
            # A connection that was used again keeps to the deadline of its new request.
            if getattr(connected_socket, "deadline", self) is self:
                _wake_socket(connected_socket)

    def watch_socket(self, connected_socket: socket.socket) -> None:
        """Have a socket woken when this is cancelled."""
        with self._lock:
            self._sockets.add(connected_socket)
        if self._is_cancelled:
            _wake_socket(connected_socket)


def _wake_socket(connected_socket: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        # Not `SSLSocket.shutdown`, which takes the TLS state from under a thread that is reading.
        socket.socket.shutdown(connected_socket, socket.SHUT_RDWR)


current_deadline: ContextVar[Deadline | None] = ContextVar("current_deadline", default=None)


@contextlib.contextmanager
def use_deadline(deadline: Deadline | None) -> Iterator[None]:
    """Put what this thread connects and sends inside the block under a deadline."""
    previous_deadline = current_deadline.set(deadline)
    try:
        yield
    finally:
        current_deadline.reset(previous_deadline)
