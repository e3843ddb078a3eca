"""Seconds of phases and nodes add up by the clock that is given."""

from comfypin.engine.interface import NodeFinished, NodeStarted, Started
from comfypin.jobs.events import PhaseStarted, RunEvent
from comfypin.jobs.timing import Stopwatch


class Clock:
    """A clock that stands where it is put."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_phase_that_is_entered_again_goes_on_adding_up() -> None:
    clock, heard = Clock(), list[RunEvent]()
    watch = Stopwatch(clock, heard.append)
    clock.now = 1
    watch.note_event(Started())
    clock.now = 3
    watch.enter_phase("queue")
    clock.now = 7
    watch.end_last_phase()
    assert watch.phase_s == {"queue": 5.0, "run": 2.0}
    assert [event.phase for event in heard if isinstance(event, PhaseStarted)] == ["queue", "run", "queue"]


def test_a_node_that_runs_twice_counts_twice() -> None:
    watch = Stopwatch(Clock(), lambda event: None)
    for start, end in ((1.0, 2.0), (5.0, 5.5)):
        watch.note_event(NodeStarted(node_id="1", at_s=start))
        watch.note_event(NodeFinished(node_id="1", at_s=end))
    assert watch.node_s == {"1": 1.5}


def test_a_node_whose_end_was_never_heard_ends_with_the_prompt() -> None:
    clock = Clock()
    watch = Stopwatch(clock, lambda event: None)
    watch.note_event(NodeStarted(node_id="1", at_s=2.0))
    clock.now = 4.0
    watch.close_open_nodes()
    assert watch.node_s == {"1": 2.0}
