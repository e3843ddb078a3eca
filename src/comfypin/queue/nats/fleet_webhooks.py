"""Tells webhooks of a fleet's jobs: the server that holds the chores does, and what it owes stands in the records.

A webhook's end is owed in the record itself until it was told, whichever server dies. What comes before the end, for
webhooks that chose their events, waits in the file of the server that tells them.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from nats.errors import Error

from comfypin.digest import JsonValue
from comfypin.queue.errors import JobsNotStored
from comfypin.queue.interface import JobRow
from comfypin.queue.nats import fleet_job
from comfypin.queue.nats.errors import SealBroken
from comfypin.queue.nats.fleet_job import FleetJob
from comfypin.queue.sqlite import JobStore
from comfypin.queue.webhook_events import WebhookEvents, known_names

if TYPE_CHECKING:
    from comfypin.queue.nats.fleet import Fleet

log = logging.getLogger(__name__)

# Ends are told at once; this finds what a server that died still owed.
_OWED_EVERY_S = 5.0
# Receivers that are slow must not hold up the others.
_POSTS_AT_ONCE = 64


class FleetWebhooks:
    """Follows jobs with webhooks while this server holds the chores. `read_status` makes the body of an end."""

    def __init__(
        self,
        fleet: "Fleet",
        store: JobStore,
        events: WebhookEvents,
        *,
        read_status: Callable[[str], Awaitable[bytes | None]],
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._events = events
        self._read_status = read_status
        self._is_telling = False
        self._posting: dict[str, asyncio.Task[None]] = {}
        self._limit = asyncio.Semaphore(_POSTS_AT_ONCE)

    async def run(self, pending: Callable[[], list[str]]) -> None:
        """Tell what is owed, and what happens, for ever. `pending` are the jobs with a webhook that have not ended."""
        self._is_telling = True
        try:
            for job_id in pending():
                await self._follow_again(job_id)
            while True:
                with contextlib.suppress(JobsNotStored):
                    for row in await self._store.webhooks_owed():
                        self._post_soon(row.id)
                await asyncio.sleep(_OWED_EVERY_S)
        finally:
            self._is_telling = False
            for task in self._posting.values():
                task.cancel()
            await asyncio.gather(*self._posting.values(), return_exceptions=True)

    def job_waits(self, job: FleetJob) -> None:
        """Follow a job that was taken, or is to run again."""
        if self._is_telling and job.webhook_events is not None and job.row.webhook is not None:
            self._events.follow(self._opened_row(job), known_names(job.webhook_events))

    def job_ended(self, job: FleetJob) -> None:
        """Tell a webhook of its job's end."""
        if self._is_telling and job.owes_webhook:
            self._post_soon(job.row.id)

    async def _follow_again(self, job_id: str) -> None:
        with contextlib.suppress(Error, TimeoutError, ValueError):
            stored_job = await self._fleet.states.read(job_id)
            if stored_job is not None:
                self.job_waits(stored_job.job)

    def _post_soon(self, job_id: str) -> None:
        if job_id in self._posting:
            return
        task = asyncio.get_running_loop().create_task(self._post(job_id))
        self._posting[job_id] = task
        task.add_done_callback(lambda _task: self._posting.pop(job_id, None))

    async def _post(self, job_id: str) -> None:
        async with self._limit:
            try:
                stored_job = await self._fleet.states.read(job_id)
                status_body = await self._read_status(job_id)
                if stored_job is None or status_body is None or not stored_job.job.owes_webhook:
                    return
                job = stored_job.job
                row = self._opened_row(job)
                if job.webhook_events is not None:
                    self._events.follow_if_new(row, known_names(job.webhook_events))
                owed = self._events.final_changes(job_id, _output_of(status_body))
                if owed:
                    await self._store.write_changes(*owed)
                # First what came before: the end is the last that a webhook hears.
                await self._events.finish(job_id)
                if self._events.is_end_wanted(row) and row.webhook:
                    noted = await self._events.post_end(row, status_body)
                    await self._store.write_changes(*noted)
                self._events.forget(job_id)
                await self._fleet.states.change(job_id, partial(fleet_job.webhook_delivered, run=job.run))
            except (Error, TimeoutError, JobsNotStored) as exc:
                facts = {"action": "webhook_waits", "job_id": job_id, "reason": str(exc)[:200]}
                log.warning("webhook not posted yet", extra=facts)

    def _opened_row(self, job: FleetJob) -> JobRow:
        """Return the job's row with the address of its webhook, which is sealed if the job holds secrets."""
        if not job.secret or job.row.webhook is None:
            return job.row
        try:
            return replace(job.row, webhook=self._fleet.seal.open_text(job.row.webhook))
        except SealBroken:
            log.error("a webhook cannot be told", extra={"action": "seal_broken", "job_id": job.row.id})
            return replace(job.row, webhook=None)


def _output_of(status_body: bytes) -> Mapping[str, JsonValue] | None:
    output = json.loads(status_body).get("output")
    return output if isinstance(output, dict) else None
