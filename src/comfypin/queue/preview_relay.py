"""Shows followers what jobs are making: the newest preview of a job, twice a second at most."""

import asyncio
import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from comfypin.engine.interface import PreviewMade
from comfypin.queue.job_events import JobEvents

# People see a picture become sharper at two a second; samplers send more.
PREVIEW_EVERY_S = 0.5
# A node that sends whole pictures as previews must not fill every follower's connection.
LARGEST_PREVIEW_BYTES = 256_000
# Clients follow a job a moment after they have sent it, when it is too late to ask for previews.
_EXPECTED_AGAIN_S = 600.0


@dataclass(slots=True)
class _Shown:
    """When a job's preview was shown last, and a newer one that waits for its turn."""

    at_s: float = float("-inf")
    waiting: PreviewMade | None = None
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)


class PreviewRelay:
    """Implements `PreviewSink` for the jobs of a queue. Previews that nobody looks at go no further."""

    def __init__(self, events: JobEvents, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._events = events
        self._clock = clock
        self._shown: dict[str, _Shown] = {}

    def is_wanted(self, job_id: str) -> bool:
        """Return whether somebody follows the job, or is likely to: followers were there in the last ten minutes."""
        return self._events.wants_previews(job_id) or self._events.was_watched_within(_EXPECTED_AGAIN_S)

    def show(self, job_id: str, preview: PreviewMade) -> None:
        """Publish a preview now, or when half a second has passed since the last one."""
        if len(preview.data) > LARGEST_PREVIEW_BYTES or not self._events.wants_previews(job_id):
            return
        job_previews = self._shown.setdefault(job_id, _Shown())
        wait_s = job_previews.at_s + PREVIEW_EVERY_S - self._clock()
        if job_previews.timer is not None:
            job_previews.waiting = preview
        elif wait_s <= 0:
            self._publish(job_id, job_previews, preview)
        else:
            job_previews.waiting = preview
            job_previews.timer = asyncio.get_running_loop().call_later(wait_s, self._publish_waiting, job_id)

    def forget_job(self, job_id: str) -> None:
        """Show nothing more of a job that has ended."""
        job_previews = self._shown.pop(job_id, None)
        if job_previews is not None and job_previews.timer is not None:
            job_previews.timer.cancel()

    def _publish_waiting(self, job_id: str) -> None:
        job_previews = self._shown.get(job_id)
        if job_previews is None:
            return
        job_previews.timer = None
        if job_previews.waiting is not None:
            self._publish(job_id, job_previews, job_previews.waiting)

    def _publish(self, job_id: str, job_previews: _Shown, preview: PreviewMade) -> None:
        job_previews.waiting, job_previews.at_s = None, self._clock()
        self._events.publish(
            "preview",
            job_id,
            {
                "node_id": preview.node_id,
                "content_type": preview.content_type,
                "data_base64": base64.b64encode(preview.data).decode(),
            },
        )
