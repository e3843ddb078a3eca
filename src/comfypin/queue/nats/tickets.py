"""Tickets: for each job that waits or runs there is one in the work queue, and whoever holds it runs the job.

A ticket names the job; everything else is in the job's record. Each has a subject of its own, so JetStream itself
refuses a second one if somebody issues it again because the response was lost.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from nats.errors import Error
from nats.js.errors import APIError

from comfypin.queue.nats import names
from comfypin.queue.nats.buckets import REQUEST_WITHIN_S
from comfypin.queue.nats.failures import SUBJECT_TAKEN, UNCLEAR, is_api_error
from comfypin.queue.nats.fleet_job import FleetJob
from comfypin.queue.nats.layout import ensure_lane
from comfypin.queue.nats.names import Lane

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js.client import JetStreamContext

log = logging.getLogger(__name__)

_TRIES = 6
# With the tries above, longer than a cluster needs for a new leader.
_TRY_AGAIN_S = 0.5


class Tickets:
    """The work queue. What NATS refuses or does not answer is raised as nats-py raises it."""

    def __init__(self, client: "Client", stream: "JetStreamContext") -> None:
        self._client = client
        self._stream = stream
        self._lanes: set[Lane] = set()

    async def issue(self, job: FleetJob) -> None:
        """Offer a job to the workers. Call it again if you do not know whether it worked."""
        await self.open_lane(job.lane)
        for tries_left in reversed(range(_TRIES)):
            try:
                await self._stream.publish(job.ticket, b"", timeout=REQUEST_WITHIN_S)
                break
            except UNCLEAR as exc:
                if _is_there(exc):
                    break
                if not tries_left:
                    raise
                await asyncio.sleep(_TRY_AGAIN_S)
        await self.wake(job.lane)

    async def wake(self, lane: Lane) -> None:
        """Have one idle worker look for tickets of a lane. If none hears it, the next look finds them."""
        await self._client.publish(lane.wake_subject)

    async def withdraw(self, job: FleetJob) -> None:
        """Take a job's ticket away. A worker that holds it goes on, and hears of a cancellation in another way."""
        await self._stream.purge_stream(names.JOBS_STREAM, subject=job.ticket)

    async def subjects(self) -> set[str]:
        """Return the subjects of all tickets."""
        info = await self._stream.stream_info(names.JOBS_STREAM, subjects_filter=names.JOB_SUBJECTS)
        return set(info.state.subjects or {})

    async def open_lane(self, lane: Lane) -> None:
        """Make the lane's consumer, once."""
        if lane not in self._lanes:
            await ensure_lane(self._stream, lane)
            self._lanes.add(lane)


def _is_there(error: Exception) -> bool:
    """Return whether a ticket was refused because it is there already."""
    is_refused = is_api_error(error, SUBJECT_TAKEN)
    return is_refused and isinstance(error, APIError) and "per subject" in (error.description or "")


async def withdraw_quietly(tickets: Tickets, job: FleetJob) -> None:
    """Take a ticket away if that works now; if not, whoever gets it finds that its job has ended."""
    try:
        await tickets.withdraw(job)
    except (Error, TimeoutError) as exc:
        facts = {"action": "ticket_left", "job_id": job.row.id, "reason": str(exc)}
        log.info("a ticket was not withdrawn", extra=facts)
