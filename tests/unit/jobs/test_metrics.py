"""What a server or worker counts, as Prometheus reads it."""

import asyncio
import urllib.request
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from comfypin.errors import ConfigError, OutputError, StorageError, WorkflowError
from comfypin.jobs.interface import JobOutcome, ProgressCallback, ignore_progress
from comfypin.jobs.metrics import CountedJobs, LiveFigures, Metrics
from tests.support.nginx import free_port

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: Metrics) -> Samples:
    """Every sample of the page by name and labels, as Prometheus itself would parse them."""
    page, _ = metrics.render_page("")
    families = text_string_to_metric_families(page.decode())
    return {(one.name, tuple(one.labels.items())): one.value for family in families for one in family.samples}


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, tuple(labels.items())]


def test_the_names_that_dashboards_know_are_there_from_the_start() -> None:
    metrics = Metrics()
    metrics.watch_live(lambda: LiveFigures(running=1, engine_restarts=2, waiting=3))
    found = {name for name, _ in samples(metrics)}
    assert found >= {
        "comfypin_jobs_total",
        "comfypin_jobs_in_queue",
        "comfypin_jobs_in_progress",
        "comfypin_jobs_refused_total",
        "comfypin_engine_restarts_total",
        "comfypin_delivery_failures_total",
        "comfypin_webhook_failures_total",
    }
    assert value(metrics, "comfypin_jobs_total", state="TIMED_OUT") == 0
    assert value(metrics, "comfypin_engine_restarts_total") == 2


def test_the_phases_of_jobs_are_a_histogram() -> None:
    metrics = Metrics()
    for seconds in (0.2, 4):
        metrics.count_end("COMPLETED", JobOutcome(output={}, phase_s={"run": seconds}))
    assert value(metrics, "comfypin_jobs_total", state="COMPLETED") == 2
    assert value(metrics, "comfypin_job_phase_seconds_count", phase="run") == 2
    assert value(metrics, "comfypin_job_phase_seconds_sum", phase="run") == pytest.approx(4.2)
    assert value(metrics, "comfypin_job_phase_seconds_bucket", le="0.25", phase="run") == 1


def test_a_job_that_was_not_delivered_counts_as_such() -> None:
    metrics = Metrics()
    metrics.count_end("FAILED", JobOutcome(output={}, failure=StorageError("The bucket refused.")))
    metrics.count_end("FAILED", JobOutcome(output={}, failure=WorkflowError("The workflow is empty.")))
    assert value(metrics, "comfypin_delivery_failures_total") == 1


def test_openmetrics_is_written_for_whom_asks_for_it() -> None:
    page, content_type = Metrics().render_page("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert page.endswith(b"# EOF\n")


class Scripted:
    """A handler that ends jobs as told: with an outcome, or never."""

    def __init__(self, outcome: JobOutcome | None) -> None:
        self._outcome = outcome

    async def __call__(
        self, job_id: str, document: object, *, progress: ProgressCallback = ignore_progress
    ) -> JobOutcome:
        if self._outcome is None:
            await asyncio.Event().wait()
        assert self._outcome is not None
        return self._outcome


@pytest.mark.parametrize(("failure", "state"), [(None, "COMPLETED"), (OutputError("The bucket is gone."), "FAILED")])
async def test_a_workers_jobs_are_counted_as_they_end(failure: OutputError | None, state: str) -> None:
    metrics = Metrics()
    jobs = CountedJobs(Scripted(JobOutcome(output={}, failure=failure)), metrics)
    await jobs("1", {})
    assert value(metrics, "comfypin_jobs_total", state=state) == 1
    assert jobs.running == 0


async def test_a_workers_cancelled_job_is_counted_as_cancelled() -> None:
    metrics = Metrics()
    jobs = CountedJobs(Scripted(None), metrics)
    task = asyncio.ensure_future(jobs("1", {}))
    await asyncio.sleep(0)
    assert jobs.running == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert value(metrics, "comfypin_jobs_total", state="CANCELLED") == 1
    assert jobs.running == 0


def test_a_port_serves_the_page_until_it_is_stopped() -> None:
    metrics, port = Metrics(), free_port()
    stop = metrics.serve_page(port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b"comfypin_jobs_total" in answer.read()
    finally:
        stop()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)


def test_a_port_that_is_taken_is_named_with_the_flag() -> None:
    port = free_port()
    stop = Metrics().serve_page(port)
    try:
        with pytest.raises(ConfigError, match=f"port {port}.*--metrics-port"):
            Metrics().serve_page(port)
    finally:
        stop()


def test_the_seconds_of_the_start_are_there_by_phase() -> None:
    metrics = Metrics()
    start_s = {"engine": 9.5, "total": 12.0}
    metrics.watch_start(lambda: start_s)
    assert value(metrics, "comfypin_start_seconds", phase="engine") == 9.5
    assert value(metrics, "comfypin_start_seconds", phase="total") == 12.0
    start_s["warm_up"] = 15.5  # goes on while jobs run
    assert value(metrics, "comfypin_start_seconds", phase="warm_up") == 15.5
