"""Reads all that a URL serves, from the beginning again after a transient failure."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from comfypin.http.client import HttpClient
from comfypin.http.errors import HttpError
from comfypin.http.response import Response
from comfypin.http.stall_watch import StallWatch
from comfypin.plurals import format_rate
from comfypin.retry import Retry, RetryPolicy, parse_retry_after

T = TypeVar("T")

TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# Longer than a busy hub pauses; shorter than anybody waits without a sign of progress.
_STALL_S = 60.0


class StatusError(HttpError):
    """Raised if the server answers with any status but 200."""

    def __init__(self, status: int, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"HTTP {status}", is_transient=status in TRANSIENT_STATUSES, was_sent=True)
        self.status = status
        self.retry_after_s = retry_after_s


def is_transient(error: Exception) -> bool:
    """Return whether a retry may help."""
    return isinstance(error, HttpError) and error.is_transient


def read_with_retries(
    client: HttpClient,
    url: str,
    consume: Callable[[Response], T],
    *,
    policy: RetryPolicy,
    sleep: Callable[[float], object] = time.sleep,
) -> T:
    """Return what `consume` makes of the response to a GET, if its status is 200. Raises `HttpError`."""

    def read_once() -> T:
        with client.get(url) as response:
            if response.status != 200:
                retry_after_s = parse_retry_after(response.headers.get("Retry-After"))
                raise StatusError(response.status, retry_after_s=retry_after_s)
            return consume(response)

    return Retry(policy=policy, on=HttpError, when=is_transient).call(read_once, sleep=sleep)


def iter_unless_stalled(response: Response) -> Iterator[bytes]:
    """Yield the body as long as it arrives fast enough. Raises `HttpError`."""
    stall_watch = StallWatch(_STALL_S)
    for piece in response.iter_bytes():
        if stall_watch.is_too_slow(len(piece)):
            raise HttpError(f"it stalled at {format_rate(stall_watch.bytes_per_s())}; try again later", was_sent=True)
        yield piece
