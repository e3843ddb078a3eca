"""Events of all jobs as bytes: all followers are sent the same, so each is put into words once."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from comfypin.digest import JsonValue
from comfypin.queue.job_events import JobEvent, JobEvents
from comfypin.queue.status_bodies import progress_summary
from comfypin.server.job_views import JobViews

# Followers are at most this many events apart while they keep up.
_KEPT_FRAMES = 256
# After a restart all pages come back within the same half second.
_SNAPSHOT_SHARED_S = 0.5
_REPLACED = ("progress", "preview", "model")


@dataclass(frozen=True, slots=True)
class Frame:
    """What is sent of an event. One of the same key replaces it; `number` is 0 for what no event has told."""

    key: object
    number: int
    data: bytes


class Batch:
    """Frames that are sent together."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.frames = tuple(frames)
        self.first_number = min((frame.number for frame in self.frames if frame.number), default=1 << 62)

    @cached_property
    def joined(self) -> bytes:
        """All of it, made once for all who are sent it."""
        return b"".join(frame.data for frame in self.frames)


def key_of(event: JobEvent) -> object:
    """Return what an event tells of: a newer one of the same key says all that is left to say."""
    if event.kind in _REPLACED:
        return event.job_id, event.kind
    return event.id if event.kind in ("output", "removed") else (event.job_id, "job")


class FrameCache:
    """Makes frames of events. Followers that come together share a snapshot: thousands of jobs may wait."""

    def __init__(self, views: JobViews, events: JobEvents) -> None:
        self.views = views
        self._events = events
        # Two groups are told of the same events, a moment apart.
        self._frames: OrderedDict[tuple[int, int], Frame | None] = OrderedDict()
        self._snapshot: asyncio.Task[bytes] | None = None
        self._snapshot_number = 0
        self._snapshot_begun_s = 0.0

    async def snapshot_frame(self, events: JobEvents) -> tuple[int, bytes]:
        """Return a snapshot no older than this call, and the number of the event after which to go on.

        Raises `JobsNotStored`.
        """
        asked_after = events.newest_number
        while True:
            if self._snapshot is None or (self._snapshot.done() and not self._is_usable(self._snapshot, asked_after)):
                self._snapshot_number, self._snapshot_begun_s = events.newest_number, time.monotonic()
                self._snapshot = asyncio.create_task(self._make_snapshot(events.newest_wire_id))
            number = self._snapshot_number
            # Others may wait for it when this follower goes.
            frame = await asyncio.shield(self._snapshot)
            if number >= asked_after:
                return number, frame

    def _is_usable(self, snapshot: asyncio.Task[bytes], asked_after: int) -> bool:
        is_young = time.monotonic() - self._snapshot_begun_s < _SNAPSHOT_SHARED_S
        is_made = not snapshot.cancelled() and snapshot.exception() is None
        return is_young and is_made and self._snapshot_number >= asked_after

    async def _make_snapshot(self, wire_id: str) -> bytes:
        return _event_bytes("snapshot", await self.views.snapshot(), wire_id)

    def batch_of(self, events: Sequence[JobEvent]) -> Batch:
        """Return the frames that tell of events, with the state of the queue in front if a job of it changed."""
        newest = {key_of(event): event for event in events}
        frames = [frame for event in sorted(newest.values(), key=_number) if (frame := self._frame_of(event))]
        if any(isinstance(frame.key, tuple) and frame.key[1] == "job" for frame in frames):
            frames.insert(0, Frame("queue", 0, format_event("queue", self.views.queue_summary())))
        return Batch(frames)

    def _frame_of(self, event: JobEvent) -> Frame | None:
        # A job is shown as it is now, which may be newer than the event.
        kept_as = event.id, self._events.newest_number if isinstance(key_of(event), tuple) else 0
        if kept_as not in self._frames:
            frame_bytes = self._write(event)
            self._frames[kept_as] = Frame(key_of(event), event.id, frame_bytes) if frame_bytes else None
            if len(self._frames) > _KEPT_FRAMES:
                self._frames.popitem(last=False)
        return self._frames[kept_as]

    def _write(self, event: JobEvent) -> bytes:
        wire_id = self._events.wire_id(event)
        match event.kind:
            case "progress":
                return format_event("progress", {"id": event.job_id, "progress": progress_summary(event.data)})
            case "preview":
                event_data = {fact_name: value for fact_name, value in event.data.items() if fact_name != "data_base64"}
                return format_event("preview", {"id": event.job_id, **event_data, "data": event.data["data_base64"]})
            case "output":
                return format_event("output", {"id": event.job_id, "output": dict(event.data)}, wire_id)
            case "model":
                return format_event("model", dict(event.data))
            case "removed":
                return format_event("removed", {"id": event.job_id}, wire_id)
        summary = self.views.live_summary(event.job_id)
        return b"" if summary is None else format_event("job", summary, wire_id)


def _number(event: JobEvent) -> int:
    return event.id


def format_event(event_name: str, data: Mapping[str, JsonValue], wire_id: str | None = None) -> bytes:
    """Return a server-sent event."""
    return _event_bytes(event_name, json.dumps(dict(data)), wire_id)


def _event_bytes(event_name: str, event_text: str, wire_id: str | None) -> bytes:
    id_line = "" if wire_id is None else f"id: {wire_id}\n"
    return f"{id_line}event: {event_name}\ndata: {event_text}\n\n".encode()
