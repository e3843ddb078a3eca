"""Which node of a graph runs next: what outputs need, in ComfyUI's order."""

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_FARTHEST = 3
"""Steps to an output node beyond which all nodes are equally urgent."""


def links_of(graph: Mapping[str, Any], node_id: str) -> list[tuple[str, int]]:
    """Every (node, slot) that a node's inputs are linked to, in the order of its inputs."""
    inputs = graph[node_id].get("inputs", {})
    return [(value[0], value[1]) for value in inputs.values() if is_link(value)] if isinstance(inputs, dict) else []


def is_link(value: object) -> bool:
    """Whether an input's value is `[node id, slot]`."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


class ExecutionOrder:
    """The nodes that the outputs need and that are not cached, ready ones first come first served.

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
    ) -> None:
        self._place: dict[str, int] = {}
        self._dependents: dict[str, list[str]] = {}
        self._missing: dict[str, int] = {}
        for output in outputs:
            self._add(graph, output, is_cached)
        self._urgency = dict.fromkeys(self._place, _FARTHEST)
        self._rank(is_output)
        self._ready: list[tuple[int, int, str]] = []
        for node_id, missing in self._missing.items():
            if not missing:
                self._offer(node_id)

    def take(self) -> str | None:
        """The next node, or None when all are done."""
        return heapq.heappop(self._ready)[2] if self._ready else None

    def done(self, node_id: str) -> None:
        """A node has run: those that waited for it alone become ready."""
        for dependent in self._dependents[node_id]:
            self._missing[dependent] -= 1
            if not self._missing[dependent]:
                self._offer(dependent)

    def _add(self, graph: Mapping[str, Any], root: str, is_cached: Callable[[str], bool]) -> None:
        stack = [root]
        while stack:
            node_id = stack.pop()
            if node_id in self._place:
                continue
            self._place[node_id] = len(self._place)
            sources = [source for source, _ in links_of(graph, node_id) if not is_cached(source)]
            self._missing[node_id] = len(set(sources))
            self._dependents.setdefault(node_id, [])
            for source in dict.fromkeys(sources):
                self._dependents.setdefault(source, []).append(node_id)
            stack += sources

    def _rank(self, is_output: Callable[[str], bool]) -> None:
        for node_id in self._place:
            if is_output(node_id):
                self._urgency[node_id] = 0
        for steps in range(1, _FARTHEST):
            for node_id, dependents in self._dependents.items():
                if self._urgency[node_id] > steps and any(self._urgency[each] == steps - 1 for each in dependents):
                    self._urgency[node_id] = steps

    def _offer(self, node_id: str) -> None:
        heapq.heappush(self._ready, (self._urgency[node_id], self._place[node_id], node_id))
