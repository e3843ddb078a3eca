"""How many nodes of a prompt are done, and which one is at work: what clients show beside a fraction. Pure."""

from comfypin.digest import JsonValue
from comfypin.engine.interface import EngineEvent, NodeFinished, NodeProgress, NodeStarted, Started
from comfypin.workflow.graph import ApiGraph, NodeId


class NodeCounts:
    """The counts of one prompt, fed with its events."""

    def __init__(self, graph: ApiGraph) -> None:
        self._graph = graph
        self._has_started = False
        self._done: set[NodeId] = set()
        self._current: NodeId | None = None
        self._steps: tuple[int, int] | None = None

    def apply_event(self, event: EngineEvent) -> None:
        """Take an event into account."""
        match event:
            case Started(cached=cached):
                self._has_started = True
                self._done = {node_id for node_id in cached if node_id in self._graph.nodes}
                self._current = self._steps = None
            case NodeStarted(node_id=node_id):
                self._current, self._steps = node_id, None
            case NodeProgress(node_id=node_id, value=value, maximum=maximum):
                self._current, self._steps = node_id, (int(value), int(maximum))
            case NodeFinished(node_id=node_id) if node_id in self._graph.nodes:
                self._done.add(node_id)

    def restart(self) -> None:
        """Forget the counts of a prompt that is queued once more."""
        self._has_started = False

    def to_json(self) -> dict[str, JsonValue]:
        """Return the counts; what is not known is left out, and all of it until the prompt has started."""
        if not self._has_started:
            return {}
        counts_json: dict[str, JsonValue] = {"nodes_done": len(self._done), "nodes_total": len(self._graph.nodes)}
        if self._current is not None:
            counts_json["current_node"] = self._current
            node = self._graph.nodes.get(self._current)
            if node is not None:
                counts_json["current_node_class"] = node.class_type
                if node.title:
                    counts_json["current_node_title"] = node.title
        if self._steps is not None:
            counts_json["step"], counts_json["steps"] = self._steps
        return counts_json
