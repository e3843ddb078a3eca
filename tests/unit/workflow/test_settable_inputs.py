"""What can be set: names, kinds, limits, and the file that chooses among them."""

import jsonschema
import pytest

from comfypin.workflow.errors import InputsFileInvalid, OverrideInvalid
from comfypin.workflow.input_files import file_inputs
from comfypin.workflow.inputs_file import load_inputs_file, named_inputs, overrides_by_name
from comfypin.workflow.overrides import apply_overrides
from comfypin.workflow.parse import parse_graph
from comfypin.workflow.settable_inputs import describe_inputs, input_names, input_schema
from tests.support.node_list import CATALOGUE

GRAPH = parse_graph(
    {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
        "2": {
            "class_type": "KSampler",
            "inputs": {"model": ["1", 0], "seed": 5, "cfg": 8.0, "sampler_name": "euler", "text": "a cat"},
            "_meta": {"title": "Main"},
        },
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
        "5": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Photo"}},
        "6": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
        "7": {"class_type": "EmptyImage", "inputs": {"width": 8}},
    }
)


def test_inputs_have_names_and_kinds_and_those_of_idle_nodes_are_left_out() -> None:
    found = {one.name: (one.kind, one.target) for one in describe_inputs(GRAPH, CATALOGUE)}
    assert found == {
        "Main.text": ("prompt", "2.text"),
        "Main.seed": ("seed", "2.seed"),
        "Photo": ("file", "5.image"),
        "CheckpointLoaderSimple.ckpt_name": ("model", "1.ckpt_name"),
        "Main.cfg": ("number", "2.cfg"),
        "Main.sampler_name": ("choice", "2.sampler_name"),
        "SaveImage.filename_prefix": ("text", "4.filename_prefix"),
    }


def test_names_that_two_nodes_would_share_are_their_ids() -> None:
    save = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "y"}}
    graph = parse_graph({**GRAPH.to_api(), "9": save})
    names = {one.name for one in describe_inputs(graph, CATALOGUE)}
    assert {"4.filename_prefix", "9.filename_prefix"} <= names


def test_prompts_are_told_apart_by_the_input_that_they_lead_to() -> None:
    # Through another node, and to both inputs at once, which is neither.
    graph = parse_graph(
        {
            "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat"}},
            "2": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["1", 0], "guidance": 3.5}},
            "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}},
            "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "film"}},
            "5": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "negative": ["3", 0], "seed": 1}},
            "6": {"class_type": "KSampler", "inputs": {"positive": ["4", 0], "negative": ["4", 0], "model": ["5", 0]}},
            "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}},
        }
    )
    prompt = {"input": {"required": {"text": ["STRING", {"multiline": True}]}}}
    catalogue = {**CATALOGUE, "CLIPTextEncode": prompt}
    roles = {one.node_id: one.role for one in describe_inputs(graph, catalogue) if one.kind == "prompt"}
    assert roles == {"1": "positive", "3": "negative", "4": None}


FILE = """
title = "Cats"
description = "Draws a cat"
[inputs.prompt]
target = "Main.text"
max_length = 20
required = true
[inputs.strength]
target = "2.cfg"
minimum = 2
maximum = 1000
default = 7
[inputs.seed]
target = "KSampler.seed"
"""


def test_the_file_names_and_limits() -> None:
    inputs = named_inputs(GRAPH, CATALOGUE, load_inputs_file(FILE, source="f"))
    prompt, strength, seed = inputs
    assert (prompt.required, prompt.max_length) == (True, 20)
    assert (strength.minimum, strength.maximum, strength.default) == (2, 100.0, 7)
    overrides = overrides_by_name({"prompt": "a dog", "seed": "random"}, inputs)
    changed = apply_overrides(GRAPH, overrides, catalogue=CATALOGUE, randint=lambda low, high: 42).nodes["2"].inputs
    assert (changed["text"], changed["cfg"], changed["seed"]) == ("a dog", 7, 42)
    assert seed.target == "2.seed"


def test_the_schema_takes_what_is_allowed_and_refuses_the_rest() -> None:
    inputs = named_inputs(GRAPH, CATALOGUE, load_inputs_file(FILE, source="f"))
    schema = input_schema(inputs, title="Cats")
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for good in ({"prompt": "x"}, {"prompt": "x", "seed": "random"}, {"prompt": "x", "seed": 5, "strength": 2}):
        assert validator.is_valid(good)
    for bad in (
        {},
        {"prompt": "x" * 21},
        {"prompt": "x", "strength": 1},
        {"prompt": "x", "seed": "r"},
        {"prompt": "", "z": 1},
    ):
        assert not validator.is_valid(bad)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "must be given: prompt"),
        ({"prompt": "x" * 21}, "at most 20 characters"),
        ({"prompt": "x", "strength": 1}, "minimum is 2"),
        ({"prompt": "x", "strength": 101}, "maximum is 100"),
        ({"prompt": "x", "promt": 1}, "did you mean 'prompt'"),
        ({"prompt": "x", "2.seed": 1}, "no input with this name"),
    ],
)
def test_what_the_file_does_not_allow_is_refused(values: dict[str, object], words: str) -> None:
    inputs = named_inputs(GRAPH, CATALOGUE, load_inputs_file(FILE, source="f"))
    with pytest.raises(OverrideInvalid, match=words):
        overrides_by_name(values, inputs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = ", "not TOML"),
        ("titel = 'x'", "did you mean 'title'"),
        ("inputs = 3", "must be tables"),
        ("[inputs]\na = 3", "must be a table"),
        ("[inputs.a]\nminimum = 'x'", "inputs.a.minimum must be a number"),
        ("[inputs.a]\ndescription = 'x'", "has no target"),
        ("[inputs.a]\ntarget = '6.text'\nmin = 3", "inputs.a.min is not a known key"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(InputsFileInvalid, match=words):
        load_inputs_file(text, source="f")


def test_targets_that_are_not_there_are_named_together() -> None:
    file = load_inputs_file("[inputs.a]\ntarget = '99.x'\n[inputs.b]\ntarget = 'Main.sed'", source="f")
    with pytest.raises(InputsFileInvalid) as caught:
        named_inputs(GRAPH, CATALOGUE, file)
    assert "inputs.a" in caught.value.message
    assert "did you mean 'seed'" in caught.value.message


def test_every_name_is_a_target_of_set() -> None:
    described = describe_inputs(GRAPH, CATALOGUE)
    assert input_names(described)["Photo"] == ("5", "image")


MOVIE = parse_graph(
    {
        "1": {"class_type": "EmptyImage", "inputs": {}},
        "2": {
            "class_type": "SaveMovie",
            "inputs": {"images.image0": ["1", 0], "format": "mp4", "format.codec": "auto", "format.fps": 12.5},
        },
    }
)


def test_inputs_that_an_option_brings_can_be_set_by_name() -> None:
    found = {one.target: (one.kind, one.type) for one in describe_inputs(MOVIE, CATALOGUE)}
    assert found == {
        "2.format": ("choice", "COMBO"),
        "2.format.codec": ("choice", "COMBO"),
        "2.format.fps": ("number", "FLOAT"),
    }


def test_the_schema_of_a_typed_endpoint_names_the_options() -> None:
    schema = input_schema(describe_inputs(MOVIE, CATALOGUE), title="x")
    properties = schema["properties"]  # type: ignore[call-overload,index]
    assert properties["SaveMovie.format"]["enum"] == ["mp4", "webm", "gif"]  # type: ignore[call-overload,index]
    assert properties["SaveMovie.format.fps"]["type"] == "number"  # type: ignore[call-overload,index]


def test_a_default_of_the_inputs_file_is_not_meant_for_another_option() -> None:
    file = load_inputs_file(
        '[inputs.kind]\ntarget = "2.format"\n[inputs.fps]\ntarget = "2.format.fps"\ndefault = 30', source="f"
    )
    wished = overrides_by_name({"kind": "gif"}, named_inputs(MOVIE, CATALOGUE, file))
    changed = apply_overrides(MOVIE, wished, catalogue=CATALOGUE)
    assert changed.nodes["2"].inputs == {
        "images.image0": MOVIE.nodes["2"].inputs["images.image0"], "format": "gif", "format.poster": "a.png",
    }  # fmt: skip


def test_a_file_that_an_option_asks_for_is_a_file_of_the_job() -> None:
    gif = parse_graph({"2": {"class_type": "SaveMovie", "inputs": {"format": "gif", "format.poster": "b.png"}}})
    assert [(one.input_name, one.name) for one in file_inputs(gif, CATALOGUE)] == [("format.poster", "b.png")]
