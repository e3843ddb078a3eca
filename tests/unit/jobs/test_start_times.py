"""How long a start took, phase by phase, and who is told."""

import time

from comfypin.jobs.handler import Handler
from comfypin.jobs.start_times import StartTimes, process_age_s
from tests.support.graphs import picture
from tests.support.services import a_service


def test_a_phase_that_is_entered_again_adds_up() -> None:
    times = StartTimes()
    times.add("models", 1.5)
    times.add("models", 0.5)
    assert times.seconds["models"] == 2.0


def test_a_phase_that_fails_counts() -> None:
    times = StartTimes()
    try:
        with times.measure("env"):
            raise KeyError
    except KeyError:
        pass
    assert "env" in times.seconds


def test_the_total_begins_with_the_process() -> None:
    before_s = process_age_s()
    total_s = StartTimes().end()["total"]
    # /proc counts hundredths of a second.
    assert before_s - 0.02 <= total_s <= process_age_s() + 0.02
    assert process_age_s() <= time.clock_gettime(time.CLOCK_BOOTTIME)


async def test_only_the_first_result_has_the_seconds_of_the_start() -> None:
    handler = Handler(a_service())
    handler.report_start(lambda: {"engine": 9.87654, "total": 12.0})
    outputs = [(await handler(f"job-{number}", {"workflow": picture().to_api()})).output for number in (1, 2)]
    assert outputs[0]["seconds"]["start"] == {"engine": 9.8765, "total": 12.0}  # type: ignore[index,call-overload]
    assert set(outputs[0]["seconds"]) == {"phases", "nodes", "start"}  # type: ignore[arg-type]
    assert "start" not in outputs[1]["seconds"]  # type: ignore[operator]


async def test_a_job_that_fails_leaves_them_to_the_next_result() -> None:
    handler = Handler(a_service())
    handler.report_start(lambda: {"total": 12.0})
    assert (await handler("job-1", {"workflow": "none"})).failure is not None
    outcome = await handler("job-2", {"workflow": picture().to_api()})
    assert outcome.output["seconds"]["start"] == {"total": 12.0}  # type: ignore[index,call-overload]
