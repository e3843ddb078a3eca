"""What another engine's classes change for a workflow."""

import pytest

from comfypin.digest import JsonValue
from comfypin.workflow.class_changes import find_class_changes
from comfypin.workflow.graph import ApiGraph, ApiNode
from comfypin.workflow.object_info import to_catalogue

BEFORE: dict[str, JsonValue] = {
    "input": {
        "required": {"seed": ["INT", {"default": 0}], "sampler": [["euler", "heun"], {}], "size": ["INT", {}]},
        "optional": {"mask": ["MASK", {}]},
    },
    "output": ["IMAGE"],
}


def changes(after: JsonValue, **inputs: JsonValue) -> list[tuple[str, bool]]:
    node = ApiNode(id="1", class_type="Sampler", inputs={"seed": 1, "sampler": "heun", "size": 8, **inputs})
    graph = ApiGraph(nodes={"1": node})
    catalogue = to_catalogue({} if after is None else {"Sampler": after})
    found = find_class_changes(graph, to_catalogue({"Sampler": BEFORE}), catalogue)
    return [(change.detail, change.breaks) for change in found]


def after(**required: JsonValue) -> dict[str, JsonValue]:
    kept = {"seed": ["INT", {"default": 0}], "sampler": [["euler", "heun"], {}], "size": ["INT", {}]}
    wanted = {name: value for name, value in {**kept, **required}.items() if value is not None}
    return {"input": {"required": wanted, "optional": {"mask": ["MASK", {}]}}, "output": ["IMAGE"]}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("definition", "wanted"),
    [
        (after(), []),
        (None, [("the class is gone", True)]),
        (after(size=None), [("the input size is gone", True)]),
        (after(steps=["INT", {}]), [("the input steps (INT) is new and required", True)]),
        (after(seed=["FLOAT", {}]), [("the input seed is of the type FLOAT instead of INT", True)]),
        (after(sampler=[["euler", "dpm"], {}]), [("the choice 'heun' of sampler is gone", True)]),
        (after(seed=["INT", {"default": 7}]), [("the default of seed is 7 now; the workflow sets its own", False)]),
        ({**BEFORE, "output": ["LATENT"]}, [("its outputs are LATENT instead of IMAGE", True)]),
    ],
)
def test_what_changes_for_a_node_is_said(definition: JsonValue, wanted: list[tuple[str, bool]]) -> None:
    assert changes(definition) == wanted


def test_an_input_that_the_workflow_does_not_use_may_go() -> None:
    definition = {**BEFORE, "input": {"required": BEFORE["input"]["required"]}}  # type: ignore[call-overload,index]
    assert changes(definition) == []
    assert changes(definition, mask=["2", 0]) == [("the input mask is gone", False)]
