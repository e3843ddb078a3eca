"""Files that load nodes name."""

from pathlib import Path

import pytest

from comfypin.workflow.errors import InputFileInvalid, OverrideInvalid
from comfypin.workflow.graph import ApiGraph
from comfypin.workflow.input_files import file_inputs, find_files, missing_files, parse_input_file, point_to_files
from comfypin.workflow.parse import parse_graph
from tests.support.node_list import CATALOGUE


def loading(*names: object) -> ApiGraph:
    return parse_graph({str(i): {"class_type": "LoadImage", "inputs": {"image": name}} for i, name in enumerate(names)})


def test_load_nodes_are_known_with_and_without_a_node_list() -> None:
    graph = parse_graph(
        {
            "1": {"class_type": "LoadImage", "inputs": {"image": "a.png [output]"}},
            "2": {"class_type": "VHS_LoadVideo", "inputs": {"video": "v.mp4"}},
            "3": {"class_type": "LoadImage", "inputs": {"image": ["2", 0]}},
        }
    )
    expected = [("1", "image", "a.png", "output"), ("2", "video", "v.mp4", "input")]
    for catalogue in (CATALOGUE, None):
        found = file_inputs(graph, catalogue)
        assert [(item.node_id, item.input_name, item.name, item.folder) for item in found] == expected


def test_names_are_found_beside_the_workflow_in_folders_too(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).write_bytes(b"x")
    graph = loading("a.png", "sub/b.png", "sub\\b.png", "a.png [input]", "a.png [temp]", "none.png", "sub")
    found = find_files(file_inputs(graph), tmp_path)
    assert [(file.node_id, file.path.name) for file in found] == [
        ("0", "a.png"), ("1", "b.png"), ("2", "b.png"), ("3", "a.png"),
    ]  # fmt: skip
    missing = missing_files(file_inputs(graph), found, tmp_path, graph)
    assert [finding.node_id for finding in missing] == ["5", "6"]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png", "..\\secret.png", "a\0b"])
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(InputFileInvalid):
        find_files(file_inputs(loading(name)), folder)


def test_no_symbolic_link_leaves_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputFileInvalid, match="symbolic link"):
        find_files(file_inputs(loading("a.png")), folder)


def test_a_given_file_wins_over_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    other = tmp_path / "other.png"
    other.write_bytes(b"y")
    graph = loading("a.png")
    given = parse_input_file(graph, f"LoadImage={other}")
    found = find_files(file_inputs(graph), tmp_path, given=[given])
    assert [file.path for file in found] == [other]
    assert point_to_files(graph, found).nodes["0"].inputs["image"] == "other.png"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("LoadImage", "NODE=FILE"),
        ("1=x.png", "loads no file; these do: 0"),
        ("Nope=x.png", "no node with the id"),
        ("0.picture=x.png", "has no input 'picture'"),
    ],
)
def test_an_input_that_points_nowhere_says_so(text: str, words: str) -> None:
    graph = parse_graph({"0": {"class_type": "LoadImage", "inputs": {"image": "a"}}, "1": {"class_type": "SaveImage"}})
    with pytest.raises(OverrideInvalid, match=words):
        parse_input_file(graph, text)


def test_a_file_that_is_not_there_is_named_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"x")
    with pytest.raises(InputFileInvalid, match=r"did you mean 'photo\.png'"):
        parse_input_file(loading("a.png"), f"0={tmp_path}/foto.png")
