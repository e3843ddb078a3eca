"""What holds for any graph: no wire between live nodes is lost, and nothing that is muted comes out."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from comfypin.errors import ComfypinError
from comfypin.workflow.document import to_document
from comfypin.workflow.load import load_workflow
from comfypin.workflow.object_info import Catalogue
from tests.support.dynamic_classes import NEWER
from tests.support.ui_graphs import CLASSES, converted, node, ui

LIVE, MUTED, BYPASSED = 0, 2, 4
KINDS = ("Blend", "Reroute")


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Blends and reroutes of any mode, each wired to nodes before it."""
    count = draw(st.integers(1, 12))
    nodes: list[dict[str, Any]] = [node(0, "EmptyImage", [8, 8, 1, 0])]
    links: list[list[Any]] = []
    for number in range(1, count + 1):
        kind = draw(st.sampled_from(KINDS))
        wires: dict[str, int] = {}
        for slot, name in enumerate(("a", "b") if kind == "Blend" else ("",)):
            source = draw(st.none() | st.integers(0, number - 1))
            if source is not None:
                links.append([len(links) + 1, source, 0, number, slot, "IMAGE"])
                wires[name] = len(links)
        mode = draw(st.sampled_from((LIVE, LIVE, LIVE, MUTED, BYPASSED)))
        nodes.append(node(number, kind, [0.5], wires=wires, mode=mode))
    return ui(nodes, links)


@settings(max_examples=50)
@given(graphs())
def test_nothing_muted_bypassed_or_virtual_comes_out(content: dict[str, Any]) -> None:
    emitted = {int(node_id) for node_id in converted(content).graph.nodes}
    assert emitted == {one["id"] for one in content["nodes"] if one["mode"] == LIVE and one["type"] != "Reroute"}


@settings(max_examples=50)
@given(graphs())
def test_every_wire_between_live_nodes_comes_out(content: dict[str, Any]) -> None:
    graph = converted(content).graph
    origins = {link[0]: str(link[1]) for link in content["links"]}
    live = {str(one["id"]) for one in content["nodes"] if one["mode"] == LIVE and one["type"] != "Reroute"}
    for one in content["nodes"]:
        if str(one["id"]) not in live:
            continue
        links = dict(graph.nodes[str(one["id"])].linked_inputs())
        for slot in one["inputs"]:
            origin = origins[slot["link"]]
            if origin in live:
                assert links[slot["name"]].node_id == origin


@settings(max_examples=50)
@given(graphs())
def test_every_wire_that_comes_out_ends_at_a_node_that_does(content: dict[str, Any]) -> None:
    graph = converted(content).graph
    assert all(link.node_id in graph.nodes for one in graph.nodes.values() for _, link in one.linked_inputs())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-20, 20) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
IDS = st.integers(0, 4) | JSON
SLOTS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={"name": st.sampled_from(["a", "b", "image", ""]) | JSON, "type": JSON, "link": IDS, "widget": JSON},
    )
    | JSON,
    max_size=3,
)
FOREIGN = ("SetNode", "GetNode", "Reroute (x)", "Anything Everywhere", "workflow/g", "workflow>g")
KINDS_OF_NODES = [*CLASSES, *NEWER, *FOREIGN, "Reroute", "PrimitiveNode", "Note", "sub", "inner"]
ENTRIES = st.lists(
    st.lists(st.sampled_from(["-1", "0", "1", "a", "1: a", "width", "$$x"]) | JSON, max_size=3), max_size=3
)
NODES = st.fixed_dictionaries(
    {"id": IDS, "type": st.sampled_from(KINDS_OF_NODES) | JSON},
    optional={
        "mode": st.sampled_from([0, 2, 4]) | JSON,
        "inputs": SLOTS | JSON,
        "outputs": SLOTS | JSON,
        "widgets_values": st.lists(JSON, max_size=6) | JSON,
        "properties": st.fixed_dictionaries(
            {}, optional={"proxyWidgets": ENTRIES | JSON, "proxyWidgetErrorQuarantine": JSON, "ue_properties": JSON}
        )
        | JSON,
        "title": JSON,
    },
)
LINKS = st.lists(st.tuples(IDS, IDS, IDS, IDS, IDS, JSON).map(list) | JSON, max_size=6)
PORTS = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["a", "b"]) | JSON, "linkIds": st.lists(IDS, max_size=3) | JSON}),
    max_size=3,
)
DEFINITIONS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.sampled_from(["sub", "inner"]) | JSON,
            "nodes": st.lists(NODES, max_size=4),
            "links": st.lists(
                st.fixed_dictionaries(
                    {
                        "id": IDS,
                        "origin_id": st.just(-10) | IDS,
                        "origin_slot": st.integers(-1, 3),
                        "target_id": st.just(-20) | IDS,
                        "target_slot": st.integers(-1, 3),
                    }
                )
                | JSON,
                max_size=5,
            ),
            "inputs": PORTS,
            "outputs": PORTS,
        }
    )
    | JSON,
    max_size=2,
)
GROUPS = st.fixed_dictionaries(
    {
        "g": st.fixed_dictionaries(
            {
                "nodes": st.lists(NODES | JSON, max_size=3),
                "links": st.lists(st.lists(st.integers(-1, 3) | JSON, max_size=5) | JSON, max_size=4),
                "external": st.lists(st.lists(st.integers(-1, 3), max_size=3) | JSON, max_size=3),
            }
        )
        | JSON
    }
)
ANYTHING = st.fixed_dictionaries(
    {"nodes": st.lists(NODES | JSON, max_size=6), "links": LINKS, "version": st.just(0.4) | JSON},
    optional={
        "definitions": st.fixed_dictionaries({"subgraphs": DEFINITIONS}) | JSON,
        "extra": st.fixed_dictionaries({}, optional={"groupNodes": GROUPS | JSON, "ue_links": JSON}) | JSON,
        "last_node_id": JSON,
    },
)


@settings(max_examples=60)
@given(ANYTHING, st.sampled_from([CLASSES, {**CLASSES, **NEWER}]))
def test_whatever_a_file_holds_it_is_converted_or_refused_with_reasons(
    content: dict[str, Any], catalogue: Catalogue
) -> None:
    try:
        workflow = load_workflow(to_document(content, source="w"), catalogue, choose=lambda options: options[0])
    except ComfypinError:
        return
    assert workflow.graph.to_api().keys() == workflow.graph.nodes.keys()
