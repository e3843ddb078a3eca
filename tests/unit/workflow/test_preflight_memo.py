"""A job that was checked when it was sent is not checked again to begin, unless anything is different."""

from collections.abc import Mapping, Set

import pytest

from comfypin.workflow.graph import ApiGraph, NodeId
from comfypin.workflow.missing_pins import LockLike
from comfypin.workflow.object_info import Catalogue, to_catalogue
from comfypin.workflow.parse import parse_graph
from comfypin.workflow.preflight import Preflight, run_preflight
from comfypin.workflow.preflight_memo import PreflightMemo
from tests.support.workflows import picture

CATALOGUE: Catalogue = to_catalogue({})


def a_graph(color: object = 1) -> ApiGraph:
    graph = picture(1)
    graph["1"]["inputs"]["color"] = color
    return parse_graph(graph)


class CountedMemo:
    """A memo, and how often it has checked a graph."""

    def __init__(self) -> None:
        self.checks = 0
        self.memo = PreflightMemo(self._run)

    def _run(
        self,
        graph: ApiGraph,
        catalogue: Catalogue,
        lock: LockLike | None = None,
        *,
        brought: Set[tuple[NodeId, str]] = frozenset(),
        packs: Mapping[NodeId, str] | None = None,
    ) -> Preflight:
        self.checks += 1
        return run_preflight(graph, catalogue, lock, brought=brought, packs=packs)


def test_a_report_is_given_once_for_the_same_graph() -> None:
    counted = CountedMemo()
    report = counted.memo.check(a_graph(), CATALOGUE)
    assert (counted.memo.take(a_graph(), CATALOGUE) is report, counted.checks) == (True, 1)
    assert (counted.memo.take(a_graph(), CATALOGUE) == report, counted.checks) == (True, 2)


@pytest.mark.parametrize("other", [2, 1.0, True, "1"])
def test_another_value_is_checked(other: object) -> None:
    counted = CountedMemo()
    counted.memo.check(a_graph(), CATALOGUE)
    counted.memo.take(a_graph(other), CATALOGUE)
    assert counted.checks == 2


def test_another_node_list_and_other_files_are_checked() -> None:
    counted = CountedMemo()
    counted.memo.check(a_graph(), CATALOGUE)
    counted.memo.take(a_graph(), to_catalogue({}))
    counted.memo.take(a_graph(), CATALOGUE, brought={("1", "image")})
    counted.memo.take(a_graph(), CATALOGUE, packs={"1": "pack"})
    assert counted.checks == 4


def test_only_the_last_few_are_remembered() -> None:
    counted = CountedMemo()
    for color in range(20):
        counted.memo.check(a_graph(color), CATALOGUE)
    counted.memo.take(a_graph(0), CATALOGUE)
    counted.memo.take(a_graph(19), CATALOGUE)
    assert counted.checks == 21
