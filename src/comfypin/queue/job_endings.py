"""Ends jobs: on the disk first, then in memory, in the metrics, and to the job's webhook."""

import asyncio
import json
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import replace

from comfypin.digest import JsonValue
from comfypin.jobs.interface import JobOutcome, JobState
from comfypin.jobs.metrics import Metrics
from comfypin.queue import job_changes
from comfypin.queue.errors import JobsNotStored
from comfypin.queue.interface import JobRecord, JobRow
from comfypin.queue.job_changes import JobChange
from comfypin.queue.job_description import describe_end, end_described
from comfypin.queue.job_events import JobEvents
from comfypin.queue.live_jobs import LiveJob, LiveJobs
from comfypin.queue.run_estimates import RunEstimates
from comfypin.queue.sqlite import JobStore
from comfypin.queue.status_bodies import status_body
from comfypin.queue.steady_clock import Clock
from comfypin.queue.webhook_events import WebhookEvents
from comfypin.small_work import json_size, run_by_size

log = logging.getLogger(__name__)


class JobEndings:
    """Ends each job exactly once. A disk that refuses delays an end and never loses it."""

    def __init__(
        self,
        store: JobStore,
        jobs: LiveJobs,
        webhooks: WebhookEvents,
        metrics: Metrics,
        *,
        worker_id: str,
        clock: Clock,
        events: JobEvents,
        estimates: RunEstimates,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._webhooks = webhooks
        self._metrics = metrics
        self._worker_id = worker_id
        self._clock = clock
        self._events = events
        self._estimates = estimates
        self._background_tasks: set[asyncio.Task[None]] = set()

    async def end_job(self, live_job: LiveJob, end_state: JobState, outcome: JobOutcome | None = None) -> None:
        """End a job, however long the disk refuses it. A cancelled job has no outcome."""
        live_job.ending = True
        self._jobs.note_ending(live_job)
        ended_at = self._clock()
        job_output = None if outcome is None else outcome.output
        error = None if job_output is None else job_output.get("error")
        output_text = None if job_output is None else await _dump_output(job_output)
        # A job's text may hold a lone surrogate, which SQLite cannot store: it is written as an escape.
        stored_error = None if error is None else str(error).encode(errors="backslashreplace").decode()
        end_change = job_changes.job_ended(live_job.row.id, end_state, ended_at, output=output_text, error=stored_error)
        end = describe_end(job_output)
        owed = self._webhooks.final_changes(live_job.row.id, job_output)
        await self._store.write_until_done(
            end_change, end_described(live_job.row.id, end), *self._store.changes_beside(live_job.row.id), *owed
        )
        live_job.row = replace(live_job.row, state=end_state, ended_at=ended_at)
        live_job.end = end
        if live_job.ended is not None:
            # They need not read what was just written.
            live_job.ended.set_result(JobRecord(row=live_job.row, output=output_text, error=stored_error))
            live_job.ended = None
        if end_state == "COMPLETED" and live_job.row.started_at is not None:
            self._estimates.note_run(live_job.description.shape, max(0.0, ended_at - live_job.row.started_at))
        self._jobs.move_to_ended(live_job)
        self._metrics.count_end(end_state, outcome)
        live_job.wake_followers()
        self._events.publish("ended", live_job.row.id, {"state": end_state})
        log.info("job ended", extra={"action": "job_ended", "job_id": live_job.row.id, "state": end_state})
        if live_job.row.webhook is not None:
            self._start_background(self._post_webhook(live_job.row))

    def end_in_background(self, live_job: LiveJob, end_state: JobState, outcome: JobOutcome | None = None) -> None:
        """End a job that waits, without waiting for the disk. It cannot begin any more."""
        if not live_job.ending:
            live_job.ending = True
            self._jobs.note_ending(live_job)
            self._start_background(self.end_job(live_job, end_state, outcome))

    async def post_owed_webhooks(self) -> None:
        """Post the webhooks that the last server owed when it ended."""
        await self._webhooks.recover()
        for job_row in await self._store.webhooks_owed():
            self._start_background(self._post_webhook(job_row))

    async def stop_background(self) -> None:
        """Stop the ends and webhooks that a full disk holds up; the next server finds on the disk what is owed."""
        background_tasks = list(self._background_tasks)
        for background_task in background_tasks:
            background_task.cancel()
        await asyncio.gather(*background_tasks, return_exceptions=True)
        await self._webhooks.stop()

    def _start_background(self, work: Coroutine[None, None, None]) -> None:
        background_task = asyncio.get_running_loop().create_task(work)
        # The loop itself holds tasks only weakly.
        self._background_tasks.add(background_task)
        background_task.add_done_callback(self._background_tasks.discard)

    async def _post_webhook(self, job_row: JobRow) -> None:
        """Post a job's end to its webhook. If the disk refuses now, the next server posts it."""
        try:
            record = await self._store.read_record(job_row.id)
        except JobsNotStored as storage_failure:
            facts = {"action": "webhook_failed", "job_id": job_row.id, "reason": storage_failure.message}
            log.warning("webhook not posted", extra=facts)
            return
        if record is None:
            return
        # First what came before: the end is the last that a webhook hears.
        await self._webhooks.finish(job_row.id)
        noted: list[JobChange] = []
        if self._webhooks.is_end_wanted(job_row):
            noted = await self._webhooks.post_end(job_row, status_body(replace(record, worker_id=self._worker_id)))
        await self._store.write_until_done(*noted, job_changes.webhook_delivered(job_row.id))
        self._webhooks.forget(job_row.id)


async def _dump_output(job_output: Mapping[str, JsonValue]) -> str:
    # A result may hold megabytes of base64, which would keep the event loop from everybody else.
    return await run_by_size(json_size(job_output), json.dumps, job_output)
