"""The jobs of a server that are in memory: those that have not ended, and the last that did."""

import asyncio
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from comfypin.jobs.interface import PENDING_STATES
from comfypin.queue.interface import JobProgress, JobRecord, JobRow
from comfypin.queue.job_description import JobDescription, JobEnd

# A poller that comes every few seconds misses nothing; a job of hours holds no more memory.
_KEPT_PROGRESS = 256
# What was told of jobs is asked for soon after their end, or never.
_KEPT_ENDED = 1000
# Pollers are told apart by what clients send, so a client could make up any number.
_KEPT_POLLERS = 64

_AT_ONCE = -1_000_000
"""Before every rank that a job can have."""

Place = tuple[int, int, str]
"""Where a job waits, as what is compared: the higher priority first, then the earlier arrival."""


@dataclass(slots=True)
class LiveJob:
    """One job in memory: its state, what it was asked for, and its newest progress."""

    row: JobRow
    job_input: object = None
    """What it asks for, if it is small and is about to begin; else it is in the store alone."""
    description: JobDescription = field(default_factory=lambda: JobDescription(api="runpod"))
    end: JobEnd | None = None
    progress: JobProgress = field(default_factory=dict)
    kept_progress: deque[JobProgress] = field(default_factory=lambda: deque(maxlen=_KEPT_PROGRESS))
    progress_count: int = 0
    """How often the job told its progress; the newest of these are in `kept_progress`."""
    seen_by_poller: OrderedDict[str, int] = field(default_factory=OrderedDict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    ending: bool = False
    start_noted_at: float | None = None
    """When it began, if the disk was told so together with its arrival, because nothing was in its way."""
    ended: asyncio.Future[JobRecord] | None = None
    """Its end, for those who wait for it; nobody else keeps the result in memory."""

    def note_progress(self, job_progress: JobProgress) -> None:
        """Keep the newest progress and wake the job's followers."""
        self.progress = job_progress
        self.kept_progress.append(job_progress)
        self.progress_count += 1
        self.wake_followers()

    def take_progress(self, poller: str, after: int | None) -> list[JobProgress]:
        """Return the kept progress after number `after`, by default what this poller has not seen, oldest first."""
        seen_count = self.seen_by_poller.pop(poller, 0) if after is None else after
        unseen_count = min(max(self.progress_count - seen_count, 0), len(self.kept_progress))
        if after is None:
            self.seen_by_poller[poller] = self.progress_count
            if len(self.seen_by_poller) > _KEPT_POLLERS:
                self.seen_by_poller.popitem(last=False)
        return list(self.kept_progress)[len(self.kept_progress) - unseen_count :]

    def wake_followers(self) -> None:
        """Wake everybody who waits for a change of this job."""
        # A new event each time: whoever was woken can wait for the next change, and none gets lost in between.
        self.changed.set()
        self.changed = asyncio.Event()


class LiveJobs:
    """Jobs by id, and the order in which those that wait are to begin: by priority, then by arrival.

    Counts and places are kept rather than counted: thousands of jobs may wait, and each event asks for them.
    """

    def __init__(self) -> None:
        self._pending: dict[str, LiveJob] = {}
        self._recently_ended: OrderedDict[str, LiveJob] = OrderedDict()
        self._arrival_count = 0
        self._places: dict[str, Place] = {}
        self._running: dict[str, None] = {}
        self._with_ttl: dict[str, LiveJob] = {}
        self._waiting: list[Place] = []
        """The jobs that wait and may still begin, in that order."""
        self._ready: list[Place] = []
        """Those of them that nobody has taken yet, in the same order."""
        self._arrivals = asyncio.Semaphore(0)

    @property
    def waiting_count(self) -> int:
        """Return how many jobs wait, those that are being cancelled among them."""
        return len(self._places)

    @property
    def pending_count(self) -> int:
        """Return how many jobs have not ended."""
        return len(self._pending)

    def list_pending(self) -> list[LiveJob]:
        """Return the jobs that have not ended, in order of arrival."""
        return list(self._pending.values())

    def list_in_order(self) -> list[LiveJob]:
        """Return the jobs that run, then those that wait, in the order in which they are to begin."""
        # Those that are being cancelled have a place, and are in the way of nobody.
        has_all = len(self._waiting) == len(self._places)
        waiting = self._waiting if has_all else sorted(self._places.values())
        return [*self._list_running(), *(self._pending[job_id] for _, _, job_id in waiting)]

    def list_next(self, most_waiting: int) -> list[LiveJob]:
        """Return the jobs that run, then so many of those that wait and may begin; costs no more if others wait."""
        return [*self._list_running(), *(self._pending[job_id] for _, _, job_id in self._waiting[:most_waiting])]

    def _list_running(self) -> list[LiveJob]:
        return [self._pending[job_id] for job_id in self._running]

    def list_with_ttl(self) -> list[LiveJob]:
        """Return the jobs that have not ended and may wait for a limited time only."""
        return list(self._with_ttl.values())

    def find_pending(self, job_id: str) -> LiveJob | None:
        """Return the job if it has not ended."""
        return self._pending.get(job_id)

    def find_recent(self, job_id: str) -> LiveJob | None:
        """Return the job if it has not ended, or ended a short while ago."""
        return self._pending.get(job_id) or self._recently_ended.get(job_id)

    async def follow_progress(self, job_id: str, *, silence_s: float) -> AsyncIterator[JobProgress | None]:
        """Yield the newest progress whenever it changes, until the job ends; None after `silence_s` without news."""
        seen_progress: JobProgress | None = None
        while (live_job := self.find_recent(job_id)) is not None and live_job.row.state in PENDING_STATES:
            change_event = live_job.changed
            if live_job.progress and live_job.progress is not seen_progress:
                seen_progress = live_job.progress
                yield seen_progress
            # It may have changed while the client took the last one; then there is nothing to wait for.
            if live_job.changed is change_event:
                try:
                    await asyncio.wait_for(change_event.wait(), silence_s)
                except TimeoutError:
                    yield None

    def take_progress(self, job_id: str, *, poller: str, after: int | None) -> tuple[list[JobProgress], int]:
        """Return a job's progress, oldest first, and how often the job has told any.

        It is what came after the `after`th, or what this poller has not been given yet.
        """
        live_job = self.find_recent(job_id)
        if live_job is None:
            return [], 0
        return live_job.take_progress(poller, after), live_job.progress_count

    def waiting_place(self, job_id: str) -> int | None:
        """Return a waiting job's place in the queue, from 1; None if it does not wait."""
        place = self._places.get(job_id)
        if place is None:
            return None
        index = bisect_left(self._waiting, place)
        return index + 1 if index < len(self._waiting) and self._waiting[index] == place else None

    def is_last(self, job_id: str) -> bool:
        """Return whether no job waits behind this one."""
        return bool(self._waiting) and self._waiting[-1][2] == job_id

    def add_pending(self, live_job: LiveJob) -> None:
        """Count a job among those that wait. It begins only after `let_begin`."""
        self._pending[live_job.row.id] = live_job
        if live_job.row.ttl_s:
            self._with_ttl[live_job.row.id] = live_job
        self._arrival_count += 1
        # Negative: what compares lower begins earlier.
        self._put_at((-live_job.row.rank, self._arrival_count, live_job.row.id))

    def let_begin(self, live_job: LiveJob) -> None:
        """Let a job begin when its turn comes; at once if the disk says already that it began."""
        self._recently_ended.pop(live_job.row.id, None)
        place = self._places.get(live_job.row.id)
        if live_job.start_noted_at is not None and place is not None and not live_job.ending:
            self._leave_order(place)
            self._put_at((_AT_ONCE, place[1], live_job.row.id))
        if live_job.row.id in self._places:
            insort(self._ready, self._places[live_job.row.id])
        self._arrivals.release()

    def drop_pending(self, live_job: LiveJob) -> None:
        """Forget a job that was not taken after all."""
        del self._pending[live_job.row.id]
        self._forget_bounds(live_job.row.id)
        self._leave_waiting(live_job.row.id)

    def take_place(self, live_job: LiveJob) -> None:
        """Give a job of a queue elsewhere the place that its row says: it may have begun, or wait again."""
        if live_job.row.state != "IN_QUEUE":
            self._leave_waiting(live_job.row.id)
        elif live_job.row.id not in self._places:
            self._arrival_count += 1
            self._put_at((-live_job.row.rank, self._arrival_count, live_job.row.id))

    def note_started(self, live_job: LiveJob) -> None:
        """Count a job among those that run."""
        self._leave_waiting(live_job.row.id)

    def note_ending(self, live_job: LiveJob) -> None:
        """Give away the place of a job that ends without having begun."""
        place = self._places.get(live_job.row.id)
        if place is not None:
            self._leave_order(place)

    def move_to_ended(self, live_job: LiveJob) -> None:
        """Note that a job has ended, and forget the oldest that have."""
        self._pending.pop(live_job.row.id, None)
        self._forget_bounds(live_job.row.id)
        self._leave_waiting(live_job.row.id)
        live_job.job_input = None  # it may hold secrets
        self._recently_ended[live_job.row.id] = live_job
        while len(self._recently_ended) > _KEPT_ENDED:
            self._recently_ended.popitem(last=False)

    def move_to_priority(self, live_job: LiveJob) -> None:
        """Give a job that waits the place of its row's priority, behind the jobs that have the same."""
        place = self._places.get(live_job.row.id)
        if place is not None:
            is_ready = self._leave_order(place)
            self._arrival_count += 1
            new_place = (-live_job.row.rank, self._arrival_count, live_job.row.id)
            self._put_at(new_place)
            if is_ready:
                insort(self._ready, new_place)

    def forget_ended(self, job_id: str) -> None:
        """Forget an ended job that is not kept any longer."""
        self._recently_ended.pop(job_id, None)

    async def next_arrival(self) -> LiveJob:
        """Wait for the next job that is to begin. It may have been cancelled meanwhile."""
        while True:
            # One permit for each job that may begin. The job of this one may be cancelled: then nothing is found, and
            # the next permit is waited for.
            await self._arrivals.acquire()
            if self._ready:
                return self._pending[self._ready.pop(0)[2]]

    def _forget_bounds(self, job_id: str) -> None:
        self._running.pop(job_id, None)
        self._with_ttl.pop(job_id, None)

    def _put_at(self, place: Place) -> None:
        self._running.pop(place[2], None)
        self._places[place[2]] = place
        insort(self._waiting, place)

    def _leave_waiting(self, job_id: str) -> None:
        place = self._places.pop(job_id, None)
        if place is not None:
            self._leave_order(place)
            if job_id in self._pending:
                self._running[job_id] = None

    def _leave_order(self, place: Place) -> bool:
        """Take a place out of the order; return whether it was ready to begin."""
        _remove_sorted(self._waiting, place)
        return _remove_sorted(self._ready, place)


def _remove_sorted(places: list[Place], place: Place) -> bool:
    """Remove a place from a sorted list; return whether it was in it."""
    index = bisect_left(places, place)
    if index == len(places) or places[index] != place:
        return False
    del places[index]
    return True
