"""Turns a ComfyUI's messages about one prompt into events that each say one new thing, once. Pure."""

from collections.abc import Iterator

from comfypin.engine.interface import EngineEvent, NodeFinished, NodeProgress, NodeStarted, PreviewMade, Queued, Started
from comfypin.engine.messages import CachedNodes, NodeEnded, NodeRuns, NodeStates, PreviewImage, PromptMessage
from comfypin.workflow.graph import NodeId


class EventNormalizer:
    """Takes messages and polls of one prompt, in any order and however often, and yields what is new in them."""

    def __init__(self) -> None:
        self.started = False
        self._ahead: int | None = None
        self._running: dict[NodeId, None] = {}
        self._finished: set[NodeId] = set()
        self._progress: dict[NodeId, tuple[float, float]] = {}
        # Newer engines tell when each node ends (`progress_state`); older ones only when the next begins.
        self._reports_states = False

    def see_waiting(self, ahead: int) -> Iterator[EngineEvent]:
        """Note that the prompt was seen in the queue."""
        # Every poll sees the queue; only a change is news.
        if not self.started and ahead != self._ahead:
            self._ahead = ahead
            yield Queued(ahead=ahead)

    def see_running(self, cached: frozenset[NodeId] = frozenset()) -> Iterator[EngineEvent]:
        """Note that the prompt was seen to run, or to have run."""
        if not self.started:
            self.started = True
            yield Started(cached=cached)

    def see_message(self, message: PromptMessage, heard_at_s: float) -> Iterator[EngineEvent]:
        """Take one message of the websocket."""
        match message:
            case CachedNodes(nodes):
                yield from self.see_running(nodes)
            case NodeRuns(node_id):
                yield from self.see_running()
                # An older engine does not say when a node ends: the next one's start must do.
                if not self._reports_states:
                    yield from self._finish_all(heard_at_s, but=node_id)
                yield from self._start_node(node_id, heard_at_s)
            case NodeStates(nodes):
                yield from self.see_running()
                for node_id, value, maximum, state in nodes:
                    yield from self._update_node(node_id, value, maximum, state, heard_at_s)
            # Only output nodes send this; the others' ends are derived from the next start.
            case NodeEnded(node_id):
                yield from self._finish_node(node_id, heard_at_s)
            case PreviewImage(node_id, content_type, data):
                yield PreviewMade(node_id=node_id, content_type=content_type, data=data)
            case _:
                return

    def see_success(self, cached: frozenset[NodeId], heard_at_s: float) -> Iterator[EngineEvent]:
        """Note that the history says the prompt succeeded."""
        yield from self.see_running(cached)
        yield from self._finish_all(heard_at_s)

    def _update_node(
        self, node_id: NodeId, value: float, maximum: float, state: str, heard_at_s: float
    ) -> Iterator[EngineEvent]:
        if state == "finished":
            self._reports_states = True
            yield from self._finish_node(node_id, heard_at_s)
        elif state == "running" and node_id not in self._finished:
            yield from self._start_node(node_id, heard_at_s)
            # One step of one is a node that does not count its steps.
            if maximum > 1 and value > 0 and self._progress.get(node_id) != (value, maximum):
                self._progress[node_id] = (value, maximum)
                yield NodeProgress(node_id=node_id, value=value, maximum=maximum)

    def _start_node(self, node_id: NodeId, heard_at_s: float) -> Iterator[EngineEvent]:
        if node_id not in self._running and node_id not in self._finished:
            self._running[node_id] = None
            yield NodeStarted(node_id=node_id, at_s=heard_at_s)

    def _finish_node(self, node_id: NodeId, heard_at_s: float) -> Iterator[EngineEvent]:
        if node_id in self._running:
            del self._running[node_id]
            self._finished.add(node_id)
            yield NodeFinished(node_id=node_id, at_s=heard_at_s)

    def _finish_all(self, heard_at_s: float, but: NodeId | None = None) -> Iterator[EngineEvent]:
        for node_id in [running for running in self._running if running != but]:
            yield from self._finish_node(node_id, heard_at_s)
