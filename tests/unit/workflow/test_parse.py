"""Reading API workflows: the wrappers, what is refused, and that everything wrong is named at once."""

import json

import pytest

from comfypin.workflow.document import MAX_BYTES, MAX_NODES, MAX_VALUES, read_document, to_document
from comfypin.workflow.errors import WorkflowInvalid, WorkflowUnreadable
from comfypin.workflow.graph import ApiLink
from comfypin.workflow.parse import parse_document, parse_graph

NODE = {"class_type": "EmptyImage", "inputs": {"width": 8}, "_meta": {"title": "Canvas"}}
GRAPH = {"1": NODE, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}


@pytest.mark.parametrize(
    "wrapped",
    [
        GRAPH,
        {"prompt": GRAPH, "client_id": "x"},
        {"input": {"workflow": GRAPH, "images": []}},
        {"input": {"prompt": GRAPH}},
        {"workflow": GRAPH},
        {"output": GRAPH, "workflow": {"nodes": [], "links": []}},
    ],
)
def test_an_api_graph_is_taken_out_of_its_wrapper(wrapped: object) -> None:
    graph = parse_graph(wrapped)
    assert graph.to_api() == GRAPH | {"2": GRAPH["2"]}
    assert graph.nodes["1"].title == "Canvas"
    assert graph.nodes["2"].inputs["images"] == ApiLink("1", 0)


def test_a_node_that_is_called_prompt_is_no_wrapper() -> None:
    assert list(parse_graph({"prompt": NODE}).nodes) == ["prompt"]


def test_every_broken_node_is_named() -> None:
    broken = {"1": 5, "2": {"inputs": {}}, "3": {"class_type": 7}, "4": {"class_type": "A", "inputs": []}, "5": NODE}
    with pytest.raises(WorkflowInvalid) as caught:
        parse_graph(broken, source="w.json")
    assert [finding["node"] for finding in caught.value.findings] == ["1", "2", "3", "4"]
    assert "w.json" in caught.value.message


def test_the_ui_format_is_told_with_the_menu_path() -> None:
    with pytest.raises(WorkflowUnreadable, match=r"Workflow > Export \(API\)"):
        parse_graph({"nodes": [], "links": [], "version": 0.4})


def test_an_empty_object_is_an_empty_document() -> None:
    assert read_document(b"{}", source="w").format == "empty"
    assert parse_graph({}).nodes == {}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"[1]", "a list"),
        (b"null", "null"),
        (b"3", "a number"),
        (b'{"1": ', "line 1, column"),
        (b"\xff\xfe{", "not text in UTF-16"),
        (b"\xff{", "not text in UTF-8"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too long"),
    ],
)
def test_bytes_that_are_no_workflow_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(WorkflowUnreadable, match=reason):
        read_document(data, source="w.json")


def test_a_file_that_is_too_large_is_not_parsed() -> None:
    with pytest.raises(WorkflowUnreadable, match="bytes"):
        read_document(b" " * (MAX_BYTES + 1), source="w.json")


def test_a_million_nodes_are_refused_by_their_number() -> None:
    with pytest.raises(WorkflowUnreadable, match="1,000,000 nodes"):
        to_document({str(number): NODE for number in range(1_000_000)}, source="w")
    assert MAX_NODES < 1_000_000


def test_a_byte_order_mark_and_nan_are_read_as_the_page_does() -> None:
    document = read_document(b'\xef\xbb\xbf{"1": {"class_type": "A", "inputs": {"x": NaN}}}', source="w")
    assert parse_document(document).nodes["1"].inputs == {"x": None}


def test_links_are_only_what_can_be_one() -> None:
    inputs = {"a": ["1", 0], "b": [1, 0.0], "c": [512, 512], "d": ["x", "y"], "e": ["1", 0, 0], "f": [], "g": ["9", 1]}
    graph = parse_graph({"1": NODE, "2": {"class_type": "A", "inputs": inputs}})
    links = dict(graph.nodes["2"].linked_inputs())
    assert links == {"a": ApiLink("1", 0), "b": ApiLink("1", 0), "g": ApiLink("9", 1)}


def test_what_a_server_noted_about_changes_is_left_behind() -> None:
    assert parse_graph({"1": NODE | {"is_changed": ["abc"]}}).to_api()["1"] == NODE


def test_many_findings_make_a_short_message() -> None:
    with pytest.raises(WorkflowInvalid) as caught:
        parse_graph({str(number): {} for number in range(MAX_NODES)})
    assert len(caught.value.message) < 10_000
    assert json.dumps(caught.value.to_json())


def test_a_node_with_millions_of_values_is_refused() -> None:
    with pytest.raises(WorkflowUnreadable, match="values"):
        to_document({"1": {**NODE, "inputs": {"x": [0] * (MAX_VALUES + 1)}}}, source="w")
