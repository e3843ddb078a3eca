"""Events from messages: each thing once, whatever the version of ComfyUI that says it."""

from comfypin.engine.interface import EngineEvent, NodeFinished, NodeProgress, NodeStarted, Queued, Started
from comfypin.engine.messages import CachedNodes, NodeEnded, NodeRuns, NodeStates, PromptMessage
from comfypin.engine.normalize_events import EventNormalizer


def told(*messages: PromptMessage) -> list[EngineEvent]:
    normalizer = EventNormalizer()
    return [event for message in messages for event in normalizer.see_message(message, 1.0)]


def test_without_states_a_node_ends_when_the_next_begins() -> None:
    assert told(NodeRuns("1"), NodeRuns("2")) == [
        Started(),
        NodeStarted(node_id="1", at_s=1.0),
        NodeFinished(node_id="1", at_s=1.0),
        NodeStarted(node_id="2", at_s=1.0),
    ]


def test_nodes_that_run_at_once_are_told_apart_by_their_states() -> None:
    both = NodeStates((("1", 0, 1, "running"), ("2", 0, 1, "running")))
    first_ends = NodeStates((("1", 1, 1, "finished"), ("2", 0, 1, "running")))
    events = told(CachedNodes(frozenset()), both, first_ends, NodeRuns("2"))
    assert [(type(event), event.node_id) for event in events[1:]] == [  # type: ignore[union-attr]
        (NodeStarted, "1"),
        (NodeStarted, "2"),
        (NodeFinished, "1"),
    ]


def test_a_step_that_is_said_twice_is_told_once() -> None:
    steps = [NodeStates((("3", 1, 4, "running"),)), NodeStates((("3", 1, 4, "running"),))]
    assert [event for event in told(*steps) if isinstance(event, NodeProgress)] == [
        NodeProgress(node_id="3", value=1, maximum=4)
    ]


def test_what_ends_without_having_begun_is_not_told() -> None:
    assert told(NodeEnded("9")) == []


def test_the_end_closes_what_is_open() -> None:
    normalizer = EventNormalizer()
    list(normalizer.see_message(NodeRuns("1"), 1.0))
    assert list(normalizer.see_success(frozenset(), 2.0)) == [NodeFinished(node_id="1", at_s=2.0)]


def test_the_end_of_a_prompt_nothing_was_heard_of_says_that_it_ran() -> None:
    assert list(EventNormalizer().see_success(frozenset({"1"}), 2.0)) == [Started(cached=frozenset({"1"}))]


def test_the_place_in_the_queue_is_told_when_it_changes_and_before_the_start() -> None:
    normalizer = EventNormalizer()
    events = [
        *normalizer.see_waiting(2),
        *normalizer.see_waiting(2),
        *normalizer.see_waiting(1),
        *normalizer.see_running(),
        *normalizer.see_waiting(0),
    ]
    assert events == [Queued(ahead=2), Queued(ahead=1), Started()]
