"""The mark in file names, and the name without it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfypin.workflow.filename_mark import SubmissionMark, mark_outputs
from comfypin.workflow.graph import ApiLink
from comfypin.workflow.parse import parse_graph
from tests.support.node_list import CATALOGUE

MARK = SubmissionMark.for_submission("7e8a")


def save(prefix: object, class_type: str = "SaveImage") -> dict[str, object]:
    inputs = {"images": ["1", 0]} | ({} if prefix is None else {"filename_prefix": prefix})
    return {"class_type": class_type, "inputs": inputs}


@pytest.mark.parametrize(
    ("prefix", "marked"),
    [
        ("cat", f"{MARK.text}cat"),
        ("a/b/cat", f"a/b/{MARK.text}cat"),
        ("a/", f"{MARK.text}a"),
        ("./a//b", f"a/{MARK.text}b"),
        ("%width%_x", f"{MARK.text}%width%_x"),
    ],
)
def test_folders_in_a_prefix_stay(prefix: str, marked: str) -> None:
    graph = mark_outputs(parse_graph({"2": save(prefix)}), MARK, CATALOGUE).graph
    assert graph.nodes["2"].inputs["filename_prefix"] == marked


def test_a_prefix_left_to_its_default_is_marked() -> None:
    graph = mark_outputs(parse_graph({"2": save(None, "SaveOptional")}), MARK, CATALOGUE).graph
    assert graph.nodes["2"].inputs["filename_prefix"] == f"{MARK.text}ComfyUI"


def test_a_linked_prefix_is_joined_with_the_mark() -> None:
    text = {"class_type": "PrimitiveString", "inputs": {"value": "folder/name"}}
    graph = mark_outputs(parse_graph({"2": save(["3", 0]), "3": text}), MARK, CATALOGUE).graph
    link = graph.nodes["2"].inputs["filename_prefix"]
    assert isinstance(link, ApiLink)
    joint = graph.nodes[link.node_id]
    assert joint.class_type == "StringConcatenate"
    assert joint.inputs == {"string_a": MARK.text, "string_b": ApiLink("3", 0), "delimiter": ""}


def test_a_linked_prefix_is_reported_where_the_engine_cannot_join() -> None:
    catalogue = {name: value for name, value in CATALOGUE.items() if name != "StringConcatenate"}
    marked = mark_outputs(parse_graph({"2": save(["3", 0])}), MARK, catalogue)
    assert marked.unmarked == ("2",)


def test_nodes_that_save_nothing_are_left_alone() -> None:
    graph = parse_graph({"1": {"class_type": "EmptyImage", "inputs": {"filename_prefix": "x"}}, "2": save(5)})
    assert mark_outputs(graph, MARK, CATALOGUE).graph == graph


def test_two_submissions_never_share_a_mark() -> None:
    assert SubmissionMark.for_submission("a") != SubmissionMark.for_submission("b")
    assert SubmissionMark.for_submission("a") == SubmissionMark.for_submission("a")


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_a_saved_name_comes_back_as_it_was_chosen(name: str) -> None:
    folder, _, marked = MARK.add_to_prefix(f"a/b/{name}").rpartition("/")
    if name not in (".", ".."):
        assert (folder, MARK.remove_from(f"{marked}_00001_.png")) == ("a/b", f"{name}_00001_.png")


def test_a_mark_in_a_folder_of_a_linked_prefix_is_taken_out() -> None:
    assert MARK.remove_from(f"{MARK.text}folder/sub") == "folder/sub"


def core(*classes: str) -> dict[str, object]:
    return {**CATALOGUE, **{name: {**CATALOGUE["SaveImage"], "python_module": "nodes"} for name in classes}}


def test_nodes_that_count_their_files_up_may_keep_their_names() -> None:
    graph = parse_graph({"2": save("me/Pic")})
    assert mark_outputs(graph, MARK, core("SaveImage"), keep_counted=True).graph == graph


@pytest.mark.parametrize("prefix", ["Pic_%batch_num%", ["3", 0]])
def test_a_name_that_nothing_counts_up_is_marked_all_the_same(prefix: object) -> None:
    text = {"class_type": "PrimitiveString", "inputs": {"value": "x"}}
    graph = parse_graph({"2": save(prefix), "3": text})
    assert mark_outputs(graph, MARK, core("SaveImage"), keep_counted=True).graph != graph


def test_a_packs_node_of_the_same_name_is_marked() -> None:
    catalogue = {**CATALOGUE, "SaveImage": {**CATALOGUE["SaveImage"], "python_module": "custom_nodes.pack"}}
    graph = parse_graph({"2": save("me/Pic")})
    assert mark_outputs(graph, MARK, catalogue, keep_counted=True).graph != graph
