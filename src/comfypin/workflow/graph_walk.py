"""Find the nodes that outputs need, their cycles and what depends on what, without recursion, at any depth."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from comfypin.workflow.graph import ApiGraph, ApiNode, NodeId

# A hostile graph may have as many cycles as links; each one named costs as much as it is long.
_NAMED_CYCLES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphWalk:
    """What was reached from the outputs: nodes in an order that their inputs allow, and one cycle per closing link."""

    reached: tuple[NodeId, ...]
    cycles: tuple[tuple[NodeId, ...], ...]
    consumers: Mapping[NodeId, tuple[NodeId, ...]]

    @classmethod
    def from_outputs(
        cls, graph: ApiGraph, outputs: Iterable[NodeId], sources: Callable[[ApiNode], Iterator[NodeId]]
    ) -> "GraphWalk":
        """Walk back from the outputs along `sources`; skip links to nodes that do not exist."""
        finished: dict[NodeId, None] = {}
        cycles: list[tuple[NodeId, ...]] = []
        consumers: dict[NodeId, dict[NodeId, None]] = {}
        for output_id in outputs:
            if output_id in finished:
                continue
            path_to_node: dict[NodeId, Iterator[NodeId]] = {output_id: sources(graph.nodes[output_id])}
            while path_to_node:
                # The path is a stack that also answers quickly whether a node is on it.
                node_id = next(reversed(path_to_node))
                source_id = next(path_to_node[node_id], None)
                if source_id is None:
                    finished[node_id] = None
                    del path_to_node[node_id]
                elif source_id in graph.nodes:
                    consumers.setdefault(source_id, {})[node_id] = None
                    # The source is on the path already, so this link closes a cycle.
                    if source_id in path_to_node:
                        if len(cycles) < _NAMED_CYCLES:
                            cycles.append(_path_from(path_to_node, source_id))
                    elif source_id not in finished:
                        path_to_node[source_id] = sources(graph.nodes[source_id])
        consumers_by_node = {node_id: tuple(node_consumers) for node_id, node_consumers in consumers.items()}
        return cls(reached=tuple(finished), cycles=tuple(cycles), consumers=consumers_by_node)

    def depending_on(self, node_ids: AbstractSet[NodeId]) -> set[NodeId]:
        """Return these nodes and all that need them, directly or not."""
        dependents = set(node_ids)
        waiting = list(node_ids)
        while waiting:
            for consumer in self.consumers.get(waiting.pop(), ()):
                if consumer not in dependents:
                    dependents.add(consumer)
                    waiting.append(consumer)
        return dependents


def _path_from(path_to_node: Mapping[NodeId, object], start: NodeId) -> tuple[NodeId, ...]:
    node_ids = list(path_to_node)
    return tuple(node_ids[node_ids.index(start) :])
