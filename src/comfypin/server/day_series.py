"""Small series of the last day for the page's charts: ended jobs are counted in their file, the rest is sampled."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from comfypin.digest import JsonValue
from comfypin.queue.errors import JobsNotStored
from comfypin.queue.sqlite import JobStore

DAY_S = 86_400.0
# A quarter of an hour: 96 points, as many as a small chart can show.
STEP_S = 900.0
# Jobs last seconds to minutes, so a minute shows every busy time.
_SAMPLE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The figures of one moment; memory in bytes, of all GPUs together."""

    at: float
    waiting: int
    running: int
    gpu_used_bytes: int | None


class DaySeries:
    """Keeps a sample a minute of the last day in memory, and reads the rest from the jobs."""

    def __init__(
        self, store: JobStore, take_sample: Callable[[float], Sample], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._take_sample = take_sample
        self._clock = clock
        self._samples: deque[Sample] = deque(maxlen=int(DAY_S / _SAMPLE_EVERY_S))

    async def sample_forever(self) -> None:
        """Take a sample a minute until cancelled."""
        while True:
            # In a thread: the driver of the GPUs may take its time.
            self._samples.append(await asyncio.to_thread(self._take_sample, self._clock()))
            await asyncio.sleep(_SAMPLE_EVERY_S)

    async def to_json(self) -> dict[str, JsonValue]:
        """Return one figure for each quarter of an hour of the last day, oldest first."""
        steps = int(DAY_S / STEP_S)
        begin = self._clock() - DAY_S
        completed, failed, seconds = [0] * steps, [0] * steps, [0.0] * steps
        with contextlib.suppress(JobsNotStored):
            for step, state, count, total_s in await self._store.query_rows(
                "SELECT CAST((ended_at - ?) / ? AS INTEGER), state, COUNT(*), SUM(ended_at - started_at) FROM jobs "
                "WHERE ended_at > ? GROUP BY 1, 2",
                *(begin, STEP_S, begin),
            ):
                step_index = min(max(int(step), 0), steps - 1)
                if state == "COMPLETED":
                    completed[step_index] += count
                    seconds[step_index] += max(0.0, total_s or 0.0)
                elif state in ("FAILED", "TIMED_OUT"):
                    failed[step_index] += count
        mean_s = [round(total / count, 2) if count else None for total, count in zip(seconds, completed, strict=True)]
        return {
            "begins_at_s": round(begin),
            "step_s": STEP_S,
            "completed": list(completed),
            "failed": list(failed),
            "mean_s": list(mean_s),
            "waiting": self._highest(begin, steps, lambda sample: sample.waiting),
            "running": self._highest(begin, steps, lambda sample: sample.running),
            "gpu_used_bytes": self._highest(begin, steps, lambda sample: sample.gpu_used_bytes),
        }

    def _highest(self, begin: float, steps: int, read: Callable[[Sample], int | None]) -> list[JsonValue]:
        """Return the highest figure of each step, None if the server did not run then."""
        highest: list[int | None] = [None] * steps
        for sample in _of_the_day(self._samples, begin):
            step_index = min(int((sample.at - begin) / STEP_S), steps - 1)
            figure = read(sample)
            if figure is not None:
                highest[step_index] = max(figure, highest[step_index] or 0)
        return list(highest)


def _of_the_day(samples: Sequence[Sample], begin: float) -> list[Sample]:
    return [sample for sample in tuple(samples) if sample.at >= begin]
