"""Tells webhooks of jobs as they go: in order, a batch at a time, on the disk until the receiver has them."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from comfypin.digest import JsonValue
from comfypin.jobs.metrics import Metrics
from comfypin.queue import webhook_records as records
from comfypin.queue.errors import JobsNotStored, WebhookNotKept
from comfypin.queue.interface import JobRow
from comfypin.queue.job_changes import JobChange
from comfypin.queue.job_events import JobEvent, JobEvents
from comfypin.queue.sqlite import JobStore
from comfypin.queue.status_bodies import progress_summary, shown_time
from comfypin.queue.steady_clock import Clock
from comfypin.queue.webhook import Webhooks
from comfypin.queue.webhook_records import EVENT_NAMES, EventName, UnsentEvent, WebhookFailure

log = logging.getLogger(__name__)

# Progress of a second in one request: receivers are web servers, not sockets.
_BATCH_S = 1.0
WriteEnd = Callable[[str], Awaitable[bytes | None]]
"""Returns the body that tells of a job's end, or None if the job is not kept any more."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Receiver:
    """The webhook of one job: which events it wants, and what is not on the disk yet."""

    job_id: str
    address: str
    wanted: frozenset[EventName]
    unwritten: list[UnsentEvent] = field(default_factory=list)
    draining: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_drain_due: bool = False

    def add(self, event: UnsentEvent) -> None:
        # A receiver wants the newest progress; a disk that is slow must not pile up the rest.
        if event.name == "progress":
            self.unwritten = [earlier for earlier in self.unwritten if earlier.name != "progress"]
        self.unwritten.append(event)

    def take_changes(self) -> list[JobChange]:
        events, self.unwritten = self.unwritten, []
        return records.events_owed(self.job_id, events)


class WebhookEvents:
    """Follows the jobs whose webhooks chose their events. To be used on the event loop alone."""

    def __init__(
        self,
        store: JobStore,
        webhooks: Webhooks,
        metrics: Metrics,
        *,
        clock: Clock,
        events: JobEvents,
        batch_s: float = _BATCH_S,
    ) -> None:
        store.add_tables(records.TABLES)
        self._store = store
        self._webhooks = webhooks
        self._metrics = metrics
        self._clock = clock
        self._batch_s = batch_s
        self._receivers: dict[str, _Receiver] = {}
        self._writing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        events.listen(self._note)

    async def recover(self) -> None:
        """Follow again what had not been told when the last server ended. Raises `JobsNotStored`."""
        query = (
            "SELECT id, webhook, webhook_choices.events FROM webhook_choices JOIN jobs ON id = job_id "
            "WHERE webhook IS NOT NULL AND (ended_at IS NULL OR webhook_owed)"
        )
        for job_id, address, names in await self._store.query_rows(query):
            receiver = self._receive(job_id, address, known_names(json.loads(names)))
            self._start(self._drain(receiver))

    def follow(self, row: JobRow, names: Iterable[EventName]) -> None:
        """Tell a job's webhook of these events from here on."""
        if row.webhook is not None:
            self._receive(row.id, row.webhook, frozenset(names))

    def follow_if_new(self, row: JobRow, names: Iterable[EventName]) -> None:
        """Tell a job's webhook of these events, unless it is followed already."""
        if row.id not in self._receivers:
            self.follow(row, names)

    async def follow_again(self, row: JobRow) -> None:
        """Tell a job's webhook as before, since the job runs again. Raises `JobsNotStored`."""
        query = "SELECT events FROM webhook_choices WHERE job_id = ?"
        for (names,) in await self._store.query_rows(query, row.id):
            self.follow(row, known_names(json.loads(names)))

    def is_end_wanted(self, row: JobRow) -> bool:
        """Return whether a job's webhook wants its end: it does, unless it chose other events."""
        receiver = self._receivers.get(row.id)
        return receiver is None or records.END_EVENTS.get(row.state) in receiver.wanted

    def final_changes(self, job_id: str, result: Mapping[str, JsonValue] | None) -> list[JobChange]:
        """Return what is to be written together with a job's end: its outputs, and what was not written before."""
        receiver = self._receivers.get(job_id)
        if receiver is None:
            return []
        if "output" in receiver.wanted:
            for output in records.output_events(result or {}):
                receiver.add(self._event("output", {"output": output}))
        return receiver.take_changes()

    async def finish(self, job_id: str) -> None:
        """Tell a job's webhook of all that came before its end; give up what it does not take."""
        if (receiver := self._receivers.get(job_id)) is not None:
            await self._drain(receiver)

    def forget(self, job_id: str) -> None:
        """Follow a job no more."""
        self._receivers.pop(job_id, None)

    async def post_end(self, row: JobRow, webhook_body: bytes) -> list[JobChange]:
        """Post a job's end; return what is to be noted if it was given up."""
        address = row.webhook or ""
        return await self._post(row.id, address, webhook_body, kind="end", events=1, kept_body=None)

    async def stop(self) -> None:
        """Write what is not on the disk yet, and post no more: the next server does."""
        tasks = [*self._tasks, *([self._writing] if self._writing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        changes = [change for receiver in self._receivers.values() for change in receiver.take_changes()]
        if changes:
            try:
                await self._store.write_changes(*changes)
            except JobsNotStored as exc:
                log.warning("events not kept", extra={"action": "webhook_events_lost", "reason": exc.message})

    # -- What failed --------------------------------------------------------------------------------------------------

    async def list_failures(self, *, before: int | None, limit: int) -> list[WebhookFailure]:
        """Return the posts that were given up, newest first. Raises `JobsNotStored`."""
        query = f"SELECT {records.FAILURE_COLUMNS} FROM webhook_failures WHERE ? IS NULL OR number < ? "  # noqa: S608
        rows = await self._store.query_rows(f"{query} ORDER BY number DESC LIMIT ?", before, before, limit)
        return [_to_failure(row) for row in rows]

    async def list_waiting(self, *, limit: int) -> list[tuple[str, str, int]]:
        """Return the jobs with events that wait to be told: id, host and how many. Raises `JobsNotStored`."""
        query = (
            "SELECT jobs.id, jobs.webhook, COUNT(*) FROM webhook_events JOIN jobs ON jobs.id = job_id "
            "GROUP BY jobs.id ORDER BY MIN(webhook_events.number) LIMIT ?"
        )
        rows = await self._store.query_rows(query, limit)
        return [(job_id, shown_host(address or ""), count) for job_id, address, count in rows]

    async def retry(self, number: int, write_end: WriteEnd) -> str | None:
        """Post once more what was given up; return why it failed again, or None. Raises `WebhookNotKept`."""
        query = f"SELECT {records.FAILURE_COLUMNS} FROM webhook_failures WHERE number = ?"  # noqa: S608
        rows = await self._store.query_rows(query, number)
        if not rows:
            raise WebhookNotKept(number=number, reason="there is no failed post of this number")
        failure = _to_failure(rows[0])
        webhook_body = failure.body.encode() if failure.body is not None else None
        # The body of an end is not kept: it is written anew from the job.
        if failure.kind == "end":
            webhook_body = await write_end(failure.job_id)
        if failure.address is None or webhook_body is None:
            reason = "its job came with secrets, which are not kept, or is not kept any more"
            raise WebhookNotKept(number=number, reason=reason)
        problem = await self._webhooks.post_once(failure.address, webhook_body)
        if problem is None:
            await self._store.write_changes(records.failure_mended(number))
        return problem

    # -- telling ------------------------------------------------------------------------------------------------------

    def _receive(self, job_id: str, address: str, wanted: frozenset[EventName]) -> _Receiver:
        receiver = _Receiver(job_id=job_id, address=address, wanted=wanted)
        self._receivers[job_id] = receiver
        return receiver

    def _note(self, event: JobEvent) -> None:
        receiver = self._receivers.get(event.job_id)
        if receiver is None or event.kind not in ("started", "progress") or event.kind not in receiver.wanted:
            return
        event_data: Mapping[str, JsonValue] = {}
        if event.kind == "progress":
            progress = progress_summary(event.data)
            # That it waits for the engine is no news to a webhook, which heard that it started.
            if progress is None or progress["nodes_total"] is None:
                return
            event_data = {"progress": progress}
        receiver.add(self._event(event.kind, event_data))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_soon())

    def _event(self, event_name: EventName, event_data: Mapping[str, JsonValue]) -> UnsentEvent:
        return UnsentEvent(
            name=event_name, body=json.dumps({"event": event_name, "at": shown_time(self._clock()), **event_data})
        )

    async def _write_soon(self) -> None:
        """Write what happens within a batch's time, all jobs' together, and have it posted."""
        while unwritten := [receiver for receiver in self._receivers.values() if receiver.unwritten]:
            await asyncio.sleep(self._batch_s)
            # Looked up again: during the sleep more has happened, and jobs may have been forgotten.
            unwritten = [receiver for receiver in self._receivers.values() if receiver.unwritten]
            changes = [change for receiver in unwritten for change in receiver.take_changes()]
            if changes:
                await self._store.write_until_done(*changes)
            for receiver in unwritten:
                # One that posts, and one that waits to post what is written now.
                if not receiver.is_drain_due:
                    receiver.is_drain_due = True
                    self._start(self._drain(receiver))

    async def _drain(self, receiver: _Receiver) -> None:
        """Post what is on the disk, oldest first. A batch is delivered or given up before the next is begun."""
        async with receiver.draining:
            receiver.is_drain_due = False
            while (batch := await self._read_batch(receiver.job_id)) is not None:
                last_number, count, webhook_body = batch
                noted = await self._post(
                    receiver.job_id,
                    receiver.address,
                    webhook_body.encode(),
                    kind="events",
                    events=count,
                    kept_body=webhook_body,
                )
                await self._store.write_until_done(records.events_delivered(receiver.job_id, last_number), *noted)

    async def _read_batch(self, job_id: str) -> tuple[int, int, str] | None:
        query = "SELECT number, body FROM webhook_events WHERE job_id = ? ORDER BY number LIMIT ?"
        try:
            rows = await self._store.query_rows(query, job_id, records.BATCH_EVENTS)
            dropped = await self._store.query_rows("SELECT dropped FROM webhook_choices WHERE job_id = ?", job_id)
        except JobsNotStored:
            return None  # they stay on the disk: the next event, the job's end or the next server posts them
        if not rows:
            return None
        events = [{"sequence": number, **json.loads(event_json)} for number, event_json in rows]
        document = {"id": job_id, "events": events}
        if dropped and dropped[0][0]:
            document["dropped"] = dropped[0][0]
        return rows[-1][0], len(rows), json.dumps(document)

    async def _post(
        self, job_id: str, address: str, webhook_body: bytes, *, kind: str, events: int, kept_body: str | None
    ) -> list[JobChange]:
        reason = await self._webhooks.post_status(job_id, address, webhook_body)
        if reason is None:
            return []
        self._metrics.webhook_failures.inc()
        return records.post_given_up(
            job_id,
            kind=kind,
            host=shown_host(address),
            events=events,
            reason=reason,
            failed_at=self._clock(),
            address=address,
            webhook_body=kept_body,
        )

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._tasks.discard)


def shown_host(address: str) -> str:
    """Return what may be shown of an address: its path and query may hold a token."""
    try:
        parts = urlsplit(address)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname or "")
    except ValueError:
        return ""


def known_names(names: Iterable[str]) -> frozenset[EventName]:
    """Return those of the names that this version knows."""
    return frozenset(event_name for event_name in EVENT_NAMES if event_name in set(names))


def _to_failure(row: tuple[object, ...]) -> WebhookFailure:
    return WebhookFailure(**dict(zip(records.FAILURE_COLUMNS.split(", "), row, strict=True)))  # type: ignore[arg-type]
