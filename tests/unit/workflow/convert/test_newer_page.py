"""The newer page's rules one by one: dynamic inputs, new widgets, wires, values of many kinds."""

from typing import Any

import pytest

from comfypin.workflow.convert.page_versions import PAGE_1_27, PAGE_1_49, choose_page_rules
from comfypin.workflow.errors import WorkflowInvalid
from tests.support.dynamic_classes import IMAGE, NEWER, growing, newer, newer_class, newer_inputs
from tests.support.ui_graphs import CLASSES, node, ui


def refusals(content: dict[str, Any], **classes: dict[str, Any]) -> list[tuple[object, object, object]]:
    with pytest.raises(WorkflowInvalid) as caught:
        newer(content, **classes)
    return [(one["code"], one.get("node"), one.get("input")) for one in caught.value.findings]


# Which rules are followed


def test_the_node_list_tells_the_page() -> None:
    assert choose_page_rules(NEWER) is PAGE_1_49
    assert choose_page_rules(CLASSES) is PAGE_1_27


@pytest.mark.parametrize(
    ("version", "name"), [("0.3.64", "1.27.10"), ("v0.3.10", "1.27.10"), ("0.3.65", "1.49.6"), ("0.33.0", "1.49.6")]
)
def test_an_engines_version_wins_over_its_node_list(version: str, name: str) -> None:
    assert choose_page_rules(CLASSES, version).name == name


# Dynamic inputs


def test_a_dynamic_combo_takes_one_value_and_its_option_its_own() -> None:
    values = ["out", "auto", "h264", 30, 5, "fixed", 0.5]
    assert newer_inputs(ui([node(1, "Save", values)]), "1") == {
        "name": "out",
        "format": "auto",
        "format.codec": "h264",
        "format.codec.crf": 30,
        "seed": 5,
        "last": 0.5,
    }


def test_an_options_values_end_where_the_option_ends() -> None:
    sent = newer_inputs(ui([node(1, "Save", ["out", "gif", 5, "fixed", 0.5])]), "1")
    assert sent == {"name": "out", "format": "gif", "seed": 5, "last": 0.5}


def test_a_null_option_is_the_first_one_with_its_defaults() -> None:
    sent = newer_inputs(ui([node(1, "Save", ["out", None, 5, "fixed", 0.5])]), "1")
    assert (sent["format"], sent["format.codec"], sent["format.codec.crf"]) == ("auto", "h264", 23)
    assert (sent["seed"], sent["last"]) == (5, 0.5)


def test_an_unknown_option_brings_nothing() -> None:
    sent = newer_inputs(ui([node(1, "Save", ["out", "mp9", 5, "fixed", 0.5])]), "1")
    assert sent == {"name": "out", "format": "mp9", "seed": 5, "last": 0.5}


def test_missing_values_of_an_option_are_its_defaults() -> None:
    sent = newer_inputs(ui([node(1, "Save", ["out", "auto"])]), "1")
    assert sent["format.codec.crf"] == 23


def test_an_options_socket_takes_a_wire_and_no_value() -> None:
    content = ui(
        [node(1, "EmptyImage"), node(2, "Save", ["o", "gif", 9, "fixed", 1.5], wires={"format.over": 1})],
        [[1, 1, 0, 2, 0, "IMAGE"]],
    )
    sent = newer_inputs(content, "2")
    assert (sent["format.over"], sent["seed"], sent["last"]) == (["1", 0], 9, 1.5)


def test_a_wire_to_an_input_that_the_option_lacks_is_dropped_with_a_warning() -> None:
    content = ui(
        [node(1, "EmptyImage"), node(2, "Save", ["o", "auto"], wires={"format.over": 1})], [[1, 1, 0, 2, 0, "IMAGE"]]
    )
    assert "format.over" not in newer_inputs(content, "2")
    assert [(one.code, one.input_name) for one in newer(content).warnings] == [("option_wire_dropped", "format.over")]


def test_a_growing_list_sends_what_is_wired_with_its_gaps_and_beyond_its_end() -> None:
    wires = {"images.image0": 1, "images.image2": 2, "images.image9": 3}
    content = ui(
        [node(1, "EmptyImage"), node(2, "Save", ["o", "gif"], wires=wires)],
        [[number, 1, 0, 2, number, "IMAGE"] for number in (1, 2, 3)],
    )
    sent = newer_inputs(content, "2")
    assert {name for name in sent if name.startswith("images.")} == set(wires)


def test_an_input_of_several_types_has_a_widget_if_it_says_so() -> None:
    assert newer_inputs(ui([node(1, "Several", [97, 25, 3])]), "1") == {"frames": 97, "rate": 25, "batch": 3}


def test_an_input_of_several_plain_types_has_a_widget_if_the_file_draws_one() -> None:
    older = newer_class({"frames": ["INT", {}], "rate": ["FLOAT,INT", {}], "batch": ["INT", {}]}, core=False)
    drawn = [{"name": "rate", "type": "FLOAT,INT", "link": None, "widget": {"name": "rate"}}]
    content = ui([{**node(1, "Older", [97, 25, 3]), "inputs": drawn}])
    assert newer_inputs(content, "1", Older=older) == {"frames": 97, "rate": 25, "batch": 3}
    assert newer_inputs(ui([node(1, "Older", [97, 3])]), "1", Older=older) == {"frames": 97, "batch": 3}


def test_a_socket_that_the_file_draws_with_a_widget_is_a_socket_if_some_class_gives_its_type() -> None:
    odd = newer_class({"image": IMAGE, "count": ["INT", {}]}, core=False)
    drawn = [{"name": "image", "type": "IMAGE", "link": None, "widget": {"name": "image"}}]
    content = ui([{**node(1, "Odd", [3]), "inputs": drawn}])
    assert newer_inputs(content, "1", Odd=odd) == {"count": 3}


def test_a_bypassed_switch_passes_the_input_in_its_outputs_place() -> None:
    content = ui(
        [
            node(1, "EmptyImage"),
            node(2, "Switch", [True], wires={"on_false": 1}, mode=4),
            node(3, "SaveImage", ["x"], wires={"images": 2}),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    )
    assert newer_inputs(content, "3")["images"] == ["1", 0]


def test_a_primitive_that_chooses_another_option_brings_its_inputs() -> None:
    content = ui(
        [
            node(1, "PrimitiveNode", ["gif", "fixed", ""]),
            node(2, "Save", ["o", "auto", "h264", 30, 5, "fixed", 0.5], wires={"format": 1}),
        ],
        [[1, 1, 0, 2, 0, "COMBO"]],
    )
    assert newer_inputs(content, "2") == {"name": "o", "format": "gif", "seed": 5, "last": 0.5}


# Widgets


def test_a_box_is_followed_by_four_numbers_that_do_not_go_out() -> None:
    box = {"x": 1, "y": 2, "width": 3, "height": 4}
    assert newer_inputs(ui([node(1, "Crop", [box, 1, 2, 3, 4, 99])]), "1") == {"box": box, "after": 99}


def test_a_control_that_starts_as_a_text_takes_a_value() -> None:
    assert newer_inputs(ui([node(1, "Whole", [5, "randomize"])]), "1") == {"value": 5}
    assert [seed.control for seed in newer(ui([node(1, "Whole", [5])])).seeds] == ["fixed"]


def test_a_curve_that_is_a_list_says_what_it_is() -> None:
    sent = newer_inputs(ui([node(1, "Curves", [[[0, 0], [1, 1]]])]), "1")
    assert sent == {"curve": {"__type__": "CURVE", "__value__": [[0, 0], [1, 1]]}}


def test_a_custom_combo_sends_its_options_and_the_place_of_its_choice() -> None:
    sent = newer_inputs(ui([node(1, "CustomCombo", ["b", 0, "a", "b", ""])]), "1")
    assert sent == {"choice": "b", "index": 1, "option1": "a", "option2": "b", "option3": ""}
    assert newer_inputs(ui([node(1, "CustomCombo", ["z", 0, "a"])]), "1")["index"] == -1


def test_what_is_no_text_in_a_text_of_several_lines_becomes_one() -> None:
    texts = [newer_inputs(ui([node(1, "Prompt", [value])]), "1")["text"] for value in (7, True, None, [1, 2])]
    assert texts == ["7", "true", "", "1,2"]
    assert newer_inputs(ui([node(1, "Save", [5])]), "1")["name"] == 5


def test_a_null_choice_is_the_first_one() -> None:
    assert newer_inputs(ui([node(1, "ImageBlend", [0.5, None])]), "1")["mode"] == "a"


def test_values_saved_as_an_object_are_read_by_name() -> None:
    saved = {"format": "auto", "format.codec.crf": 40, "last": 2.5}
    sent = newer_inputs(ui([{"id": 1, "type": "Save", "widgets_values": saved}]), "1")
    assert (sent["format.codec.crf"], sent["last"], sent["seed"]) == (40, 2.5, 7)


@pytest.mark.parametrize("kind", ["COMFY_DYNAMICGROUP_V3", "HOLOGRAM"])
def test_a_widget_of_an_unknown_type_is_refused_by_name_and_not_guessed(kind: str) -> None:
    odd = newer_class({"image": IMAGE, "odd": [kind, {"socketless": True}], "count": ["INT", {}]})
    assert refusals(ui([node(1, "Odd", ["?", 3])]), Odd=odd) == [("widget_unknown", "1", "odd")]


def test_a_packs_own_widget_is_told_by_values_that_are_too_many_for_the_class() -> None:
    odd = newer_class({"image": IMAGE, "odd": ["HOLOGRAM", {}], "count": ["INT", {}]}, core=False)
    assert refusals(ui([node(1, "Odd", ["?", 3])]), Odd=odd) == [("widget_unknown", "1", "odd")]
    socket = node(1, "Odd", [3])
    assert newer_inputs(ui([socket]), "1", Odd=odd) == {"count": 3}


# Wires


def blend(rows: list[list[Any]], wires: dict[str, Any]) -> dict[str, Any]:
    nodes = [*(node(number, "EmptyImage") for number in (1, 2, 3)), node(9, "ImageBlend", [0.5, "a"], wires=wires)]
    sent = newer_inputs(ui(nodes, rows), "9")
    return {name: value for name, value in sent.items() if isinstance(value, list)}


def test_an_open_input_is_connected_by_the_first_row_that_leads_to_it() -> None:
    rows = [[1, 1, 0, 9, 0, "IMAGE"], [2, 2, 0, 9, 0, "IMAGE"], [3, 3, 0, 9, 1, "IMAGE"]]
    assert blend(rows, {}) == {"image1": ["1", 0], "image2": ["3", 0]}


def test_an_input_that_names_a_row_wins_over_the_rows_slot() -> None:
    rows = [[1, 1, 0, 9, 1, "IMAGE"], [2, 2, 0, 9, 0, "IMAGE"]]
    assert blend(rows, {"image1": 1, "image2": 2}) == {"image1": ["1", 0], "image2": ["2", 0]}


def test_a_row_beyond_the_inputs_or_of_another_type_connects_nothing() -> None:
    assert blend([[1, 1, 0, 9, 7, "IMAGE"], [2, 2, 0, 9, 2, "IMAGE"]], {}) == {}


def test_slots_may_be_texts() -> None:
    assert blend([[1, 1, "0", 9, "0", "IMAGE"]], {"image1": 1}) == {"image1": ["1", 0]}


def test_a_wire_that_the_file_lacks_is_taken_as_open_with_a_warning() -> None:
    content = ui([node(9, "ImageBlend", [0.5, "a"], wires={"image1": 5})])
    assert "image1" not in newer_inputs(content, "9")
    assert [(one.code, one.node_id) for one in newer(content).warnings] == [("link_lost", "9")]


def test_a_wire_that_two_inputs_name_counts_for_both_and_is_said() -> None:
    nodes = [node(1, "EmptyImage"), *(node(number, "ImageInvert", wires={"image": 1}) for number in (2, 3))]
    content = ui(nodes, [[1, 1, 0, 2, 0, "IMAGE"]])
    assert newer_inputs(content, "3")["image"] == ["1", 0]
    assert [(one.code, one.node_id) for one in newer(content).warnings] == [("link_disputed", "3")]


def test_a_prefix_that_is_null_is_refused_as_by_the_page() -> None:
    assert refusals(ui([node(1, "SaveImage", [None])])) == [("text_missing", "1", "filename_prefix")]


def test_a_muted_source_is_as_if_it_were_not_wired() -> None:
    content = ui(
        [node(1, "Whole", [5], mode=2), node(2, "EmptyImage", [8, 8, 1, 0], wires={"width": 1})],
        [[1, 1, 0, 2, 0, "INT"]],
    )
    assert newer_inputs(content, "2")["width"] == 8


def test_list_links_need_the_version_that_has_them() -> None:
    content = {**ui([node(1, "EmptyImage")], [[1, 1, 0, 2, 0, "IMAGE"]]), "version": None}
    assert refusals(content) == [("links_unreadable", None, None)]


def test_growing_lists_within_an_option_keep_all_their_wires() -> None:
    model = [
        "COMFY_DYNAMICCOMBO_V3",
        {"options": [{"key": "pro", "inputs": {"required": {"images": growing(most=9)}}}]},
    ]
    wires = {f"model.images.image{number}": number + 1 for number in range(5)}
    nodes = [*(node(number, "EmptyImage") for number in range(1, 6)), node(9, "Api", ["pro"], wires=wires)]
    rows = [[number, number, 0, 9, number - 1, "IMAGE"] for number in range(1, 6)]
    sent = newer_inputs(ui(nodes, rows), "9", Api=newer_class({"model": model}))
    assert sent == {"model": "pro", **{name: [str(number), 0] for name, number in wires.items()}}


def primitive_into_save(option: str, saved: list[Any], **wires: int) -> dict[str, Any]:
    """A PrimitiveNode that chooses the option of a dynamic combo."""
    target = node(2, "Save", saved, wires={"format": 1, **wires})
    nodes = [node(1, "PrimitiveNode", [option, "fixed"]), target, node(3, "Whole", [5, "fixed"])]
    return ui(nodes, [[1, 1, 0, 2, 0, "COMBO"], [2, 3, 0, 2, 1, "INT"]])


def test_an_option_that_a_primitive_chooses_brings_its_inputs() -> None:
    sent = newer_inputs(primitive_into_save("auto", ["o", "gif", 9, "fixed", 0.5]), "2")
    assert (sent["format"], sent["format.codec"], sent["format.codec.crf"]) == ("auto", "h264", 23)
    assert (sent["name"], sent["seed"], sent["last"]) == ("o", 9, 0.5)


def test_an_option_that_a_primitive_replaces_takes_its_inputs_and_wires_along() -> None:
    content = primitive_into_save("gif", ["o", "auto", "h264", 30, 9, "fixed", 0.5], **{"format.codec.crf": 2})
    sent = newer_inputs(content, "2")
    assert sent["format"] == "gif"
    assert not [name for name in sent if name.startswith("format.")]
    assert (sent["seed"], sent["last"]) == (9, 0.5)


def test_a_primitive_that_chooses_the_saved_option_leaves_its_inputs() -> None:
    sent = newer_inputs(primitive_into_save("auto", ["o", "auto", "h264", 30]), "2")
    assert sent["format.codec.crf"] == 30
