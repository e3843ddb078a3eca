"""What a job drew by itself is known afterwards, and nothing that may be a secret."""

import pytest

from comfypin.digest import JsonValue
from comfypin.jobs.own_values import find_own_values
from comfypin.workflow.convert.prompt_nodes import Seed
from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode
from comfypin.workflow.load import Workflow
from comfypin.workflow.overrides import overrides_from_json


def a_graph(**changes: JsonValue) -> ApiGraph:
    inputs = {"seed": 1, "steps": 20, "image": "a.png", "prompt": "a cat", "model": ApiLink("2", 0), **changes}
    return ApiGraph(nodes={"3": ApiNode(id="3", class_type="Draws", inputs=inputs)})


WORKFLOW = Workflow(
    source="in the job",
    graph=a_graph(),
    seeds=(Seed(node_id="3", input_name="seed", control="randomize", group="3.seed"),),
)


@pytest.mark.parametrize(
    ("changes", "asked", "values"),
    [
        ({}, {}, {}),
        ({"seed": 7}, {}, {"3.seed": 7}),
        ({"seed": 7, "steps": 9}, {"3.steps": 9}, {"3.seed": 7}),
        ({"seed": 7, "steps": 9}, {"3.steps": "random"}, {"3.seed": 7, "3.steps": 9}),
        ({"prompt": "a dog"}, {"3.prompt": "a dog"}, {}),
        ({"prompt": "random"}, {"3.prompt": "random"}, {}),
    ],
)
def test_seeds_and_random_numbers_are_told_and_what_was_asked_for_is_not(
    changes: dict[str, JsonValue], asked: dict[str, JsonValue], values: dict[str, JsonValue]
) -> None:
    assert find_own_values(WORKFLOW, a_graph(**changes), overrides_from_json(asked)) == values


def test_names_of_files_that_came_for_a_node_are_told() -> None:
    given = {("3", "image")}
    assert find_own_values(WORKFLOW, a_graph(image="b.png"), (), given=given) == {"3.image": "b.png"}


def test_none_is_told_if_one_may_be_a_secret() -> None:
    given = {("3", "image")}
    signed = "https://b.example/a.png?X-Amz-Signature=00"
    assert find_own_values(WORKFLOW, a_graph(seed=7, image=signed), (), given=given) == {}
