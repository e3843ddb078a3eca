"""Setting values: who is meant, and what the text becomes."""

import pytest

from comfypin.workflow.errors import OverrideInvalid
from comfypin.workflow.graph import ApiLink, InputValue
from comfypin.workflow.overrides import apply_overrides, overrides_from_json, parse_override
from comfypin.workflow.parse import parse_graph
from tests.support.node_list import CATALOGUE

GRAPH = parse_graph(
    {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
        "6": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["4", 0],
                "seed": 1,
                "cfg": 8.0,
                "sampler_name": "euler",
                "text": "x",
                "odd.name": 1,
                "any": None,
            },
            "_meta": {"title": "Main v1.5"},
        },
        "8": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "a"}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "b"}},
    }
)


def set_one(text: str, *, catalogue: bool = True) -> dict[str, InputValue]:
    changed = apply_overrides(
        GRAPH, [parse_override(text)], catalogue=CATALOGUE if catalogue else None, randint=lambda low, high: high
    )
    (node,) = [node for node in changed.nodes.values() if node != GRAPH.nodes[node.id]] or [GRAPH.nodes["6"]]
    return {name: value for name, value in node.inputs.items() if value != GRAPH.nodes[node.id].inputs.get(name)}


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("6.text=a cat", {"text": "a cat"}),
        ('6.text="a cat"', {"text": "a cat"}),
        ("6.text=12", {"text": "12"}),
        ("6.text=a = b", {"text": "a = b"}),
        ("6.text=", {"text": ""}),
        ("6.text=random", {"text": "random"}),
        ("Main v1.5.seed=3", {"seed": 3}),
        ("KSampler.seed=3", {"seed": 3}),
        ("KSampler.seed=random", {"seed": 1 << 50}),
        ("KSampler.cfg=7", {"cfg": 7}),
        ("KSampler.cfg=6.5", {"cfg": 6.5}),
        ("KSampler.sampler_name=ddim", {"sampler_name": "ddim"}),
        ("KSampler.add_noise=False", {"add_noise": False}),
        ("KSampler.odd.name=2.5", {"odd.name": 2.5}),
        ("KSampler.any=[1, 2]", {"any": {"__value__": [1, 2]}}),
    ],
)
def test_a_value_is_read_as_its_input_takes_it(text: str, changed: dict[str, object]) -> None:
    assert set_one(text) == changed


def test_without_a_node_list_the_present_value_tells_the_type() -> None:
    assert set_one("6.seed=random", catalogue=False) == {"seed": 1 << 50}
    assert set_one("6.text=5", catalogue=False) == {"text": "5"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed", "NODE.INPUT=VALUE"),
        ("seed=1", "name a node and its input"),
        ("SaveImage.filename_prefix=x", "means 2 nodes (8, 9)"),
        ("KSamplr.seed=1", "did you mean 'KSampler'"),
        ("77.seed=1", "it has 4 (CheckpointLoaderSimple)"),
        ("6.sed=1", "did you mean 'seed'"),
        ("6.seed=abc", "a whole number"),
        ("6.seed=1.5", "a whole number"),
        ("6.cfg=high", "a number"),
        ("6.add_noise=perhaps", "true or false"),
        ("6.model=abc", "from another node (4)"),
    ],
)
def test_what_cannot_be_set_says_why(text: str, words: str) -> None:
    with pytest.raises(OverrideInvalid) as caught:
        set_one(text)
    assert words in caught.value.message


def test_jobs_give_json_values() -> None:
    wanted = overrides_from_json({"6.text": "5", "6.seed": "random", "6.cfg": "3"})
    inputs = apply_overrides(GRAPH, wanted, catalogue=CATALOGUE, randint=lambda low, high: low).nodes["6"].inputs
    assert (inputs["text"], inputs["seed"], inputs["cfg"]) == ("5", 0, 3)


def test_an_object_is_no_text() -> None:
    with pytest.raises(OverrideInvalid, match="the input takes text"):
        apply_overrides(GRAPH, overrides_from_json({"6.text": {"a": 1}}), catalogue=CATALOGUE)


def test_a_link_can_be_set_where_the_input_takes_one() -> None:
    inputs = apply_overrides(GRAPH, overrides_from_json({"6.model": ["4", 0]}), catalogue=CATALOGUE).nodes["6"].inputs
    assert inputs["model"] == ApiLink("4", 0)


def test_names_of_a_workflow_are_targets() -> None:
    wanted = [parse_override("prompt=a dog")]
    assert apply_overrides(GRAPH, wanted, names={"prompt": ("6", "text")}).nodes["6"].inputs["text"] == "a dog"


MOVIE = parse_graph(
    {
        "1": {"class_type": "EmptyImage", "inputs": {}},
        "2": {
            "class_type": "SaveMovie",
            "inputs": {
                "images.image0": ["1", 0],
                "filename_prefix": "x",
                "format": "mp4",
                "format.codec": "h264",
                "format.codec.crf": 30,
                "format.fps": 12.5,
            },
        },
    }
)


def set_movie(*texts: str) -> dict[str, InputValue]:
    changed = apply_overrides(MOVIE, map(parse_override, texts), catalogue=CATALOGUE)
    return {name: value for name, value in changed.nodes["2"].inputs.items() if name.startswith("format")}


def test_an_input_of_the_chosen_option_can_be_set() -> None:
    assert set_movie("2.format.codec.crf=40", "SaveMovie.format.fps=30")["format.codec.crf"] == 40


def test_a_new_option_brings_its_inputs_with_their_defaults_and_drops_those_of_the_old_one() -> None:
    assert set_movie("2.format=webm") == {"format": "webm", "format.codec": "auto", "format.loop": True}


def test_an_option_in_other_letters_is_the_one_that_it_means() -> None:
    assert set_movie("2.format=WebM") == set_movie("2.format=webm")


def test_an_option_that_stays_keeps_what_is_under_it() -> None:
    assert set_movie("2.format=mp4") == {
        "format": "mp4", "format.codec": "h264", "format.codec.crf": 30, "format.fps": 12.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    "texts",
    [("2.format=webm", "2.format.loop=false"), ("2.format.loop=false", "2.format=webm")],
)
def test_an_input_of_a_newly_chosen_option_can_be_set_in_either_order(texts: tuple[str, str]) -> None:
    assert set_movie(*texts) == {"format": "webm", "format.codec": "auto", "format.loop": False}


def test_names_of_a_workflow_set_options_first_too() -> None:
    names = {"loops": ("2", "format.loop"), "kind": ("2", "format")}
    wished = overrides_from_json({"loops": False, "kind": "webm"})
    changed = apply_overrides(MOVIE, wished, catalogue=CATALOGUE, names=names)
    assert changed.nodes["2"].inputs["format.loop"] is False


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2.format=webp", "format has no option 'webp'; did you mean 'webm'"),
        ("2.format.loop=false", "it comes with format=webm"),
        ("2.images.image9=1", "no input 'images.image9'"),
        ("2.format.fps=fast", "takes a number"),
    ],
)
def test_what_an_option_does_not_have_is_refused(text: str, words: str) -> None:
    with pytest.raises(OverrideInvalid, match=words):
        set_movie(text)


def test_a_growing_list_can_be_given_a_further_link() -> None:
    changed = apply_overrides(MOVIE, overrides_from_json({"2.images.image1": ["1", 0]}), catalogue=CATALOGUE)
    assert changed.nodes["2"].inputs["images.image1"] == ApiLink("1", 0)
