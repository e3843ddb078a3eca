"""How long jobs will take, by what the last of their kind took."""

from comfypin.queue.interface import JobRow
from comfypin.queue.job_description import JobDescription
from comfypin.queue.live_jobs import LiveJob, LiveJobs
from comfypin.queue.run_estimates import EndSchedule, ExpectedEnds, RunEstimates


def job(name: str, shape: str = "a", started_at: float | None = None) -> LiveJob:
    state = "IN_QUEUE" if started_at is None else "IN_PROGRESS"
    row = JobRow(id=name, state=state, created_at=0.0, started_at=started_at)  # type: ignore[arg-type]
    return LiveJob(row, description=JobDescription(api="runpod", shape=shape))


def estimates(**runs: list[float]) -> RunEstimates:
    made = RunEstimates()
    made.note_runs((shape, run_s) for shape, all_s in runs.items() for run_s in all_s)
    return made


def test_a_job_takes_what_most_of_its_kind_took() -> None:
    assert estimates(a=[10, 11, 500]).typical_run_s("a") == 11
    assert estimates(a=[10]).typical_run_s("b") is None


def test_old_runs_are_forgotten() -> None:
    assert estimates(a=[100.0] * 20 + [1.0] * 9).typical_run_s("a") == 1


def test_a_job_that_runs_ends_after_the_rest_of_its_time() -> None:
    found = estimates(a=[10]).ends_in_s([job("1", started_at=96), job("2", started_at=50)], at_once=2, now=100)
    assert found == {"1": 6, "2": 0}


def test_jobs_that_wait_go_to_the_place_that_is_free_first() -> None:
    pending = [job("1", started_at=100), job("2", "b", started_at=100), job("3"), job("4"), job("5", "b")]
    found = estimates(a=[10], b=[3]).ends_in_s(pending, at_once=2, now=100)
    assert found == {"1": 10, "2": 3, "3": 13, "4": 20, "5": 16}


def test_behind_a_job_that_nobody_knows_nothing_is_promised() -> None:
    found = estimates(a=[10]).ends_in_s([job("1", "new", started_at=0), job("2")], at_once=1, now=5)
    assert found == {"1": None, "2": None}


def test_many_shapes_do_not_fill_the_memory() -> None:
    made = RunEstimates()
    for number in range(5000):
        made.note_run(str(number), 1.0)
    assert made.typical_run_s("0") is None
    assert made.typical_run_s("4999") == 1


def test_a_job_that_comes_last_is_added_to_a_schedule_as_if_it_were_made_anew() -> None:
    made = estimates(a=[10], b=[3])
    pending = [job("1", started_at=100), job("2", "new", started_at=100), job("3", "b"), job("4")]
    schedule = EndSchedule(made, pending[:2], at_once=3, now=100)
    for waiting in pending[2:]:
        schedule.add_last(waiting)
    assert schedule.ends == EndSchedule(made, pending, at_once=3, now=100).ends
    assert schedule.ends == {"1": 110, "2": None, "3": 103, "4": 113}


def test_a_schedule_is_kept_the_longer_the_more_jobs_it_has() -> None:
    few, many = (
        EndSchedule(estimates(a=[1]), [job(str(number)) for number in range(count)], at_once=1, now=100)
        for count in (10, 5000)
    )
    assert not few.is_good_at(100.1)
    assert many.is_good_at(100.9)
    assert not many.is_good_at(101.1)


def test_far_behind_in_the_queue_nothing_is_promised() -> None:
    jobs = LiveJobs()
    ends = ExpectedEnds(estimates(a=[1.0]), jobs, at_once=lambda: 1, clock=lambda: 0.0)
    waiting = [job(str(number)) for number in range(10_002)]
    for one in waiting[:-1]:
        jobs.add_pending(one)
    assert [ends.of_job(one) for one in (waiting[0], waiting[9_999], waiting[10_000])] == [1.0, 10_000.0, None]
    jobs.add_pending(waiting[-1])
    assert ends.of_job(waiting[-1]) is None
    found = ends.of_all(jobs.list_in_order())
    assert found.keys() == {one.row.id for one in waiting}
    assert (found["0"], found["9999"], found["10000"]) == (1.0, 10_000.0, None)
