"""Opens the fleet that a command looks after."""

import argparse
import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from comfypin.queue.nats.fleet import Fleet

T = TypeVar("T")


def with_fleet(arguments: argparse.Namespace, address: str, act: "Callable[[Fleet], Coroutine[None, None, T]]") -> T:
    """Do something with the fleet at an address.

    Raises `QueueAddressInvalid`, `QueueUnreachable`, `QueueLoginRefused`, `QueueUnfit`."""

    async def open_and_act() -> T:
        from comfypin.queue.nats.connection import parse_queue_address
        from comfypin.queue.nats.fleet import open_fleet

        servers, settings = parse_queue_address(address), arguments.settings.fleet
        async with open_fleet(servers, settings, client_name=f"comfypin fleet {arguments.action}") as fleet:
            return await act(fleet)

    return asyncio.run(open_and_act())


def describe_span(seconds: float) -> str:
    """Return a span of time in its largest unit, as `2 h` or `14 s`."""
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"
