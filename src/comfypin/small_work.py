"""Does work on JSON where it costs least: small pieces at once, large ones in a thread, so that nobody waits for them.

A way to a thread and back takes 0.2 ms, which is more than to parse what most clients send.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")

SMALL_BYTES = 16_384
"""So much is parsed, walked and written within a millisecond."""


async def run_by_size(
    size_bytes: int, work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
) -> Result:
    """Do the work, in a thread if what it is about is large. Raises what the work does."""
    if size_bytes <= SMALL_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


def json_size(value: object, *, most: int = SMALL_BYTES) -> int:
    """Return about how many characters a value has as JSON; if that is more than `most`, some number above it."""
    size, waiting = 0, [value]
    while waiting and size <= most:
        one = waiting.pop()
        size += 8
        if isinstance(one, str):
            size += len(one)
        elif isinstance(one, Mapping):
            # Its own length first: what is huge need not be gone through.
            size += 8 * len(one)
            if size <= most:
                size += sum(len(name) for name in one if isinstance(name, str))
                waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            size += 8 * len(one)
            if size <= most:
                waiting.extend(one)
    return size
