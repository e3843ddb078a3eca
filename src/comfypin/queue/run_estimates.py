"""Estimates how long jobs will take, from the last ones of their kind."""

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from comfypin.queue.live_jobs import LiveJob, LiveJobs
from comfypin.queue.status_bodies import is_pending

# The median of a few runs forgets a cold start, and soon follows a faster GPU.
_KEPT_RUNS = 9
# A client that sends a new workflow each time must not fill the memory.
_KEPT_SHAPES = 2000
# Of those further behind nothing is promised: a schedule of 100,000 jobs would hold up all requests for 0.3 s.
_MOST_SCHEDULED = 10_000
# A schedule of 5,000 jobs takes 5 ms, and each event of a waiting job asks when it will end.
_GOOD_FOR_S_A_JOB = 0.0002


class RunEstimates:
    """The seconds of the last runs of each shape of job (see `JobDescription`), and of all jobs."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, deque[float]] = OrderedDict()
        self._medians: dict[str, float] = {}

    def note_run(self, shape: str, run_s: float) -> None:
        """Take a completed job into account."""
        runs = self._runs.setdefault(shape, deque(maxlen=_KEPT_RUNS))
        self._runs.move_to_end(shape)
        runs.append(run_s)
        self._medians[shape] = median(runs)
        if len(self._runs) > _KEPT_SHAPES:
            oldest, _ = self._runs.popitem(last=False)
            del self._medians[oldest]

    def note_runs(self, runs: Iterable[tuple[str, float]]) -> None:
        """Take earlier jobs into account, oldest first."""
        for shape, run_s in runs:
            self.note_run(shape, run_s)

    def typical_run_s(self, shape: str) -> float | None:
        """Return how long such a job usually runs; None if none has completed yet."""
        return self._medians.get(shape)

    def run_ends_in_s(self, live_job: LiveJob, now: float) -> float | None:
        """Return the seconds until the end of a running job; None if it is the first of its shape."""
        run_s = self.typical_run_s(live_job.description.shape)
        elapsed_s = now - (live_job.row.started_at or now)
        return None if run_s is None else max(0.0, run_s - elapsed_s)

    def ends_in_s(self, pending: Sequence[LiveJob], *, at_once: int, now: float) -> dict[str, float | None]:
        """Return the seconds until the end of each job, given in the order of the queue.

        None for a job whose end cannot be estimated: it, or a job before it, is the first of its shape.
        """
        schedule = EndSchedule(self, pending, at_once=at_once, now=now)
        return {job_id: None if end is None else end - now for job_id, end in schedule.ends.items()}


class EndSchedule:
    """When jobs are expected to end, as seen `at` a moment; jobs that come last can be added."""

    def __init__(self, estimates: RunEstimates, pending: Sequence[LiveJob], *, at_once: int, now: float) -> None:
        self._estimates = estimates
        self.at = now
        self.ends: dict[str, float | None] = {}
        # When each place to run a job is free again; places whose job has no estimate are left out.
        self._free_at: list[float] = []
        running = [live_job for live_job in pending if live_job.row.started_at is not None]
        for live_job in running:
            left_s = estimates.run_ends_in_s(live_job, now)
            self.ends[live_job.row.id] = None if left_s is None else now + left_s
            if left_s is not None:
                self._free_at.append(now + left_s)
        self._free_at += [now] * (at_once - len(running))
        heapq.heapify(self._free_at)
        for live_job in pending:
            if live_job.row.started_at is None:
                self.add_last(live_job)

    def add_last(self, live_job: LiveJob) -> None:
        """Add a job that waits behind all others."""
        run_s = self._estimates.typical_run_s(live_job.description.shape)
        if self._free_at and run_s is not None:
            end = self._free_at[0] + run_s
            heapq.heapreplace(self._free_at, end)
            self.ends[live_job.row.id] = end
            return
        if self._free_at:
            heapq.heappop(self._free_at)
        self.ends[live_job.row.id] = None

    def is_good_at(self, now: float) -> bool:
        """Return whether it is still good: the more jobs it has, the longer it is kept."""
        return 0 <= now - self.at <= len(self.ends) * _GOOD_FOR_S_A_JOB


class ExpectedEnds:
    """When the jobs of a queue are expected to end. `at_once` tells how many run at the same time."""

    def __init__(
        self, estimates: RunEstimates, jobs: LiveJobs, *, at_once: Callable[[], int], clock: Callable[[], float]
    ) -> None:
        self._estimates = estimates
        self._jobs = jobs
        self._at_once = at_once
        self._clock = clock
        self._schedule: EndSchedule | None = None

    def of_all(self, pending: Sequence[LiveJob]) -> dict[str, float | None]:
        """Return the seconds until the end of each job, given in the order of the queue.

        None for one that is far behind, as for one whose history does not tell.
        """
        ends = self._estimates.ends_in_s(pending[:_MOST_SCHEDULED], at_once=self._at_once(), now=self._clock())
        return {**dict.fromkeys(live_job.row.id for live_job in pending[_MOST_SCHEDULED:]), **ends}

    def of_job(self, live_job: LiveJob) -> float | None:
        """Return the seconds until one job's end, by a schedule that is kept a while if many wait."""
        now = self._clock()
        if not is_pending(live_job.row.state):
            return None
        if live_job.row.started_at is not None:
            return self._estimates.run_ends_in_s(live_job, now)
        if (self._jobs.waiting_place(live_job.row.id) or 0) > _MOST_SCHEDULED:
            return None
        if self._schedule is None or not self._schedule.is_good_at(now):
            self._schedule = self._make_schedule(now)
        if live_job.row.id not in self._schedule.ends:
            if self._jobs.is_last(live_job.row.id):
                self._schedule.add_last(live_job)
            else:
                self._schedule = self._make_schedule(now)
        end = self._schedule.ends.get(live_job.row.id)
        return None if end is None else max(0.0, end - now)

    def _make_schedule(self, now: float) -> EndSchedule:
        pending = self._jobs.list_next(_MOST_SCHEDULED)
        return EndSchedule(self._estimates, pending, at_once=self._at_once(), now=now)
