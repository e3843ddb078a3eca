"""Remembers the last preflights, so that a job which was checked when it was sent is not checked again to begin."""

from collections import deque
from collections.abc import Mapping, Set
from dataclasses import dataclass

from comfypin.workflow.graph import ApiGraph, NodeId
from comfypin.workflow.missing_pins import LockLike
from comfypin.workflow.object_info import Catalogue
from comfypin.workflow.preflight import Preflight, RunPreflight, run_preflight

# Jobs that wait longer than a few others take are checked anew, which costs a millisecond.
_REMEMBERED = 8
# Larger ones would hold too much memory for that millisecond.
_MOST_NODES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    graph: ApiGraph
    catalogue: Catalogue
    lock: LockLike | None
    brought: Set[tuple[NodeId, str]]
    packs: Mapping[NodeId, str]

    def is_same(self, other: "_Checked") -> bool:
        # The node list as an object: to compare thousands of classes would take longer than the check.
        same_engine = self.catalogue is other.catalogue and self.lock is other.lock
        return same_engine and self.brought == other.brought and self.packs == other.packs and self._has_graph_of(other)

    def _has_graph_of(self, other: "_Checked") -> bool:
        # As texts: for Python 1, 1.0 and true are the same, and for a node they are not.
        return self.graph == other.graph and repr(self.graph) == repr(other.graph)


class PreflightMemo:
    """The reports of one engine's last checks, each given once. May be used from any thread."""

    def __init__(self, run: RunPreflight = run_preflight) -> None:
        self._run = run
        self._reports: deque[tuple[_Checked, Preflight]] = deque(maxlen=_REMEMBERED)

    def check(
        self,
        graph: ApiGraph,
        catalogue: Catalogue,
        lock: LockLike | None = None,
        *,
        brought: Set[tuple[NodeId, str]] = frozenset(),
        packs: Mapping[NodeId, str] | None = None,
    ) -> Preflight:
        """Check a graph as `run_preflight` does, and remember the report for `take`."""
        report = self._run(graph, catalogue, lock, brought=brought, packs=packs)
        if len(graph.nodes) <= _MOST_NODES:
            checked = _Checked(graph=graph, catalogue=catalogue, lock=lock, brought=brought, packs=packs or {})
            self._reports.append((checked, report))
        return report

    def take(
        self,
        graph: ApiGraph,
        catalogue: Catalogue,
        lock: LockLike | None = None,
        *,
        brought: Set[tuple[NodeId, str]] = frozenset(),
        packs: Mapping[NodeId, str] | None = None,
    ) -> Preflight:
        """Return the report that was remembered for the same check, and forget it; else check now."""
        wanted = _Checked(graph=graph, catalogue=catalogue, lock=lock, brought=brought, packs=packs or {})
        for entry in tuple(self._reports):
            checked, report = entry
            if checked.is_same(wanted):
                # Another thread may have taken it too: then both have the same report.
                self._forget(entry)
                return report
        return self._run(graph, catalogue, lock, brought=brought, packs=packs)

    def _forget(self, entry: tuple[_Checked, Preflight]) -> None:
        self._reports = deque((other for other in tuple(self._reports) if other is not entry), maxlen=_REMEMBERED)
