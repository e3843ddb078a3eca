"""Builds the websocket messages of a run, in ComfyUI's words."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from comfypin.digest import JsonValue

# Above it a message about each node's progress would be most of the work.
_FULL_RATE_NODES = 256
_LARGE_GRAPH_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class RawJson:
    """Marks data that is JSON text already."""

    text: str


class ProgressState:
    """Tracks the state of every node of a run, and sends all of it at each change, as ComfyUI does.

    The message grows with the graph, so beyond a few hundred nodes it goes out ten times a second at most, and at the
    end of the run: at every change it would add up to gigabytes for a graph of ten thousand nodes.
    """

    def __init__(self, prompt_id: str, client_id: str | None, send: Callable[[str, RawJson, str | None], None]) -> None:
        self._prompt_id = prompt_id
        self._client_id = client_id
        self._send = send
        self._nodes: dict[str, str] = {}
        self._sent_at = 0.0
        self._owed = False

    def update_node(self, node_id: str, state: Literal["running", "finished"], value: float, maximum: float) -> None:
        """Note that a node began, went on or ended."""
        self._nodes[node_id] = (
            # Each node is kept as text: writing all of them anew at each change would be quadratic.
            json.dumps(node_id)
            + ": "
            + json.dumps(
                {
                    "value": value,
                    "max": maximum,
                    "state": state,
                    "node_id": node_id,
                    "prompt_id": self._prompt_id,
                    "display_node_id": node_id,
                    "parent_node_id": None,
                    "real_node_id": node_id,
                }
            )
        )
        now = time.monotonic()
        if len(self._nodes) <= _FULL_RATE_NODES or now - self._sent_at >= _LARGE_GRAPH_INTERVAL_S:
            self._sent_at = now
            self._send_state()
        else:
            self._owed = True

    def flush(self) -> None:
        """Send what was held back."""
        if self._owed:
            self._send_state()

    def _send_state(self) -> None:
        self._owed = False
        nodes = "{" + ", ".join(self._nodes.values()) + "}"
        json_text = f'{{"prompt_id": {json.dumps(self._prompt_id)}, "nodes": {nodes}}}'
        self._send("progress_state", RawJson(json_text), self._client_id)


def node_meta(node_id: str) -> Mapping[str, JsonValue]:
    """Return a node's entry in the history's meta."""
    return {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}


def timestamp_ms() -> int:
    """Return the time as messages write it."""
    return int(time.time() * 1000)
