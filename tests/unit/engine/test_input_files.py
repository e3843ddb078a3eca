"""The names under which a job's files go into the engine."""

from pathlib import Path

import pytest

from comfypin.engine.input_files import assign_names, point_load_nodes
from comfypin.engine.interface import InputFile
from tests.support.graphs import loaded


def files(*paths: str) -> tuple[InputFile, ...]:
    return tuple(
        InputFile(node_id=str(number), input_name="image", path=Path(path)) for number, path in enumerate(paths)
    )


def test_a_file_keeps_its_name() -> None:
    assert list(assign_names(files("/a/My picture.png")).values()) == ["My picture.png"]


def test_a_file_that_two_nodes_load_is_brought_once() -> None:
    assert len(assign_names(files("/a/x.png", "/a/x.png"))) == 1


def test_two_files_of_one_name_get_two_whatever_the_case() -> None:
    assert list(assign_names(files("/a/x.png", "/b/X.png", "/c/x.png")).values()) == ["x.png", "X_1.png", "x_2.png"]


@pytest.mark.parametrize(
    "name, safe",
    [
        ("a [output].png", "a _output_.png"),
        ("a:b?c.png", "a_b_c.png"),
        (".hidden.png", "hidden.png"),
        ("картинка.png", "картинка.png"),
        ("x" * 300 + ".png", "x" * 116 + ".png"),
    ],
)
def test_names_that_mean_something_else_to_comfyui_are_changed(name: str, safe: str) -> None:
    assert list(assign_names(files(f"/a/{name}")).values()) == [safe]


def test_the_graph_names_what_was_stored() -> None:
    scene = loaded()
    changed = point_load_nodes(
        scene, (InputFile(node_id="1", input_name="image", path=Path("/a/x.png")),), {Path("/a/x.png"): "s/x.png"}
    )
    assert changed.nodes["1"].inputs["image"] == "s/x.png"
    assert scene.nodes["1"].inputs["image"] == "here.png"
