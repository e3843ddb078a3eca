"""Events as JSON: a name, and the fields that a machine can use."""

import json

from comfypin.engine.interface import NodeProgress, NodeStarted, Started, Warned
from comfypin.jobs.events import PhaseStarted, event_to_json


def test_events_are_named_and_nodes_are_called_node() -> None:
    assert event_to_json(NodeStarted(node_id="6", at_s=1.0)) == {"event": "node_started", "node": "6"}
    assert event_to_json(PhaseStarted(phase="run")) == {"event": "phase_started", "phase": "run"}
    assert event_to_json(NodeProgress(node_id="6", value=1, maximum=20))["maximum"] == 20


def test_events_hold_json_values_only() -> None:
    assert json.loads(json.dumps(event_to_json(Started(cached=frozenset({"2", "1"}))))) == {
        "event": "started",
        "cached": ["1", "2"],
    }
    assert "node" not in event_to_json(Warned(message="careful"))
