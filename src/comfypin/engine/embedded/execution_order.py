"""Decides which node of a graph runs next: what outputs need, in ComfyUI's order."""

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# Steps to an output node beyond which all nodes are equally urgent.
_FARTHEST = 3


def input_links(graph: Mapping[str, Any], node_id: str) -> list[tuple[str, int]]:
    """Return every (node, slot) that a node's inputs are linked to, in the order of its inputs."""
    inputs = graph[node_id].get("inputs", {})
    return [(value[0], value[1]) for value in inputs.values() if is_link(value)] if isinstance(inputs, dict) else []


def is_link(value: object) -> bool:
    """Return whether an input's value is `[node id, slot]`."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


class ExecutionOrder:
    """Orders the nodes that the outputs need and that are not cached: ready ones first come, first served.

    Among ready nodes an output node goes first, then one that feeds an output node, then one two steps away: that is
    how ComfyUI shows results early.
    """

    def __init__(
        self,
        graph: Mapping[str, Any],
        outputs: Iterable[str],
        *,
        is_cached: Callable[[str], bool],
        is_output: Callable[[str], bool],
        is_lazy: Callable[[str, str], bool] = lambda _node_id, _name: False,
    ) -> None:
        self._graph = graph
        self._is_cached = is_cached
        self._is_output = is_output
        self._is_lazy = is_lazy
        self._position: dict[str, int] = {}
        self._dependents: dict[str, list[str]] = {}
        self._missing: dict[str, int] = {}
        self._urgency: dict[str, int] = {}
        self._ready: list[tuple[int, int, str]] = []
        added = [node_id for output in outputs for node_id in self._add_needed(output)]
        self._rank_nodes()
        self._offer_ready(added)

    def take_next(self) -> str | None:
        """Return the next node, or None when all are done."""
        # By urgency, then in the order in which the nodes were found.
        return heapq.heappop(self._ready)[2] if self._ready else None

    def mark_done(self, node_id: str) -> None:
        """Note that a node has run: nodes that waited only for it become ready."""
        for dependent in self._dependents[node_id]:
            self._missing[dependent] -= 1
            if not self._missing[dependent]:
                self._offer_node(dependent)

    def require_sources(self, node_id: str, sources: Iterable[str]) -> None:
        """Let a node that was taken wait for the sources of its lazy inputs, and offer it again."""
        added: list[str] = []
        unfinished = {source for source in sources if not self._is_cached(source)}
        for source_id in unfinished:
            added += self._add_needed(source_id)
            self._dependents[source_id].append(node_id)
        self._missing[node_id] = len(unfinished)
        self._rank_nodes()
        self._offer_ready([*added, node_id])

    def _add_needed(self, root: str) -> list[str]:
        """Add a node and all that it needs; return the new ones."""
        added = []
        stack = [root]
        while stack:
            node_id = stack.pop()
            # Also what ends a circle of links; its nodes are never ready.
            if node_id in self._position:
                continue
            added.append(node_id)
            self._position[node_id] = len(self._position)
            sources = [source for source in self._needed_sources(node_id) if not self._is_cached(source)]
            self._missing[node_id] = len(set(sources))
            self._dependents.setdefault(node_id, [])
            # A node may be linked to the same source twice, but waits for it once.
            for source_id in dict.fromkeys(sources):
                self._dependents.setdefault(source_id, []).append(node_id)
            stack += sources
        return added

    def _needed_sources(self, node_id: str) -> list[str]:
        inputs = self._graph[node_id].get("inputs", {})
        if not isinstance(inputs, dict):
            return []
        return [
            value[0]
            for input_name, value in inputs.items()
            if is_link(value) and not self._is_lazy(node_id, input_name)
        ]

    def _rank_nodes(self) -> None:
        # From the outputs backwards, one step at a time, as far as it matters.
        self._urgency = {node_id: 0 if self._is_output(node_id) else _FARTHEST for node_id in self._position}
        for steps in range(1, _FARTHEST):
            for node_id, dependents in self._dependents.items():
                if self._urgency[node_id] > steps and any(
                    self._urgency[dependent] == steps - 1 for dependent in dependents
                ):
                    self._urgency[node_id] = steps

    def _offer_ready(self, node_ids: Iterable[str]) -> None:
        for node_id in node_ids:
            if not self._missing[node_id]:
                self._offer_node(node_id)

    def _offer_node(self, node_id: str) -> None:
        heapq.heappush(self._ready, (self._urgency[node_id], self._position[node_id], node_id))
