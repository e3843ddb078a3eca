"""From a ComfyUI's messages about one prompt to events that each tell a new thing, once. Pure, with its clock given."""

from collections.abc import Iterator

from comfypin.engine.interface import EngineEvent, NodeFinished, NodeProgress, NodeStarted, Queued, Started
from comfypin.engine.messages import CachedNodes, NodeEnded, NodeRuns, NodeStates, PromptMessage
from comfypin.workflow.graph import NodeId


class Narrator:
    """Hears messages and polls of one prompt, in whatever order and however often, and tells what is new in them."""

    def __init__(self) -> None:
        self.started = False
        self._ahead: int | None = None
        self._running: dict[NodeId, None] = {}
        self._finished: set[NodeId] = set()
        self._progress: dict[NodeId, tuple[float, float]] = {}
        self._hears_states = False

    def wait(self, ahead: int) -> Iterator[EngineEvent]:
        """The queue was seen, with the prompt in it."""
        if not self.started and ahead != self._ahead:
            self._ahead = ahead
            yield Queued(ahead=ahead)

    def start(self, cached: frozenset[NodeId] = frozenset()) -> Iterator[EngineEvent]:
        """The prompt was seen to run, or to have run."""
        if not self.started:
            self.started = True
            yield Started(cached=cached)

    def hear(self, message: PromptMessage, at_s: float) -> Iterator[EngineEvent]:
        """The websocket said something."""
        match message:
            case CachedNodes(nodes):
                yield from self.start(nodes)
            case NodeRuns(node_id):
                yield from self.start()
                if not self._hears_states:
                    yield from self._finish_all(at_s, but=node_id)
                yield from self._run(node_id, at_s)
            case NodeStates(nodes):
                yield from self.start()
                for node_id, value, maximum, state in nodes:
                    yield from self._see(node_id, value, maximum, state, at_s)
            case NodeEnded(node_id):
                yield from self._finish(node_id, at_s)
            case _:
                return

    def end(self, cached: frozenset[NodeId], at_s: float) -> Iterator[EngineEvent]:
        """The history was read: the prompt has succeeded."""
        yield from self.start(cached)
        yield from self._finish_all(at_s)

    def _see(self, node_id: NodeId, value: float, maximum: float, state: str, at_s: float) -> Iterator[EngineEvent]:
        if state == "finished":
            self._hears_states = True
            yield from self._finish(node_id, at_s)
        elif state == "running" and node_id not in self._finished:
            yield from self._run(node_id, at_s)
            # One step of one is a node that does not count its steps.
            if maximum > 1 and value > 0 and self._progress.get(node_id) != (value, maximum):
                self._progress[node_id] = (value, maximum)
                yield NodeProgress(node_id=node_id, value=value, maximum=maximum)

    def _run(self, node_id: NodeId, at_s: float) -> Iterator[EngineEvent]:
        if node_id not in self._running and node_id not in self._finished:
            self._running[node_id] = None
            yield NodeStarted(node_id=node_id, at_s=at_s)

    def _finish(self, node_id: NodeId, at_s: float) -> Iterator[EngineEvent]:
        if node_id in self._running:
            del self._running[node_id]
            self._finished.add(node_id)
            yield NodeFinished(node_id=node_id, at_s=at_s)

    def _finish_all(self, at_s: float, but: NodeId | None = None) -> Iterator[EngineEvent]:
        for node_id in [running for running in self._running if running != but]:
            yield from self._finish(node_id, at_s)
