"""How long jobs will take, by what the last ones of their kind took."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from statistics import median

from comfypin.queue.live_jobs import LiveJob

# The median of few runs forgets a cold start, and soon follows a faster GPU.
_KEPT_RUNS = 9
# Clients that make up workflows must not grow the memory without end.
_KEPT_SHAPES = 2000


class RunEstimates:
    """The seconds of the last runs of each shape of job (see `JobDescription`), and of all jobs."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, deque[float]] = OrderedDict()

    def note_run(self, shape: str, run_s: float) -> None:
        """Take a job into account that has completed."""
        runs = self._runs.setdefault(shape, deque(maxlen=_KEPT_RUNS))
        self._runs.move_to_end(shape)
        runs.append(run_s)
        if len(self._runs) > _KEPT_SHAPES:
            self._runs.popitem(last=False)

    def note_runs(self, runs: Iterable[tuple[str, float]]) -> None:
        """Take earlier jobs into account, oldest first."""
        for shape, run_s in runs:
            self.note_run(shape, run_s)

    def typical_run_s(self, shape: str) -> float | None:
        """Return how long such a job usually runs; None if none has completed yet."""
        runs = self._runs.get(shape)
        return median(runs) if runs else None

    def ends_in_s(self, pending: Sequence[LiveJob], *, at_once: int, now: float) -> dict[str, float | None]:
        """Return the seconds until the end of each job, given in the order of the queue.

        None for a job that nobody can tell of: because it, or a job before it, is the first of its shape.
        """
        # When each of the places in which jobs run is free again; None: nobody knows.
        free_in_s: list[float | None] = []
        ends: dict[str, float | None] = {}
        for live_job in (job for job in pending if job.row.started_at is not None):
            run_s = self.typical_run_s(live_job.description.shape)
            elapsed_s = now - (live_job.row.started_at or now)
            ends[live_job.row.id] = None if run_s is None else max(0.0, run_s - elapsed_s)
            free_in_s.append(ends[live_job.row.id])
        free_in_s += [0.0] * (at_once - len(free_in_s))
        for live_job in (job for job in pending if job.row.started_at is None):
            known = [(seconds, place) for place, seconds in enumerate(free_in_s) if seconds is not None]
            run_s = self.typical_run_s(live_job.description.shape)
            if not known:
                ends[live_job.row.id] = None
                continue
            seconds, place = min(known)
            ends[live_job.row.id] = free_in_s[place] = None if run_s is None else seconds + run_s
        return ends
