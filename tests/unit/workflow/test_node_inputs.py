"""A class's inputs opened by what a node holds: dynamic combos, nested, and lists that grow."""

from typing import Any

from comfypin.workflow.graph import ApiLink
from comfypin.workflow.node_inputs import growing_list, open_inputs
from comfypin.workflow.object_info import input_specs


def combo(options: dict[str, dict[str, Any]], **more: Any) -> list[Any]:
    return ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": key, "inputs": ins} for key, ins in options.items()], **more}]


def growing(inner: list[Any], **template: Any) -> list[Any]:
    return ["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"item": inner}}, **template}}]


ENCODING = combo({"auto": {}, "re-encode": {"required": {"crf": ["FLOAT", {"default": 23.0}]}}})
CODEC = combo({"h264": {"optional": {"encoding": ENCODING}}, "av1": {"required": {}}})
SAVE = {
    "input": {
        "required": {
            "images": growing(["IMAGE"], prefix="image", min=2, max=4),
            "format": combo({"auto": {"required": {"codec": CODEC}}, "gif": {}}),
            "either": ["COMFY_MATCHTYPE_V3", {"template": {"template_id": "t", "allowed_types": "IMAGE,MASK"}}],
        }
    }
}


def test_a_chosen_option_brings_its_inputs_however_deep() -> None:
    values = {"format": "auto", "format.codec": "h264", "format.codec.encoding": "re-encode"}
    specs = open_inputs(SAVE, values).specs
    names = ["format", "format.codec", "format.codec.encoding", "format.codec.encoding.crf"]
    assert [name for name in specs if name.startswith("format")] == names
    assert specs["format.codec"].type == "COMBO"
    assert specs["format.codec"].opens
    assert specs["format.codec"].choices == ["h264", "av1"]


def test_an_absent_option_and_an_unknown_one_are_said() -> None:
    absent = open_inputs(SAVE, {}).problems
    assert [(one.code, one.spec.name) for one in absent] == [("option_missing", "format")]
    unknown = open_inputs(SAVE, {"format": "auto", "format.codec": "h265"}).problems
    assert [(one.code, one.value, one.known_options) for one in unknown] == [
        ("option_unknown", "h265", ["h264", "av1"])
    ]


def test_an_optional_combo_may_be_absent() -> None:
    assert open_inputs(SAVE, {"format": "auto", "format.codec": "h264"}).problems == ()


def test_a_wired_option_is_said() -> None:
    assert [one.code for one in open_inputs(SAVE, {"format": ApiLink("1", 0)}).problems] == ["option_wired"]


def test_a_growing_list_requires_its_first_items_and_has_those_that_the_node_has() -> None:
    specs = open_inputs(
        SAVE, {"format": "gif", "images.image0": ApiLink("1", 0), "images.image3": ApiLink("2", 0)}
    ).specs
    items = {name: spec.category for name, spec in specs.items() if name.startswith("images.")}
    assert items == {"images.image0": "required", "images.image1": "required", "images.image3": "optional"}


def test_a_growing_list_may_have_names() -> None:
    spec = input_specs({"input": {"required": {"v": growing(["INT"], names=["a", "b"], min=1)}}})["v"]
    grown = growing_list(spec)
    assert {name: item.category for name, item in grown.items.items()} == {"v.a": "required", "v.b": "optional"}


def test_what_no_option_brings_is_unexpected() -> None:
    values = {"format": "gif", "format.codec": "h264", "images.image9": ApiLink("1", 0), "other.x": 1}
    assert open_inputs(SAVE, values).unexpected == ("format.codec", "images.image9")


def test_a_socket_that_follows_its_wires_takes_all_the_types_it_allows() -> None:
    assert open_inputs(SAVE, {"format": "gif"}).specs["either"].type == "IMAGE,MASK"
