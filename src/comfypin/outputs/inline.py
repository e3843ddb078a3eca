"""Outputs as base64 in the result itself."""

import asyncio
import base64
from pathlib import Path

from comfypin.errors.output import OutputUnreadable
from comfypin.outputs.interface import Delivery, JobFacts, Output

_SMALL_BYTES = 1 << 20
_CHUNK_BYTES = 3 << 18  # a multiple of 3, so that the chunks' base64 can be joined


class InlineSink:
    """Gives every output's bytes back as base64 text."""

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        """The outputs with their bytes. Raises `OutputUnreadable`."""
        deliveries = []
        for output in outputs:
            # A thread costs more than encoding a small file.
            small = output.size_bytes <= _SMALL_BYTES
            data = _encode(output) if small else await asyncio.to_thread(_encode, output)
            deliveries.append(Delivery(output=output, data_base64=data))
        return tuple(deliveries)


def _encode(output: Output) -> str:
    try:
        return _encode_file(output.path)
    except OSError as exc:
        raise OutputUnreadable(filename=output.filename, node_id=output.node_id, reason=str(exc)) from exc


def _encode_file(path: Path) -> str:
    with path.open("rb") as file:
        return "".join(base64.b64encode(chunk).decode("ascii") for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""))
