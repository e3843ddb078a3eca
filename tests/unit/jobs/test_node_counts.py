"""The counts of a prompt's nodes, beside its fraction."""

from comfypin.engine.interface import NodeFinished, NodeProgress, NodeStarted, Queued, Started
from comfypin.jobs.node_counts import NodeCounts
from comfypin.workflow.parse import parse_graph
from tests.support.workflows import picture


def test_nothing_is_counted_before_the_prompt_has_started() -> None:
    counts = NodeCounts(parse_graph(picture(1)))
    counts.apply_event(Queued(ahead=1))
    assert counts.to_json() == {}


def test_nodes_that_are_done_or_cached_count_and_the_one_at_work_is_named() -> None:
    counts = NodeCounts(parse_graph(picture(1)))
    counts.apply_event(Started(cached=frozenset({"1", "of another graph"})))
    counts.apply_event(NodeStarted(node_id="2", at_s=0.0))
    counts.apply_event(NodeProgress(node_id="2", value=3, maximum=20))
    assert counts.to_json() == {
        "nodes_done": 1,
        "nodes_total": 2,
        "current_node": "2",
        "current_node_class": "SaveImage",
        "step": 3,
        "steps": 20,
    }
    counts.apply_event(NodeFinished(node_id="2", at_s=1.0))
    assert counts.to_json()["nodes_done"] == 2


def test_a_prompt_that_is_queued_once_more_is_counted_anew() -> None:
    counts = NodeCounts(parse_graph(picture(1)))
    counts.apply_event(Started(cached=frozenset({"1"})))
    counts.restart()
    assert counts.to_json() == {}
    counts.apply_event(Started())
    assert counts.to_json() == {"nodes_done": 0, "nodes_total": 2}
