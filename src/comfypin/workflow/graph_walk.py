"""The nodes that outputs need, their cycles, and what depends on what: without recursion, for graphs of any depth."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from comfypin.workflow.graph import ApiGraph, ApiNode, NodeId

# A hostile graph may have as many cycles as links; each one named costs as much as it is long.
_NAMED_CYCLES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphWalk:
    """What was reached from the outputs: nodes in the order their inputs allow, one cycle a closing link."""

    reached: tuple[NodeId, ...]
    cycles: tuple[tuple[NodeId, ...], ...]
    consumers: Mapping[NodeId, tuple[NodeId, ...]]

    @classmethod
    def from_outputs(
        cls, graph: ApiGraph, outputs: Iterable[NodeId], sources: Callable[[ApiNode], Iterator[NodeId]]
    ) -> "GraphWalk":
        """Walk back from the outputs along `sources`; links to nodes that do not exist are passed over."""
        done: dict[NodeId, None] = {}
        cycles: list[tuple[NodeId, ...]] = []
        consumers: dict[NodeId, dict[NodeId, None]] = {}
        for output in outputs:
            if output in done:
                continue
            path: dict[NodeId, Iterator[NodeId]] = {output: sources(graph.nodes[output])}
            while path:
                node_id = next(reversed(path))
                source = next(path[node_id], None)
                if source is None:
                    done[node_id] = None
                    del path[node_id]
                elif source in graph.nodes:
                    consumers.setdefault(source, {})[node_id] = None
                    if source in path:
                        if len(cycles) < _NAMED_CYCLES:
                            cycles.append(_path_from(path, source))
                    elif source not in done:
                        path[source] = sources(graph.nodes[source])
        listed = {node_id: tuple(several) for node_id, several in consumers.items()}
        return cls(reached=tuple(done), cycles=tuple(cycles), consumers=listed)

    def depending_on(self, nodes: AbstractSet[NodeId]) -> set[NodeId]:
        """These nodes and all that need them, near or far."""
        found = set(nodes)
        waiting = list(nodes)
        while waiting:
            for consumer in self.consumers.get(waiting.pop(), ()):
                if consumer not in found:
                    found.add(consumer)
                    waiting.append(consumer)
        return found


def _path_from(path: Mapping[NodeId, object], start: NodeId) -> tuple[NodeId, ...]:
    nodes = list(path)
    return tuple(nodes[nodes.index(start) :])
