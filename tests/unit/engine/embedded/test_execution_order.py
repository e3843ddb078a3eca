from typing import Any

from comfypin.engine.embedded.execution_order import ExecutionOrder


def graph(**links: list[str]) -> dict[str, Any]:
    return {name: {"inputs": {f"i{n}": [source, 0] for n, source in enumerate(of)}} for name, of in links.items()}


def run_order(nodes: dict[str, Any], outputs: list[str], cached: frozenset[str] = frozenset()) -> list[str]:
    order = ExecutionOrder(nodes, outputs, is_cached=cached.__contains__, is_output=lambda name: name.startswith("out"))
    taken = []
    while (name := order.take_next()) is not None:
        taken.append(name)
        order.mark_done(name)
    return taken


def test_what_no_output_needs_does_not_run() -> None:
    assert run_order(graph(a=[], b=[], out=["a"]), ["out"]) == ["a", "out"]


def test_a_cached_node_and_what_it_alone_needs_do_not_run() -> None:
    assert run_order(graph(a=[], b=["a"], out=["b"]), ["out"], frozenset({"b"})) == ["out"]


def test_a_node_linked_twice_runs_once() -> None:
    assert run_order(graph(a=[], b=["a", "a"], out=["b", "a"]), ["out"]) == ["a", "b", "out"]


def test_an_output_runs_as_soon_as_it_can() -> None:
    nodes = graph(a=[], b=[], c=["b"], d=["c"], out1=["a"], out2=["d", "a"])
    assert run_order(nodes, ["out2", "out1"]) == ["a", "out1", "b", "c", "d", "out2"]


def test_of_equally_urgent_nodes_the_last_linked_input_runs_first() -> None:
    assert run_order(graph(a=[], b=[], mix=["a", "b"], out=["mix"]), ["out"]) == ["b", "a", "mix", "out"]


def test_a_lazy_source_runs_only_when_it_is_demanded() -> None:
    nodes = graph(a=[], b=["a"], c=[], switch=["b", "c"], out=["switch"])
    done: set[str] = set()
    order = ExecutionOrder(
        nodes,
        ["out"],
        is_cached=done.__contains__,
        is_output=lambda name: name == "out",
        is_lazy=lambda name, _: name == "switch",
    )
    taken = []
    while (name := order.take_next()) is not None:
        if name == "switch" and "b" not in done:
            order.require_sources("switch", ["b"])
            continue
        taken.append(name)
        done.add(name)
        order.mark_done(name)
    assert taken == ["a", "b", "switch", "out"]


def test_a_lazy_source_that_runs_anyway_is_waited_for() -> None:
    nodes = graph(a=[], switch=["a"], out1=["switch"], out2=["a"])
    done: set[str] = set()
    order = ExecutionOrder(
        nodes,
        ["out1", "out2"],
        is_cached=done.__contains__,
        is_output=lambda name: name.startswith("out"),
        is_lazy=lambda name, _: name == "switch",
    )
    taken = []
    while (name := order.take_next()) is not None:
        if name == "switch" and "a" not in done:
            order.require_sources("switch", ["a"])
            continue
        taken.append(name)
        done.add(name)
        order.mark_done(name)
    assert sorted(taken) == ["a", "out1", "out2", "switch"]
    assert taken.index("a") < taken.index("switch") < taken.index("out1")
