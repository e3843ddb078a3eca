"""Server-sent events of all jobs: where they stand when a client connects, then what happens, while it reads.

All followers are told the same at the same time. What happens between two of these times is told once: a job as it is
then, its newest progress, its newest preview. So an event costs its words once, and each follower one write at a time.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice

from comfypin.queue.errors import JobsNotStored
from comfypin.queue.job_events import JobEvent, JobEvents
from comfypin.queue.status_bodies import progress_summary
from comfypin.server.event_frames import Batch, Frame, FrameCache, key_of

# A bar that moves four times a second looks smooth; nodes report far more often.
_PROGRESS_EVERY_S = 0.25
# Proxies close a connection that is silent for 30 or 60 s.
_KEEP_ALIVE_S = 15.0
# 200 followers are told five times a second: writing to them takes 10 ms then, a twentieth of the time.
_SEND_EVERY_S_A_FOLLOWER = 0.001
_SENT_AT_ONCE = 16  # then others have their turn: a job, or /ping, waits for as many writes at most
# Who is further behind gets a snapshot, which is smaller than what it missed.
_MOST_UNREAD = 1000
_PIECE_BYTES = 16_384  # what is written at once waits in memory if a client does not read
_PIECES_AT_ONCE = 16  # of snapshots, for the same reason: hundreds of followers may come in the same moment
# In a storm of events a snapshot may be old before it is sent.
_MOST_SNAPSHOTS = 3


class Follower:
    """One client of a group: what it has not been sent yet."""

    def __init__(self, after: int) -> None:
        self._after = after
        self._unread: OrderedDict[object, Frame] = OrderedDict()
        self._next: Batch | None = None
        self._arrived = asyncio.Event()
        self.is_cut_off = False
        """Whether more happened than it had read; it is told nothing more then."""

    def offer(self, batch: Batch) -> None:
        """Give it what happened. What it has not read yet is replaced by what is newer of the same."""
        if batch.first_number <= self._after:
            batch = Batch(frame for frame in batch.frames if not 0 < frame.number <= self._after)
        if self.is_cut_off or not batch.frames:
            return
        if self._next is None and not self._unread:
            self._next = batch
        else:
            self._keep(batch)
        self._arrived.set()

    def begin_after(self, number: int) -> None:
        """Forget what happened up to an event, since the snapshot includes it."""
        self._after = number
        unread = (self._take_next(), Batch(self._unread.values()))
        self._unread = OrderedDict()
        for batch in unread:
            self.offer(batch)

    def begin_anew(self) -> None:
        """Forget all that happened, and start over with a snapshot."""
        self._take_next()
        self._unread = OrderedDict()
        self.is_cut_off = False

    async def next_bytes(self) -> bytes | None:
        """Wait for what is to be sent next; None if the follower has been cut off."""
        while self._next is None and not self._unread:
            if self.is_cut_off:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        if not self._unread:
            return self._take_next().joined
        batch = Batch([*self._take_next().frames, *self._unread.values()])
        self._unread = OrderedDict()
        return batch.joined

    def _take_next(self) -> Batch:
        batch, self._next = self._next, None
        return batch or Batch(())

    def _keep(self, batch: Batch) -> None:
        for frame in (*self._take_next().frames, *batch.frames):
            self._unread.pop(frame.key, None)
            self._unread[frame.key] = frame
        if len(self._unread) > _MOST_UNREAD:
            self._unread = OrderedDict()
            self.is_cut_off = True


class EventGroup:
    """The followers that get the same bytes: those that want previews, or those that do not."""

    job_id = None  # of all jobs

    def __init__(
        self,
        events: JobEvents,
        frames: FrameCache,
        *,
        with_previews: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.with_previews = with_previews
        self._events = events
        self._frames = frames
        self._clock = clock
        self._followers: dict[Follower, None] = {}
        self._unsent: OrderedDict[object, JobEvent] = OrderedDict()
        self._progress_sent_at_s: OrderedDict[str, float] = OrderedDict()
        self._sent_at_s = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = float("inf")
        self._is_sending = False
        self._piece_turns = asyncio.Semaphore(_PIECES_AT_ONCE)

    # -- as a target of `JobEvents` -------------------------------------------------------------------------------

    def put(self, event: JobEvent) -> None:
        """Keep what happened until it is sent."""
        if event.kind == "progress" and progress_summary(event.data) is None:
            return
        if event.kind in ("ended", "removed"):
            self._unsent.pop((event.job_id, "progress"), None)
            self._progress_sent_at_s.pop(event.job_id, None)
        key = key_of(event)
        self._unsent.pop(key, None)
        self._unsent[key] = event
        self._schedule_send(self._due_at_s(event))

    # -- as what followers read -----------------------------------------------------------------------------------

    async def follow(self, last_event_id: str | None) -> AsyncIterator[bytes]:
        """Yield what is to be sent until the client goes. One that reads too slowly is cut off, and may come back."""
        after = self._events.after(last_event_id)
        follower = Follower(self._events.newest_number if after is None else after)
        self._join(follower)
        try:
            if after is None:
                async for piece in self._begin(follower):
                    yield piece
            else:
                # What is not told yet comes with the rest.
                untold = {event.id for event in self._unsent.values()}
                missed = [event for event in self._events.kept_after(after) if event.id not in untold]
                follower.offer(self._frames.batch_of(missed))
            while (event_bytes := await follower.next_bytes()) is not None:
                for piece in _pieces(event_bytes):
                    yield piece
        except JobsNotStored:
            return
        finally:
            self._leave(follower)

    async def _begin(self, follower: Follower) -> AsyncIterator[bytes]:
        """Yield a snapshot; another if so much has happened meanwhile that the follower could not keep it."""
        for _ in range(_MOST_SNAPSHOTS):
            number, frame = await self._frames.snapshot_frame(self._events)
            if not follower.is_cut_off:
                follower.begin_after(number)
                break
            follower.begin_anew()
        else:
            follower.is_cut_off = True  # it comes back after this snapshot
        for piece in _pieces(frame):
            async with self._piece_turns:
                await asyncio.sleep(0)
            yield piece

    def _join(self, follower: Follower) -> None:
        if not self._followers:
            self._events.add(self)
            self._sent_at_s = self._clock()
        self._followers[follower] = None
        if self._timer is None:
            self._schedule_send(self._sent_at_s + _KEEP_ALIVE_S)

    def _leave(self, follower: Follower) -> None:
        self._followers.pop(follower, None)
        if not self._followers:
            self._events.forget(self)
            self._unsent.clear()
            self._progress_sent_at_s.clear()

    # -- sending --------------------------------------------------------------------------------------------------

    def _due_at_s(self, event: JobEvent) -> float:
        soonest_s = self._sent_at_s + len(self._followers) * _SEND_EVERY_S_A_FOLLOWER
        if event.kind != "progress":
            return soonest_s
        return max(soonest_s, self._progress_sent_at_s.get(event.job_id, float("-inf")) + _PROGRESS_EVERY_S)

    def _schedule_send(self, at_s: float) -> None:
        if self._is_sending or (self._timer is not None and self._timer_at_s <= at_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = at_s
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at_s - self._clock()), self._send_due)

    def _send_due(self) -> None:
        self._timer = None
        now_s = self._clock()
        due = [(key, event) for key, event in self._unsent.items() if self._due_at_s(event) <= now_s]
        for key, event in due:
            del self._unsent[key]
            if event.kind == "progress":
                self._progress_sent_at_s[event.job_id] = now_s
        batch = self._frames.batch_of([event for _, event in due])
        if not batch.frames and now_s - self._sent_at_s >= _KEEP_ALIVE_S:
            batch = Batch([Frame("alive", 0, b": still there\n\n")])
        if batch.frames:
            self._sent_at_s = now_s
            self._is_sending = True
            self._send_some(iter(tuple(self._followers)), batch)
        else:
            self._schedule_next()

    def _send_some(self, followers: Iterator[Follower], batch: Batch) -> None:
        some = tuple(islice(followers, _SENT_AT_ONCE))
        for follower in some:
            follower.offer(batch)
        if len(some) == _SENT_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._send_some, followers, batch)
        else:
            self._is_sending = False
            self._schedule_next()

    def _schedule_next(self) -> None:
        """Schedule what waits already, or a sign of life."""
        if self._followers:
            at_s = min(map(self._due_at_s, self._unsent.values()), default=self._sent_at_s + _KEEP_ALIVE_S)
            self._schedule_send(at_s)


def _pieces(data: bytes) -> Iterator[bytes]:
    """Yield the data a piece at a time: one that does not read holds one piece, and shares the rest with all others."""
    if len(data) <= _PIECE_BYTES:
        yield data
        return
    for start in range(0, len(data), _PIECE_BYTES):
        yield data[start : start + _PIECE_BYTES]
