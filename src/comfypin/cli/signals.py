"""Runs a command's coroutine so that Ctrl-C, SIGTERM and a hung-up terminal cancel it and let it clean up."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from comfypin.errors import Cancelled

Result = TypeVar("Result")


class Terminated(Cancelled):
    """Raised if SIGTERM or SIGHUP stopped the work."""

    exit_code = 143


def run_until_stopped(work: Coroutine[Any, Any, Result]) -> Result:
    """Run the coroutine. Raises `Cancelled` (Ctrl-C) or `Terminated` after the work has cleaned up.

    A second signal cancels the cleaning up too.
    """
    return asyncio.run(_run_cancellable(work))


async def _run_cancellable(work: Coroutine[Any, Any, Result]) -> Result:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    received: list[signal.Signals] = []

    def cancel_task(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    for number in _stop_signals():
        # Through the loop: a plain handler must not cancel a task.
        loop.add_signal_handler(number, cancel_task, number)
    try:
        return await task
    # Cancelled work may fail in its own way while it cleans up; the signal is still the reason.
    except (asyncio.CancelledError, Exception) as exc:
        if not received:
            raise
        # The first signal says why; later ones only hurry.
        if received[0] is signal.SIGINT:
            raise Cancelled("Stopped; the prompt was cancelled and nothing is left running.") from exc
        raise Terminated(
            f"Stopped by {received[0].name}; the prompt was cancelled and nothing is left running."
        ) from exc


def _stop_signals() -> list[signal.Signals]:
    # A hang-up that `nohup` ignores stays ignored; an interrupt is obeyed even if a shell script's `&` ignores it.
    is_heeded = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if is_heeded else [])]
