"""What holds for any class and any subgraph: each saved value lands in the input that the page shows it in."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.dynamic_classes import newer_class, newer_inputs
from tests.support.ui_graphs import node, ui

OUTPUT = -20


@dataclass
class Shown:
    """A node as the page shows it: its class's inputs, what is saved in which order, what is shown where."""

    inputs: dict[str, Any] = field(default_factory=dict)
    saved: list[Any] = field(default_factory=list)
    shown: dict[str, Any] = field(default_factory=dict)


PLAIN = ("INT", "FLOAT", "STRING", "BOOLEAN", "CHOICE", "SEED", "BOX", "COLORS", "SEVERAL")
SOCKETS = ("IMAGE", "FORCED", "GROWING", "MATCHING")


def _value(draw: st.DrawFn, kind: str) -> Any:
    values: dict[str, st.SearchStrategy[Any]] = {
        "INT": st.integers(0, 1 << 40),
        "SEED": st.integers(0, 1 << 60),
        "FLOAT": st.floats(-9, 9),
        "SEVERAL": st.floats(-9, 9),
        "STRING": st.text(max_size=5),
        "BOOLEAN": st.booleans(),
        "CHOICE": st.sampled_from(["a", "b", "c"]),
        "BOX": st.fixed_dictionaries({side: st.integers(0, 9) for side in ("x", "y", "width", "height")}),
        "COLORS": st.lists(st.sampled_from(["#000000", "#ffffff"]), max_size=2),
    }
    return draw(values[kind])


def _definition(kind: str) -> list[Any]:
    item = {"required": {"item": ["IMAGE", {}]}}
    definitions: dict[str, list[Any]] = {
        "CHOICE": [["a", "b", "c"], {}],
        "SEED": ["INT", {"control_after_generate": True}],
        "BOX": ["BOUNDING_BOX", {"socketless": True}],
        "SEVERAL": ["FLOAT,INT", {"widgetType": "FLOAT"}],
        "FORCED": ["INT", {"forceInput": True}],
        "GROWING": ["COMFY_AUTOGROW_V3", {"template": {"input": item, "prefix": "item", "min": 1, "max": 5}}],
        "MATCHING": ["COMFY_MATCHTYPE_V3", {"template": {"template_id": "t", "allowed_types": "*"}}],
    }
    return definitions.get(kind, [kind, {}])


def _add(draw: st.DrawFn, into: Shown, inputs: dict[str, Any], prefix: str, depth: int) -> None:
    """Add inputs to a class or to an option, with their values saved and shown if the option is chosen."""
    kinds = draw(st.lists(st.sampled_from((*PLAIN, *SOCKETS, *(("COMBO",) * 3 if depth else ()))), max_size=5))
    for number, kind in enumerate(kinds):
        name = f"{prefix}{kind.lower()}{number}"
        own_name = name.rsplit(".", 1)[-1]
        if kind == "COMBO":
            _add_combo(draw, into, inputs, name, depth)
            continue
        inputs[own_name] = _definition(kind)
        if kind in SOCKETS:
            continue
        value = _value(draw, kind)
        into.shown[name] = {"__value__": value} if isinstance(value, list) else value
        into.saved.append(value)
        into.saved.extend(["fixed"] if kind == "SEED" else [1, 2, 3, 4] if kind == "BOX" else [])


def _add_combo(draw: st.DrawFn, into: Shown, inputs: dict[str, Any], name: str, depth: int) -> None:
    keys = draw(st.lists(st.sampled_from(["p", "q", "r"]), min_size=1, max_size=3, unique=True))
    chosen = draw(st.sampled_from(keys))
    into.shown[name] = chosen
    into.saved.append(chosen)
    options = []
    for key in keys:
        brought: dict[str, Any] = {}
        # What an option that is not chosen brings is neither saved nor shown.
        _add(draw, into if key == chosen else Shown(), brought, f"{name}.", depth - 1)
        options.append({"key": key, "inputs": {draw(st.sampled_from(["required", "optional"])): brought}})
    inputs[name.rsplit(".", 1)[-1]] = ["COMFY_DYNAMICCOMBO_V3", {"options": options}]


@st.composite
def nodes(draw: st.DrawFn) -> Shown:
    """A class with dynamic inputs, and one node of it as the page would save it."""
    shown = Shown()
    _add(draw, shown, shown.inputs, "", depth=2)
    return shown


@settings(max_examples=150)
@given(nodes())
def test_each_saved_value_lands_where_the_page_shows_it(made: Shown) -> None:
    sent = newer_inputs(ui([node(1, "Made", made.saved)]), "1", Made=newer_class(made.inputs))
    assert sent == made.shown


@settings(max_examples=100)
@given(nodes(), st.data())
def test_a_promoted_value_lands_in_the_widget_that_its_entry_names_and_no_other_moves(made: Shown, data: Any) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(made.shown)), unique=True) if made.shown else st.just([]))
    plain = [
        name for name in names if isinstance(made.shown[name], int | float) and not isinstance(made.shown[name], bool)
    ]
    values = [data.draw(st.none() | st.integers(100, 200)) for _ in plain]
    inside = {
        "id": "s",
        "name": "S",
        "nodes": [node(11, "Made", made.saved)],
        "links": [{"id": 1, "origin_id": 11, "origin_slot": 0, "target_id": OUTPUT, "target_slot": 0}],
        "inputs": [],
        "outputs": [{"name": "IMAGE", "type": "IMAGE", "linkIds": [1]}],
    }
    host = node(1, "s", values, properties={"proxyWidgets": [["11", name] for name in plain]})
    sent = newer_inputs(ui([host], definitions={"subgraphs": [inside]}), "1:11", Made=newer_class(made.inputs))
    expected = {name: value for name, value in zip(plain, values, strict=True) if value is not None}
    # A box that is promoted has no socket of its own; what is promoted here are numbers only.
    assert sent == {**made.shown, **expected}


@settings(max_examples=60)
@given(nodes(), st.lists(st.integers(0, 9) | st.text(max_size=3) | st.none(), max_size=12))
def test_whatever_is_saved_an_options_inputs_go_out_only_with_their_option(made: Shown, saved: list[Any]) -> None:
    sent = newer_inputs(ui([node(1, "Made", saved)]), "1", Made=newer_class(made.inputs))
    assert all(name.rpartition(".")[0] in sent for name in sent if "." in name)
