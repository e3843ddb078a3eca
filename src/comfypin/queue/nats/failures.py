"""Puts what nats-py raises into the queue's own words."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

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
