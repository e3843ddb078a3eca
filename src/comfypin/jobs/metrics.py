"""Metrics of a server or worker for Prometheus, whose library keeps the numbers and serves the page."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from comfypin.errors import ConfigError, OutputError, StorageError
from comfypin.jobs.interface import Handle, JobOutcome, JobState, ProgressCallback, ignore_progress

# Each look at the GPUs starts a process.
_GPU_EVERY_S = 5.0
_END_STATES: tuple[JobState, ...] = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
# From a small picture's upload to a long video: a phase lasts milliseconds or an hour.
_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFigures:
    """Figures of this moment; `waiting` is None if the platform keeps the queue."""

    running: int
    engine_restarts: int
    waiting: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFigures:
    """Figures of a fleet at this moment.

    `workers` counts by release, class and state (starting, idle, busy, stopping); `lines` has the jobs that wait, those
    that run and the seconds of the oldest wait, by release, class and priority; `dead` counts jobs that were given up.
    """

    workers: Mapping[tuple[str, str, str], int]
    lines: Mapping[tuple[str, str, str], tuple[int, int, float]]
    dead: int


class Metrics:
    """Counts since the process began, in a Prometheus registry that nothing else writes to."""

    def __init__(self) -> None:
        disable_created_metrics()  # a second line for each counter and phase, which no user of ours asked for
        self.registry = CollectorRegistry()
        ended = Counter("comfypin_jobs", "Jobs that ended, by state.", ["state"], registry=self.registry)
        self._ended_by_state: Mapping[JobState, Counter] = {
            end_state: ended.labels(end_state) for end_state in _END_STATES
        }
        self._phase_seconds = Histogram(
            "comfypin_job_phase_seconds",
            "Seconds that jobs spent in a phase.",
            ["phase"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._start = _StartCollector()
        self.registry.register(self._start)
        self._not_delivered = Counter("comfypin_delivery_failures", "Jobs not delivered.", registry=self.registry)
        self.refused = Counter("comfypin_jobs_refused", "Jobs refused by a full queue.", registry=self.registry)
        self.webhook_failures = Counter("comfypin_webhook_failures", "Webhooks given up.", registry=self.registry)

    def count_end(self, end_state: JobState, outcome: JobOutcome | None) -> None:
        """Count a job that ended, with the seconds of its phases. A cancelled job has no outcome."""
        self._ended_by_state[end_state].inc()
        if outcome is None:
            return
        if isinstance(outcome.failure, OutputError | StorageError):
            self._not_delivered.inc()
        for phase, seconds in outcome.phase_s.items():
            self._phase_seconds.labels(phase).observe(seconds)

    def watch_start(self, read_s: Callable[[], Mapping[str, float]]) -> None:
        """Show the seconds of the start, by phase; some phases go on while jobs run."""
        self._start.read_s = read_s

    def watch_live(self, read: Callable[[], LiveFigures]) -> None:
        """Add the figures of `read`, and this machine's GPU memory, to every page."""
        self.registry.register(_LiveCollector(read))

    def watch_fleet(self, read: Callable[[], FleetFigures | None]) -> None:
        """Add a fleet's figures to every page; None while its queue does not answer."""
        self.registry.register(_FleetCollector(read))

    def render_page(self, accept: str) -> tuple[bytes, str]:
        """Return the page in the format that an Accept header prefers, and its content type. May ask the driver."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def serve_page(self, port_number: int) -> Callable[[], None]:
        """Serve the page at every path of a port, from a thread; return what stops it. Raises `ConfigError`."""
        try:
            server, thread = start_http_server(port_number, registry=self.registry)
        except (OSError, OverflowError) as error:
            reason = str(getattr(error, "strerror", None) or error).lower()
            raise ConfigError(
                f"Metrics cannot be served on port {port_number}: {reason}. Name another one (--metrics-port, or "
                "COMFYPIN_METRICS_PORT).",
                port=port_number,
            ) from error

        def stop_server() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop_server


class CountedJobs:
    """Counts how the jobs of a handler end; for workers, whose queue is the platform's."""

    def __init__(self, handle: Handle, metrics: Metrics) -> None:
        self._handle = handle
        self._metrics = metrics
        self.running = 0

    async def __call__(
        self, job_id: str, document: object, *, progress: ProgressCallback = ignore_progress
    ) -> JobOutcome:
        """Run the job, and count it; a job that is cancelled is counted too."""
        self.running += 1
        end_state: JobState = "CANCELLED"
        outcome: JobOutcome | None = None
        try:
            outcome = await self._handle(job_id, document, progress=progress)
            end_state = "COMPLETED" if outcome.failure is None else "FAILED"
        finally:
            self.running -= 1
            self._metrics.count_end(end_state, outcome)
        return outcome


class _StartCollector:
    """Reads the seconds of the start each time Prometheus asks."""

    def __init__(self) -> None:
        self.read_s: Callable[[], Mapping[str, float]] = dict

    def collect(self) -> Iterator[Metric]:
        seconds = GaugeMetricFamily(
            "comfypin_start_seconds", "Seconds of each phase of the start; phases overlap.", labels=["phase"]
        )
        for phase, phase_s in self.read_s().items():
            seconds.add_metric([phase], phase_s)
        yield seconds


class _LiveCollector:
    """Reads the live figures each time Prometheus asks."""

    def __init__(self, read: Callable[[], LiveFigures]) -> None:
        self._read = read
        self._gpus = GpuMemory()

    def collect(self) -> Iterator[Metric]:
        figures = self._read()
        if figures.waiting is not None:
            yield GaugeMetricFamily("comfypin_jobs_in_queue", "Jobs that wait.", value=figures.waiting)
        yield GaugeMetricFamily("comfypin_jobs_in_progress", "Jobs that run.", value=figures.running)
        yield CounterMetricFamily("comfypin_engine_restarts", "Engine crashes.", value=figures.engine_restarts)
        memory = self._gpus.read_usage()
        used_memory = GaugeMetricFamily("comfypin_gpu_memory_used_bytes", "GPU memory in use.", labels=["gpu"])
        total_memory = GaugeMetricFamily("comfypin_gpu_memory_total_bytes", "GPU memory.", labels=["gpu"])
        for index, (used_bytes, total_bytes) in enumerate(memory):
            used_memory.add_metric([str(index)], used_bytes)
            total_memory.add_metric([str(index)], total_bytes)
        if memory:
            yield from (used_memory, total_memory)


class _FleetCollector:
    """Reads a fleet's figures each time Prometheus asks."""

    def __init__(self, read: Callable[[], FleetFigures | None]) -> None:
        self._read = read

    def describe(self) -> Iterator[Metric]:
        """Name nothing: registering would ask for the figures otherwise."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        figures = self._read()
        if figures is None:
            return
        labels = ["release", "class", "state"]
        workers = GaugeMetricFamily("comfypin_fleet_workers", "Workers of the fleet.", labels=labels)
        for labelled, count in figures.workers.items():
            workers.add_metric(labelled, count)
        labels = ["release", "class", "priority"]
        waiting = GaugeMetricFamily("comfypin_fleet_jobs_waiting", "Jobs that no worker has taken.", labels=labels)
        running = GaugeMetricFamily("comfypin_fleet_jobs_running", "Jobs that a worker has taken.", labels=labels)
        oldest = GaugeMetricFamily("comfypin_fleet_oldest_wait_seconds", "Age of the oldest of them.", labels=labels)
        for labelled, (waiting_count, running_count, oldest_s) in figures.lines.items():
            waiting.add_metric(labelled, waiting_count)
            running.add_metric(labelled, running_count)
            oldest.add_metric(labelled, oldest_s)
        yield from (workers, waiting, running, oldest)
        yield GaugeMetricFamily("comfypin_fleet_dead_jobs", "Jobs that were given up.", value=figures.dead)


class GpuMemory:
    """Used and total bytes of every GPU, asked of the driver every few seconds at most; empty without one."""

    def __init__(self) -> None:
        self._known: tuple[tuple[int, int], ...] = ()
        self._asked_at_s = float("-inf")
        self._asking = threading.Lock()

    def read_usage(self) -> tuple[tuple[int, int], ...]:
        """Return the newest figures."""
        with self._asking:
            if time.monotonic() - self._asked_at_s > _GPU_EVERY_S:
                self._asked_at_s = time.monotonic()
                self._known = _query_driver()
            return self._known


def _query_driver() -> tuple[tuple[int, int], ...]:
    # The driver's own program rather than its library: no dependency, and none needed on machines without a GPU.
    command = ["nvidia-smi", "--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        rows = [line.split(",") for line in printed.splitlines() if "," in line]
        return tuple((int(used_memory) << 20, int(total_memory) << 20) for used_memory, total_memory in rows)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
