"""Which jobs were given up: servers have all records in sight, so commands ask one of them.

Reading every record takes ten seconds if a hundred thousand jobs wait. It is done only if no server answers.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from nats.errors import Error, NoRespondersError

from comfypin.queue.nats import names
from comfypin.queue.nats.fleet_job import FleetJob

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

log = logging.getLogger(__name__)

# Half of what NATS takes as one message, if each reason is as long as it may be.
_PAGE = 500
_LONGEST_REASON = 500
# A server waits until it has noted all that had changed when it was asked.
_ANSWER_WITHIN_S = 15.0
# One of all servers answers.
_SERVERS = "servers"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadJob:
    """A job that was given up, since every worker that took it died. `ended_at` in seconds since 1970."""

    id: str
    release: str
    reason: str
    ended_at: float


def dead_job(job: FleetJob) -> DeadJob | None:
    """Return what is told of a job that was given up, None of any other."""
    if job.dead is None:
        return None
    reason = job.dead[:_LONGEST_REASON]
    return DeadJob(id=job.row.id, release=job.lane.release, reason=reason, ended_at=job.row.ended_at or 0.0)


async def answer_for_dead_jobs(client: "Client", list_dead: Callable[[], Awaitable[list[DeadJob] | None]]) -> None:
    """Answer whoever asks for the jobs that were given up, for ever. `list_dead`: None while this server lags."""

    async def answer(message: "Msg") -> None:
        try:
            dead = await list_dead()
            begin = int(json.loads(message.data or b"{}").get("begin", 0))
            page = None if dead is None else [asdict(job) for job in dead[begin : begin + _PAGE]]
            told = {"count": len(dead or ()), "jobs": page}
            await client.publish(message.reply, json.dumps(told).encode())
        except (Error, TimeoutError, OSError, ValueError) as exc:
            # Whoever asked reads the records instead.
            log.info("not answered", extra={"action": "dead_not_told", "reason": str(exc)[:200]})

    subscription = await client.subscribe(names.DEAD_JOBS, queue=_SERVERS, cb=answer)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        if not client.is_closed:
            await subscription.unsubscribe()


async def ask_for_dead_jobs(client: "Client") -> list[DeadJob] | None:
    """Return the jobs that were given up, as a server knows them; None if none answers. Raises what nats-py raises."""
    dead: dict[str, DeadJob] = {}
    begin = 0
    while True:
        try:
            request = json.dumps({"begin": begin}).encode()
            message = await client.request(names.DEAD_JOBS, request, timeout=_ANSWER_WITHIN_S)
        except (NoRespondersError, TimeoutError):
            return None
        told = json.loads(message.data)
        if told["jobs"] is None:
            return None
        page = [DeadJob(**job) for job in told["jobs"]]
        dead |= {job.id: job for job in page}
        begin += len(page)
        if not page or begin >= told["count"]:
            return list(dead.values())
