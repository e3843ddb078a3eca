"""What another machine wrote: slashes and letters of choices, file names and prefixes."""

from collections.abc import Set
from typing import Any

import pytest

from comfypin.workflow.object_info import Catalogue
from comfypin.workflow.parse import parse_graph
from comfypin.workflow.spelling import Respelt, respell_graph
from tests.support.node_list import CATALOGUE, definition

WINDOWS: Catalogue = {"Loader": definition({"name": [["XL\\base.safetensors"], {}]})}
TWINS: Catalogue = {"Loader": definition({"name": [["a.pt", "A.pt", "XL/b.pt", "xl/b.pt"], {}]})}


def respelt(
    kind: str, catalogue: Catalogue = CATALOGUE, *, brought: Set[tuple[str, str]] = frozenset(), **inputs: object
) -> Respelt:
    dotted = {name.replace("__", "."): value for name, value in inputs.items()}
    return respell_graph(parse_graph({"1": {"class_type": kind, "inputs": dotted}}), catalogue, brought=brought)


@pytest.mark.parametrize(
    ("kind", "name", "value", "spelling"),
    [
        ("CheckpointLoaderSimple", "ckpt_name", "xl\\base.safetensors", "xl/base.safetensors"),
        ("CheckpointLoaderSimple", "ckpt_name", "XL\\Base.safetensors", "xl/base.safetensors"),
        ("CheckpointLoaderSimple", "ckpt_name", "SD15.safetensors", "sd15.safetensors"),
        ("ImageScale", "method", "Bilinear", "bilinear"),
        ("SaveMovie", "format", "MP4", "mp4"),
        ("LoadImage", "image", "A.PNG", "a.png"),
        ("LoadImage", "image", "clipspace\\m.png [input]", "clipspace/m.png [input]"),
        ("SaveImage", "filename_prefix", "cats\\today\\x", "cats/today/x"),
    ],
)
def test_what_differs_only_in_slashes_or_letters_is_taken_with_a_warning(
    kind: str, name: str, value: str, spelling: str
) -> None:
    found = respelt(kind, **{name: value})
    assert found.graph.nodes["1"].inputs[name] == spelling
    assert [(one.severity, one.input_name) for one in found.findings] == [("warning", name)]
    assert repr(value) in found.findings[0].message


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("CheckpointLoaderSimple", "ckpt_name", "sd15.safetensors"),
        ("CheckpointLoaderSimple", "ckpt_name", "sd16.safetensors"),
        ("CheckpointLoaderSimple", "ckpt_name", "base.safetensors"),
        ("PrimitiveString", "value", "a\\b"),
        ("SaveImage", "filename_prefix", "C:\\pictures\\x"),
        ("Unknown", "name", "a\\b"),
    ],
)
def test_everything_else_stays_as_it_is_written(kind: str, name: str, value: str) -> None:
    found = respelt(kind, **{name: value})
    assert (found.graph.nodes["1"].inputs[name], found.findings) == (value, ())


def test_an_engine_on_windows_gets_its_own_slashes() -> None:
    assert respelt("Loader", WINDOWS, name="xl/base.safetensors").graph.nodes["1"].inputs["name"] == (
        "XL\\base.safetensors"
    )


@pytest.mark.parametrize(("value", "spelling"), [("XL\\b.pt", "XL/b.pt"), ("Xl\\b.pt", "Xl\\b.pt"), ("A.PT", "A.PT")])
def test_of_two_choices_that_differ_only_in_letters_none_is_guessed(value: str, spelling: str) -> None:
    assert respelt("Loader", TWINS, name=value).graph.nodes["1"].inputs["name"] == spelling


def test_the_inputs_of_a_respelt_option_are_respelt_too() -> None:
    inputs = respelt("SaveMovie", format="MP4", format__codec="H264").graph.nodes["1"].inputs
    assert (inputs["format"], inputs["format.codec"]) == ("mp4", "h264")


def test_a_file_that_the_job_brings_keeps_its_name() -> None:
    assert respelt("LoadImage", brought={("1", "image")}, image="A.PNG").findings == ()


def test_values_that_are_no_texts_are_passed_over() -> None:
    nodes: dict[str, Any] = {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": ["2", 0]}}}
    assert respell_graph(parse_graph({**nodes, "2": {"class_type": "X", "inputs": {}}}), CATALOGUE).findings == ()
