"""The warm-up form of a workflow: small, short, free of charge, and with every model."""

from typing import Any

import pytest

from comfypin.workflow.graph import ApiLink
from comfypin.workflow.warmup_form import uses_api_nodes, warmup_form
from tests.support.graphs import graph, loaded, node

INT = ["INT", {"min": 1, "max": 16384}]
CATALOGUE: dict[str, Any] = {
    "CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [["a.safetensors"], {}]}}, "output": ["MODEL"]},
    "EmptyLatentImage": {
        "input": {"required": {"width": ["INT", {"min": 16, "step": 8}], "height": ["INT", {}], "batch_size": INT}},
        "output": ["LATENT"],
    },
    "StableCascade": {"input": {"required": {"width": ["INT", {"min": 256, "step": 8}]}}, "output": ["LATENT"]},
    "Video": {"input": {"required": {"length": ["INT", {"min": 5, "step": 4}]}}, "output": ["LATENT"]},
    "KSampler": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "latent_image": ["LATENT"],
                "steps": INT,
                "start_at_step": ["INT", {"min": 0}],
                "cfg": ["FLOAT", {}],
            }
        },
        "output": ["LATENT"],
    },
    "LoadImage": {
        "input": {"required": {"image": [["there.png"], {"image_upload": True}]}},
        "output": ["IMAGE", "MASK"],
    },
    "PaidPicture": {"input": {"required": {}}, "output": ["IMAGE"], "api_node": True},
    "SaveImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True},
}


def small(class_type: str, **inputs: Any) -> dict[str, Any]:
    form = warmup_form(graph(node("1", class_type, **inputs)), CATALOGUE)
    return dict(form.nodes["1"].inputs)


def test_pictures_get_the_smallest_side_that_models_take() -> None:
    assert small("EmptyLatentImage", width=1024, height=768, batch_size=4) == {
        "width": 64,
        "height": 64,
        "batch_size": 1,
    }


def test_a_class_that_takes_no_less_gets_its_least() -> None:
    assert small("StableCascade", width=1024) == {"width": 256}


def test_a_length_keeps_to_the_steps_of_its_class() -> None:
    assert small("Video", length=81) == {"length": 5}


def test_nothing_is_made_larger() -> None:
    assert small("EmptyLatentImage", width=32, height=16, batch_size=1)["width"] == 32


def test_one_step_is_taken_from_the_first_on_and_the_model_stays() -> None:
    form = warmup_form(
        graph(
            node("1", "CheckpointLoaderSimple", ckpt_name="a.safetensors"),
            node("2", "KSampler", model=ApiLink("1", 0), steps=30, start_at_step=20, cfg=7.5),
        ),
        CATALOGUE,
    )
    assert form.nodes["1"].inputs == {"ckpt_name": "a.safetensors"}
    assert form.nodes["2"].inputs == {"model": ApiLink("1", 0), "steps": 1, "start_at_step": 0, "cfg": 7.5}


def test_a_linked_value_stays_a_link() -> None:
    assert small("KSampler", steps=ApiLink("9", 0))["steps"] == ApiLink("9", 0)


def test_a_picture_that_nobody_sent_becomes_an_empty_one_with_a_mask() -> None:
    masked = graph(
        node("1", "LoadImage", image="here.png"),
        node("2", "SaveImage", images=ApiLink("1", 0)),
        node("3", "Masks", mask=ApiLink("1", 1)),
    )
    form = warmup_form(masked, CATALOGUE)
    assert form.nodes["1"].class_type == "EmptyImage"
    assert form.nodes["2"].inputs["images"] == ApiLink("1", 0)
    assert form.nodes["3"].inputs["mask"] == ApiLink("1-mask", 0)
    assert form.nodes["1-mask"].class_type == "SolidMask"


def test_a_picture_without_a_mask_needs_no_second_node() -> None:
    assert set(warmup_form(loaded(), CATALOGUE).nodes) == {"1", "2"}


def test_a_picture_that_the_engine_has_is_loaded() -> None:
    form = warmup_form(graph(node("1", "LoadImage", image="there.png")), CATALOGUE)
    assert form.nodes["1"].class_type == "LoadImage"


@pytest.mark.parametrize(("saved", "paid"), [("1", True), ("2", False)])
def test_only_what_an_output_needs_is_paid_for(saved: str, paid: bool) -> None:
    both = graph(
        node("1", "PaidPicture"),
        node("2", "LoadImage", image="there.png"),
        node("3", "SaveImage", images=ApiLink(saved, 0)),
    )
    assert uses_api_nodes(both, CATALOGUE) is paid
