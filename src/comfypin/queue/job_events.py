"""What happens to jobs, told to whoever follows: the newest events are kept for those that come back.

Events are never waited for: a follower that reads too slowly is cut off, and asks the queue where its jobs are.
"""

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from comfypin.digest import JsonValue

Kind = Literal["accepted", "started", "progress", "preview", "output", "ended", "retried", "moved", "removed", "model"]
_REPLACED: frozenset[Kind] = frozenset({"progress", "preview", "model"})
"""Kinds whose newest event alone matters, of a job or a model: they replace each other, and none is kept."""
# A page that reconnects within a minute finds what it missed, even while jobs end by the dozen.
_KEPT_EVENTS = 2000
# Who is further behind gets a snapshot, which is smaller than what it missed.
_UNREAD_EVENTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One thing that happened to a job, at `at` (seconds since 1970). `id` counts up within one life of the server.

    The data of a `preview` are `node_id`, `content_type` and `data_base64`; those of `progress` as `/stream` has them.
    """

    id: int
    at: float
    job_id: str
    kind: Kind
    data: Mapping[str, JsonValue] = field(default_factory=dict)


class EventTarget(Protocol):
    """Receives the events of one job, or of all (None)."""

    @property
    def job_id(self) -> str | None:
        """Return the job that is followed."""

    @property
    def with_previews(self) -> bool:
        """Return whether previews are wanted."""

    def put(self, event: JobEvent) -> None:
        """Note an event; must return at once."""


class FollowerTooSlow(Exception):
    """More happened than the follower had read; it was cut off."""


class Following(AsyncIterator[JobEvent]):
    """The events of one job, or of all, from the moment it was made; ends when it is closed.

    Raises `FollowerTooSlow` from its iteration if more events wait than it may keep.
    """

    def __init__(self, events: "JobEvents", job_id: str | None, *, with_previews: bool) -> None:
        self.job_id = job_id
        self.with_previews = with_previews
        self._events = events
        self._unread: OrderedDict[object, JobEvent] = OrderedDict()
        self._arrived = asyncio.Event()
        self._is_cut_off = self._is_closed = False

    def put(self, event: JobEvent) -> None:
        """Keep an event until it is read; progress and previews replace older ones of the same job."""
        key: object = (event.job_id, event.kind) if event.kind in _REPLACED else event.id
        self._unread.pop(key, None)
        self._unread[key] = event
        if len(self._unread) > _UNREAD_EVENTS:
            self._unread.clear()
            self._is_cut_off = True
            self.close()
        self._arrived.set()

    async def __anext__(self) -> JobEvent:
        while not self._unread:
            if self._is_cut_off:
                raise FollowerTooSlow
            if self._is_closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._unread.popitem(last=False)[1]

    async def next_within(self, timeout_s: float) -> JobEvent | None:
        """Return the next event, or None if `timeout_s` passes without one or the following is closed."""
        try:
            return await asyncio.wait_for(self.__anext__(), timeout_s)
        except (TimeoutError, StopAsyncIteration):
            return None

    def close(self) -> None:
        """Follow no more."""
        self._is_closed = True
        self._events.forget(self)
        self._arrived.set()

    def __enter__(self) -> "Following":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class JobEvents:
    """The hub: the queue and jobs publish, HTTP follows. To be used on the event loop alone."""

    def __init__(self, *, clock: Callable[[], float] = time.time, max_events: int = _KEPT_EVENTS) -> None:
        self._clock = clock
        self._boot = secrets.token_hex(4)
        self._number = 0
        self._kept: deque[JobEvent] = deque(maxlen=max_events)
        self._followers: dict[EventTarget, None] = {}
        self._newest_previews: dict[str, JobEvent] = {}
        # When somebody last followed who would see previews.
        self._watched_at_s = float("-inf")
        self._listeners: list[Callable[[JobEvent], None]] = []

    def publish(self, kind: Kind, job_id: str, data: Mapping[str, JsonValue] | None = None) -> JobEvent:
        """Tell all followers; returns at once."""
        self._number += 1
        event = JobEvent(id=self._number, at=self._clock(), job_id=job_id, kind=kind, data=data or {})
        if kind not in _REPLACED:
            self._kept.append(event)
        if kind == "preview":
            self._newest_previews[job_id] = event
        elif kind == "ended":
            self._newest_previews.pop(job_id, None)
        for listener in self._listeners:
            listener(event)
        for follower in tuple(self._followers):
            if follower.job_id in (None, job_id) and (kind != "preview" or follower.with_previews):
                follower.put(event)
        return event

    def listen(self, listener: Callable[[JobEvent], None]) -> None:
        """Call a part of the server for every event, for ever; it must return at once, and asks for no previews."""
        self._listeners.append(listener)

    def subscribe(self, job_id: str | None, *, after: int | None = None, with_previews: bool = True) -> Following:
        """Follow a job, or all: first what is kept of the events since `after`, then what happens from now on."""
        following = Following(self, job_id, with_previews=with_previews)
        if after is not None:
            for event in self.kept_after(after):
                if job_id in (None, event.job_id):
                    following.put(event)
        self.add(following)
        return following

    def add(self, target: EventTarget) -> None:
        """Tell a target of what happens from now on."""
        self._followers[target] = None

    def kept_after(self, number: int) -> list[JobEvent]:
        """Return what is kept of the events after a number, oldest first."""
        return [event for event in self._kept if event.id > number]

    def forget(self, following: EventTarget) -> None:
        """Tell a follower no more."""
        if following.with_previews and following in self._followers:
            self._watched_at_s = time.monotonic()
        self._followers.pop(following, None)

    def wants_previews(self, job_id: str) -> bool:
        """Return whether somebody would see this job's previews: only then are they worth their bytes."""
        return any(follower.job_id in (None, job_id) and follower.with_previews for follower in self._followers)

    def was_watched_within(self, seconds: float) -> bool:
        """Return whether somebody who would see previews follows, or did a short while ago."""
        is_watched = any(follower.with_previews for follower in self._followers)
        return is_watched or time.monotonic() - self._watched_at_s < seconds

    def newest_preview(self, job_id: str) -> JobEvent | None:
        """Return the newest preview of a job that has not ended."""
        return self._newest_previews.get(job_id)

    @property
    def newest_number(self) -> int:
        """Return the number of the newest event; 0 if there was none."""
        return self._number

    @property
    def newest_wire_id(self) -> str:
        """Return the id of the newest event, as clients see it."""
        return self.wire_id_of(self._number)

    def wire_id(self, event: JobEvent) -> str:
        """Return the event's id as clients see it."""
        return self.wire_id_of(event.id)

    def wire_id_of(self, number: int) -> str:
        """Return an event's number as clients see it: with this life of the server in front."""
        return f"{self._boot}-{number}"

    def after(self, wire_id: str | None) -> int | None:
        """Return the number to resume after, or None if the id is another life's or its next events are gone.

        Then a follower must begin with a snapshot.
        """
        boot, _, number = (wire_id or "").partition("-")
        if boot != self._boot or not (number.isascii() and number.isdigit()) or len(number) > 18:
            return None
        after = int(number)
        is_complete = not self._kept or after >= self._kept[0].id - 1 or len(self._kept) < (self._kept.maxlen or 0)
        # More than a follower may keep unread would cut it off at once, each time that it comes back.
        is_near = self._number - after < _UNREAD_EVENTS // 2
        return after if after <= self._number and is_complete and is_near else None
