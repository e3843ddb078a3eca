"""Puts what nats-py raises into the queue's own words."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from nats.errors import Error
from nats.errors import TimeoutError as NatsTimeout
from nats.js.errors import APIError, NoStreamResponseError, ServiceUnavailableError

from comfypin.queue.errors import JobsNotStored

WRONG_REVISION = 10071
"""The code of JetStream for a record that somebody else has changed meanwhile."""
SUBJECT_TAKEN = 10077
"""The code for a message whose subject has as many as it may have, and for a stream that is full."""
UNCLEAR = (asyncio.TimeoutError, NatsTimeout, NoStreamResponseError, ServiceUnavailableError)
"""What tells nothing: the message may have been stored, or not."""

Result = TypeVar("Result")
# A cluster chooses a new leader within 4 to 10 s. Until then it refuses at once, so tries must not be counted.
_CLEAR_WITHIN_S = 15.0
_TRY_AGAIN_S = 0.5


async def until_clear(work: Callable[[], Awaitable[Result]]) -> Result:
    """Do something again until NATS says what became of it; raise what it last said after 15 s."""
    deadline_s = time.monotonic() + _CLEAR_WITHIN_S
    while True:
        try:
            return await work()
        except UNCLEAR:
            if time.monotonic() > deadline_s:
                raise
        await asyncio.sleep(_TRY_AGAIN_S)


@contextmanager
def as_storage_failure() -> Iterator[None]:
    """Raise `JobsNotStored` for whatever NATS refuses or does not answer in the block."""
    try:
        yield
    except (Error, TimeoutError, OSError) as exc:
        raise JobsNotStored(reason=reason_of_failure(exc)) from exc


def reason_of_failure(error: BaseException) -> str:
    """Return why NATS did not do what it was asked for."""
    if isinstance(error, APIError):
        return f"the queue answered: {error.description or error.code}"
    if isinstance(error, UNCLEAR):
        return "the queue does not answer"
    return f"the queue cannot be used ({str(error).removeprefix('nats: ') or type(error).__name__})"


def is_api_error(error: BaseException, code: int) -> bool:
    """Return whether JetStream refused with this code."""
    return isinstance(error, APIError) and error.err_code == code
