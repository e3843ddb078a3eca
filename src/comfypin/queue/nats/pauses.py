"""Sleeps between the rounds of a loop that runs until it is cancelled."""

import asyncio


async def pause(seconds: float) -> None:
    """Sleep; raise `CancelledError` at once if the task was cancelled and the round did not notice.

    Before Python 3.12 `asyncio.wait_for` loses a cancellation that comes together with an answer
    (https://github.com/python/cpython/issues/86296), and the loop would go on for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    await asyncio.sleep(seconds)
