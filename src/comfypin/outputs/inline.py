"""Delivers outputs as base64 in the result itself, up to the size that a result may have."""

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path

from comfypin.outputs.errors import InlineTooBig, OutputUnreadable, reason_without_path
from comfypin.outputs.interface import Delivery, JobFacts, Output, OutputSink

# Encoding less takes about as long as handing it to a thread.
_SMALL_BYTES = 1 << 20
_CHUNK_BYTES = 3 << 18  # a multiple of 3, so that the chunks' base64 can be joined


# The size of an output's other fields in a result, rounded up.
_FACTS_BYTES = 1024


class InlineSink:
    """Returns every output's bytes as base64 text, all of them or none.

    If their text would exceed `max_bytes` together, they go to the sink that `overflow` opens, if there is one:
    platforms drop results that are too big, and still report the job as complete.
    """

    def __init__(self, *, max_bytes: int | None = None, overflow: Callable[[], OutputSink] | None = None) -> None:
        self._max_bytes = max_bytes
        self._overflow = overflow

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        """Return the outputs with their bytes. Raises `OutputUnreadable`, `InlineTooBig`, and the overflow's errors."""
        needed_bytes = encoded_bytes(outputs)
        if self._max_bytes is not None and needed_bytes > self._max_bytes:
            if self._overflow is not None:
                # Opening a bucket may wait for the network.
                sink = await asyncio.to_thread(self._overflow)
                return await sink.deliver(job, outputs)
            sizes = [(output.filename, output.size_bytes) for output in outputs]
            raise InlineTooBig(limit_bytes=self._max_bytes, needed_bytes=needed_bytes, sizes=sizes)
        deliveries = []
        for output in outputs:
            # A thread costs more than encoding a small file.
            is_small = output.size_bytes <= _SMALL_BYTES
            encoded_text = _encode_output(output) if is_small else await asyncio.to_thread(_encode_output, output)
            deliveries.append(Delivery(output=output, data_base64=encoded_text))
        return tuple(deliveries)


def encoded_bytes(outputs: tuple[Output, ...]) -> int:
    """Return how much of a result these outputs take."""
    # A video that is among the images too is in the result twice.
    return sum((-(-output.size_bytes // 3) * 4 + _FACTS_BYTES) * (1 + output.is_also_image) for output in outputs)


def _encode_output(output: Output) -> str:
    try:
        return _encode_file(output.path)
    except OSError as exception:
        raise OutputUnreadable(
            filename=output.filename, node_id=output.node_id, reason=reason_without_path(exception)
        ) from exception


def _encode_file(output_path: Path) -> str:
    with output_path.open("rb") as output_file:
        return "".join(
            base64.b64encode(chunk).decode("ascii") for chunk in iter(lambda: output_file.read(_CHUNK_BYTES), b"")
        )
