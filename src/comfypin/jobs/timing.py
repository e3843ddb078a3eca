"""Measures a job: the seconds of each phase and of each node, from the events as they come."""

from collections.abc import Callable

from comfypin.engine.interface import EngineEvent, NodeFinished, NodeStarted, Started
from comfypin.jobs.events import EventWatcher, Phase, PhaseStarted
from comfypin.workflow.graph import NodeId


class Stopwatch:
    """Adds up the seconds of phases and nodes, and tells the watcher of each phase that begins."""

    def __init__(self, clock: Callable[[], float], watch: EventWatcher) -> None:
        self._clock = clock
        self._watch = watch
        self._phase_since: tuple[Phase, float] = ("queue", clock())
        self._open_nodes: dict[NodeId, float] = {}
        self.phase_s: dict[str, float] = {}
        self.node_s: dict[NodeId, float] = {}
        watch(PhaseStarted(phase="queue"))

    @property
    def current_phase(self) -> Phase:
        """Return the phase that the job is in."""
        return self._phase_since[0]

    def enter_phase(self, phase_name: Phase) -> None:
        """End the phase the job is in, and begin another; a phase that is entered again goes on adding up."""
        # A start that is reported twice is one phase.
        if phase_name == self.current_phase:
            return
        self._close_phase()
        self._phase_since = (phase_name, self._clock())
        self._watch(PhaseStarted(phase=phase_name))

    def note_event(self, engine_event: EngineEvent) -> None:
        """Take note of an engine's event, and pass it on."""
        match engine_event:
            case Started():
                self.enter_phase("run")
            case NodeStarted():
                # A second start of a node that has not finished must not shorten it.
                self._open_nodes.setdefault(engine_event.node_id, engine_event.at_s)
            case NodeFinished():
                self._close_node(engine_event.node_id, engine_event.at_s)
            case _:
                pass
        self._watch(engine_event)

    def close_open_nodes(self) -> None:
        """Close the nodes whose end was never heard."""
        for node_id in list(self._open_nodes):
            self._close_node(node_id, self._clock())

    def end_last_phase(self) -> None:
        """End the last phase."""
        self._close_phase()

    def _close_phase(self) -> None:
        phase_name, started_at_s = self._phase_since
        self.phase_s[phase_name] = self.phase_s.get(phase_name, 0.0) + self._clock() - started_at_s

    def _close_node(self, node_id: NodeId, at_s: float) -> None:
        if (started_at_s := self._open_nodes.pop(node_id, None)) is not None:
            # Never negative, in whatever order events arrive.
            self.node_s[node_id] = self.node_s.get(node_id, 0.0) + max(0.0, at_s - started_at_s)
