"""Server-sent events of all jobs: where they stand when a client connects, then what happens, while it reads."""

import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping

from comfypin.digest import JsonValue
from comfypin.queue.errors import JobsNotStored
from comfypin.queue.job_events import FollowerTooSlow, Following, JobEvent, JobEvents
from comfypin.queue.status_bodies import progress_summary
from comfypin.server.job_views import JobViews

_PROGRESS_EVERY_S = 0.25
_KEEP_ALIVE_S = 15.0
_KEPT_FRAMES = 256


class FrameCache:
    """Frames of the newest events: all followers are sent the same bytes, so each event is put into words once."""

    def __init__(self, views: JobViews) -> None:
        self.views = views
        self._frames: OrderedDict[int, bytes] = OrderedDict()

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
        with self._events.subscribe(None, after=self._after, with_previews=self._with_previews) as following:
            try:
                if self._after is None:
                    newest_id = self._events.newest_wire_id
                    yield format_event("snapshot", await self._frames.views.snapshot(), newest_id)
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
