"""Server-sent events of all jobs: where they stand when a client connects, then what happens, while it reads."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping

from comfypin.digest import JsonValue
from comfypin.queue.errors import JobsNotStored
from comfypin.queue.job_events import FollowerTooSlow, Following, JobEvent, JobEvents
from comfypin.queue.status_bodies import progress_summary
from comfypin.server.job_views import JobViews

# A bar that moves four times a second looks smooth; nodes report far more often.
_PROGRESS_EVERY_S = 0.25
# Proxies close a connection that is silent for 30 or 60 s.
_KEEP_ALIVE_S = 15.0
# Followers are at most this many events apart while they keep up.
_KEPT_FRAMES = 256
# After a restart all pages come back within the same half second.
_SNAPSHOT_SHARED_S = 0.5


class FrameCache:
    """Frames of the newest events: all followers are sent the same bytes, so each event is put into words once.

    Followers that come together share a snapshot, too: it takes long if thousands of jobs wait.
    """

    def __init__(self, views: JobViews) -> None:
        self.views = views
        self._frames: OrderedDict[int, bytes] = OrderedDict()
        self._snapshot: asyncio.Task[bytes] | None = None
        self._snapshot_number = 0
        self._snapshot_begun_s = 0.0

    async def snapshot_frame(self, events: JobEvents) -> tuple[str, bytes]:
        """Return a snapshot no older than this call, and the id of the event after which to go on.

        Raises `JobsNotStored`.
        """
        asked_after = events.newest_number
        while True:
            if self._snapshot is None or (self._snapshot.done() and not self._is_usable(self._snapshot, asked_after)):
                self._snapshot_number, self._snapshot_begun_s = events.newest_number, time.monotonic()
                self._snapshot = asyncio.create_task(self._make_snapshot(events.newest_wire_id))
            number, wire_id = self._snapshot_number, events.wire_id_of(self._snapshot_number)
            # Others may wait for it when this follower goes.
            frame = await asyncio.shield(self._snapshot)
            if number >= asked_after:
                return wire_id, frame

    def _is_usable(self, snapshot: asyncio.Task[bytes], asked_after: int) -> bool:
        is_young = time.monotonic() - self._snapshot_begun_s < _SNAPSHOT_SHARED_S
        is_made = not snapshot.cancelled() and snapshot.exception() is None
        return is_young and is_made and self._snapshot_number >= asked_after

    async def _make_snapshot(self, wire_id: str) -> bytes:
        shown = await self.views.snapshot()
        return await asyncio.to_thread(format_event, "snapshot", shown, wire_id)

    def frame_of(self, event: JobEvent, wire_id: str) -> bytes:
        """Return the frame that tells of an event, with the state of the queue beside it if that changed."""
        frame = self._frames.get(event.id)
        if frame is None:
            frame = self._frames[event.id] = self._make_frame(event, wire_id)
            if len(self._frames) > _KEPT_FRAMES:
                self._frames.popitem(last=False)
        return frame

    def _make_frame(self, event: JobEvent, wire_id: str) -> bytes:
        match event.kind:
            case "progress":
                return format_event("progress", {"id": event.job_id, "progress": progress_summary(event.data)})
            case "preview":
                shown = {name: value for name, value in event.data.items() if name != "data_base64"}
                return format_event("preview", {"id": event.job_id, **shown, "data": event.data["data_base64"]})
            case "output":
                return format_event("output", {"id": event.job_id, "output": dict(event.data)}, wire_id)
            case "removed":
                return format_event("removed", {"id": event.job_id}, wire_id)
        summary = self.views.live_summary(event.job_id)
        if summary is None:
            return b""
        queue_frame = format_event("queue", self.views.queue_summary())
        return queue_frame + format_event("job", summary, wire_id)


class EventStream:
    """One client that follows all jobs."""

    def __init__(
        self,
        events: JobEvents,
        frames: FrameCache,
        *,
        last_event_id: str | None,
        with_previews: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._events = events
        self._frames = frames
        self._after = events.after(last_event_id)
        self._with_previews = with_previews
        self._clock = clock
        self._progress_sent_at_s: OrderedDict[str, float] = OrderedDict()
        self._held_back: dict[str, JobEvent] = {}

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield frames until the client goes. One that reads too slowly is cut off, and may come back."""
        after, snapshot = self._after, None
        if after is None:
            try:
                wire_id, snapshot = await self._frames.snapshot_frame(self._events)
            except JobsNotStored:
                return
            after = self._events.after(wire_id)
            if after is None:  # so much has happened meanwhile that it would be cut off at once
                return
        with self._events.subscribe(None, after=after, with_previews=self._with_previews) as following:
            if snapshot is not None:
                yield snapshot
            try:
                async for frame in self._follow(following):
                    yield frame
            except (FollowerTooSlow, JobsNotStored):
                return

    async def _follow(self, following: Following) -> AsyncIterator[bytes]:
        sent_at_s = self._clock()
        while True:
            event = await following.next_within(self._wait_s(sent_at_s))
            due = self._take_due() if event is None else self._take_event(event)
            frames = [self._frames.frame_of(one, self._events.wire_id(one)) for one in due]
            if not any(frames) and self._clock() - sent_at_s > _KEEP_ALIVE_S:
                frames = [b": still there\n\n"]
            for frame in filter(None, frames):
                sent_at_s = self._clock()
                yield frame

    def _take_event(self, event: JobEvent) -> list[JobEvent]:
        """Return what is to be sent now: all but progress that comes too soon after the last of its job."""
        if event.kind != "progress":
            if event.kind in ("ended", "removed"):
                self._held_back.pop(event.job_id, None)
                self._progress_sent_at_s.pop(event.job_id, None)
            return [*self._take_due(), event]
        if progress_summary(event.data) is not None:
            self._held_back[event.job_id] = event
        return self._take_due()

    def _take_due(self) -> list[JobEvent]:
        now_s = self._clock()
        due = [event for event in self._held_back.values() if now_s >= self._due_at_s(event.job_id)]
        for event in due:
            del self._held_back[event.job_id]
            self._progress_sent_at_s[event.job_id] = now_s
        return due

    def _due_at_s(self, job_id: str) -> float:
        return self._progress_sent_at_s.get(job_id, float("-inf")) + _PROGRESS_EVERY_S

    def _wait_s(self, sent_at_s: float) -> float:
        soonest_s = min(map(self._due_at_s, self._held_back), default=sent_at_s + _KEEP_ALIVE_S + 0.1)
        return max(0.01, soonest_s - self._clock())


def format_event(name: str, data: Mapping[str, JsonValue], wire_id: str | None = None) -> bytes:
    """Return a server-sent event."""
    id_line = b"" if wire_id is None else b"id: " + wire_id.encode() + b"\n"
    return id_line + b"event: " + name.encode() + b"\ndata: " + json.dumps(dict(data)).encode() + b"\n\n"
