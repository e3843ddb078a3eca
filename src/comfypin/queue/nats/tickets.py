"""Tickets: for each job that waits or runs there is one in the work queue, and whoever holds it runs the job.

A ticket names the job; everything else is in the job's record. Each has a subject of its own, so JetStream itself
refuses a second one if somebody issues it again because the response was lost.
"""

import logging
from functools import partial
from typing import TYPE_CHECKING

from nats.errors import Error
from nats.js.errors import APIError

from comfypin.queue.nats import names
from comfypin.queue.nats.buckets import REQUEST_WITHIN_S
from comfypin.queue.nats.failures import SUBJECT_TAKEN, is_api_error, until_clear
from comfypin.queue.nats.fleet_job import FleetJob
from comfypin.queue.nats.layout import ensure_lane
from comfypin.queue.nats.names import Lane
from comfypin.queue.nats.subjects import list_subjects

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js.client import JetStreamContext

log = logging.getLogger(__name__)


class Tickets:
    """The work queue. What NATS refuses or does not answer is raised as nats-py raises it."""

    def __init__(self, client: "Client", stream: "JetStreamContext") -> None:
        self._client = client
        self._stream = stream
        self._lanes: set[Lane] = set()

    async def issue(self, job: FleetJob) -> None:
        """Offer a job to the workers. Call it again if you do not know whether it worked."""
        await self.open_lane(job.lane)
        await until_clear(partial(self._publish, job.ticket))
        await self.wake(job.lane)

    async def _publish(self, ticket: str) -> None:
        try:
            await self._stream.publish(ticket, b"", timeout=REQUEST_WITHIN_S)
        except APIError as exc:
            if not _is_there(exc):
                raise

    async def wake(self, lane: Lane) -> None:
        """Have one idle worker look for tickets of a lane. If none hears it, the next look finds them."""
        await self._client.publish(lane.wake_subject)

    async def withdraw(self, job: FleetJob) -> None:
        """Take a job's ticket away. A worker that holds it goes on, and hears of a cancellation in another way."""
        await self._stream.purge_stream(names.JOBS_STREAM, subject=job.ticket)

    async def subjects(self, release: str = "*") -> set[str]:
        """Return the subjects of all tickets, or of those for one release."""
        return await list_subjects(self._stream, names.JOBS_STREAM, f"comfypin.jobs.*.*.{release}.>")

    async def open_lane(self, lane: Lane) -> None:
        """Make the lane's consumer, once."""
        if lane not in self._lanes:
            await ensure_lane(self._stream, lane)
            self._lanes.add(lane)


def _is_there(error: APIError) -> bool:
    """Return whether a ticket was refused because it is there already."""
    return is_api_error(error, SUBJECT_TAKEN) and "per subject" in (error.description or "")


async def withdraw_quietly(tickets: Tickets, job: FleetJob) -> None:
    """Take a ticket away if that works now; if not, whoever gets it finds that its job has ended."""
    try:
        await tickets.withdraw(job)
    except (Error, TimeoutError) as exc:
        facts = {"action": "ticket_left", "job_id": job.row.id, "reason": str(exc)}
        log.info("a ticket was not withdrawn", extra=facts)
