"""What running jobs report: progress and previews go over NATS to all servers at once. What is lost is not missed."""

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from comfypin.digest import JsonValue
from comfypin.engine.interface import PreviewMade
from comfypin.queue.job_events import JobEvents
from comfypin.queue.live_jobs import LiveJobs
from comfypin.queue.nats import names
from comfypin.queue.preview_relay import LARGEST_PREVIEW_BYTES, PREVIEW_EVERY_S
from comfypin.queue.status_bodies import is_pending

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

# Workers forget a follower who does not say so for five times as long.
_WATCHED_EVERY_S = 2.0
_WATCHED_FOR_S = 10.0
# Fast nodes report far more often, which nobody sees.
_PROGRESS_EVERY_S = 0.1
_EXPECTED_AGAIN_S = 600.0


class ProgressReader:
    """Receives what workers publish. Implements `PreviewSink`, too, for a server on which nothing runs."""

    def __init__(self, client: "Client", jobs: LiveJobs, events: JobEvents) -> None:
        self._client = client
        self._jobs = jobs
        self._events = events

    async def listen(self) -> None:
        """Receive progress and previews, and let workers know when somebody looks at previews, for ever."""
        subscriptions = [
            await self._client.subscribe(names.progress_subject("*"), cb=self._receive_progress),
            await self._client.subscribe(names.preview_subject("*"), cb=self._receive_preview),
        ]
        try:
            while True:
                if self._events.was_watched_within(_EXPECTED_AGAIN_S):
                    await self._client.publish(names.WATCHED)
                await asyncio.sleep(_WATCHED_EVERY_S)
        finally:
            for subscription in subscriptions:
                await subscription.unsubscribe()

    async def _receive_progress(self, message: "Msg") -> None:
        job_id = message.subject.rpartition(".")[2]
        live = self._jobs.find_pending(job_id)
        progress = _parsed(message.data)
        if live is None or progress is None or not is_pending(live.row.state):
            return
        live.note_progress(progress)
        self._events.publish("progress", job_id, progress)

    async def _receive_preview(self, message: "Msg") -> None:
        job_id = message.subject.rpartition(".")[2]
        preview_facts = _parsed(message.data)
        if (
            preview_facts is not None
            and self._jobs.find_pending(job_id) is not None
            and self._events.wants_previews(job_id)
        ):
            self._events.publish("preview", job_id, preview_facts)

    def is_wanted(self, job_id: str) -> bool:
        """Return False: no job runs here."""
        return False

    def show(self, job_id: str, preview: PreviewMade) -> None:
        """Show nothing: no job runs here."""


def _parsed(data: bytes) -> Mapping[str, JsonValue] | None:
    try:
        json_object = json.loads(data)
    except ValueError:
        return None
    return json_object if isinstance(json_object, dict) else None


class ProgressPublisher:
    """Publishes the progress of a worker's jobs, ten times a second at most, and previews, twice, if somebody looks.

    Implements `PreviewSink`.
    """

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._watched_at_s = float("-inf")
        self._sent_at_s: dict[str, float] = {}
        self._shown_at_s: dict[str, float] = {}
        self._held: dict[str, Mapping[str, JsonValue]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Notice, from now on, whether somebody looks at previews."""

        async def note_watcher(_message: "Msg") -> None:
            self._watched_at_s = time.monotonic()

        await self._client.subscribe(names.WATCHED, cb=note_watcher)

    def publish_progress(self, job_id: str, progress: Mapping[str, JsonValue]) -> None:
        """Publish a job's progress now, or its newest in a moment; returns at once."""
        is_held = job_id in self._held
        self._held[job_id] = progress
        if not is_held:
            wait_s = self._sent_at_s.get(job_id, float("-inf")) + _PROGRESS_EVERY_S - time.monotonic()
            asyncio.get_running_loop().call_later(max(0.0, wait_s), self._publish_held, job_id)

    def forget(self, job_id: str) -> None:
        """Publish nothing more of a job."""
        for by_job in (self._sent_at_s, self._shown_at_s, self._held):
            by_job.pop(job_id, None)

    def is_wanted(self, job_id: str) -> bool:
        """Return whether somebody follows jobs with previews, or did a short while ago."""
        return time.monotonic() - self._watched_at_s < _WATCHED_FOR_S

    def show(self, job_id: str, preview: PreviewMade) -> None:
        """Show a preview, unless the last one was shown less than half a second ago; returns at once."""
        now_s = time.monotonic()
        is_early = now_s - self._shown_at_s.get(job_id, float("-inf")) < PREVIEW_EVERY_S
        if is_early or len(preview.data) > LARGEST_PREVIEW_BYTES or not self.is_wanted(job_id):
            return
        self._shown_at_s[job_id] = now_s
        progress_facts = {
            "node_id": preview.node_id,
            "content_type": preview.content_type,
            "data_base64": base64.b64encode(preview.data).decode(),
        }
        self._send(names.preview_subject(job_id), progress_facts)

    def _publish_held(self, job_id: str) -> None:
        progress = self._held.pop(job_id, None)
        if progress is not None:
            self._sent_at_s[job_id] = time.monotonic()
            self._send(names.progress_subject(job_id), progress)

    def _send(self, subject: str, document: Mapping[str, object]) -> None:
        task = asyncio.get_running_loop().create_task(self._publish(subject, json.dumps(dict(document)).encode()))
        self._sending.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._sending.discard)

    async def _publish(self, subject: str, message_bytes: bytes) -> None:
        # While the connection is away, nothing is kept of what nobody would miss.
        if self._client.is_connected:
            await self._client.publish(subject, message_bytes)
