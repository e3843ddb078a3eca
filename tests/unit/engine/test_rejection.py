"""Refusals, as recorded and as nobody should write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from comfypin.engine.rejection import parse_refusal
from comfypin.workflow.errors import NodeProblem, WorkflowRejected


def test_every_recorded_refusal_has_a_reason(http_recordings: Path) -> None:
    for file in (http_recordings).glob("prompt_err_*.json"):
        recording = json.loads(file.read_text())
        if recording["status"] == 400:
            refusal = parse_refusal(recording["body"])
            assert refusal is not None, file.name
            assert refusal.reason, file.name


def test_a_200_with_node_errors_is_a_refusal_that_names_the_dropped_outputs(http_recordings: Path) -> None:
    recording = json.loads((http_recordings / "prompt_err_j_one_good_one_bad_output_is_200.json").read_text())
    refusal = parse_refusal(recording["body"])
    assert refusal is not None
    assert refusal.outputs == ("9",)


def test_a_200_without_is_none(http_recordings: Path) -> None:
    assert parse_refusal(json.loads((http_recordings / "prompt_success.json").read_text())["body"]) is None


@pytest.mark.parametrize("body", [None, [], "x", {}, {"node_errors": []}, {"node_errors": {}}])
def test_what_is_no_refusal_is_none(body: Any) -> None:
    assert parse_refusal(body) is None


@pytest.mark.parametrize(
    "nodes", [{"1": None}, {"1": {"errors": None}}, {"1": {"errors": [1]}}, {"1": {"errors": [{}], "class_type": None}}]
)
def test_odd_node_errors_are_survived(nodes: Any) -> None:
    assert parse_refusal({"node_errors": nodes}) is not None


def test_an_error_that_is_a_sentence_is_the_reason() -> None:
    refusal = parse_refusal({"error": "no such thing"})
    assert refusal is not None
    assert refusal.reason == "no such thing"


@pytest.mark.parametrize(
    "config, allowed",
    [
        ([["a", "b"], {}], ("a", "b")),
        (["COMBO", {"options": ["a", "b"]}], ("a", "b")),
        (["IMAGE", {}], ("IMAGE",)),
        (None, None),
        ([], None),
    ],
)
def test_allowed_values_in_every_spelling(config: Any, allowed: Any) -> None:
    error = {"type": "value_not_in_list", "message": "m", "extra_info": {"input_config": config}}
    refusal = parse_refusal({"node_errors": {"1": {"errors": [error], "class_type": "X"}}})
    assert refusal is not None
    assert refusal.problems[0].allowed == allowed


def test_the_message_is_one_line_a_problem_with_received_and_allowed() -> None:
    problem = NodeProblem(
        node_id="3",
        class_type="ImageScale",
        problem="value_not_in_list",
        message="Value not in list",
        input_name="upscale_method",
        received="bogus",
        allowed=("area", "lanczos"),
    )
    text = str(WorkflowRejected(reason="Prompt outputs failed validation", problems=[problem]))
    assert text.splitlines()[1] == (
        "  - node 3 (ImageScale), input upscale_method: Value not in list; it got 'bogus'; allowed: area, lanczos"
    )


def test_a_range_is_told_as_one() -> None:
    problem = NodeProblem(
        node_id="1", class_type="X", problem="value_bigger_than_max", message="m", received=9, allowed=(1, 8)
    )
    assert str(problem).endswith("it got '9'; allowed: 1 to 8")


def test_a_long_list_of_names_is_cut() -> None:
    problem = NodeProblem(node_id="1", class_type="X", problem="p", message="m", allowed=tuple(range(500)))
    assert str(problem).endswith("11 and 488 more")


@pytest.mark.parametrize(
    "error",
    [
        {
            "type": "missing_node_type",
            "message": "Node 'My face' not found. The custom node may not be installed.",
            "details": "Node ID '#5'",
            "extra_info": {"node_id": "5", "class_type": "FaceFix", "node_title": "My face"},
        },
        {
            "type": "invalid_prompt",
            "message": "Cannot execute because node FaceFix does not exist.",
            "details": "Node ID '#5'",
            "extra_info": {},
        },
    ],
)
def test_a_missing_class_names_its_node_in_both_versions_words(error: Any) -> None:
    refusal = parse_refusal({"error": error, "node_errors": {}})
    assert refusal is not None
    [problem] = refusal.problems
    assert (problem.node_id, problem.class_type, problem.problem) == ("5", "FaceFix", "missing_node_type")


def test_a_node_without_a_class_is_named() -> None:
    error = {"type": "missing_node_type", "message": "Node 'ID #5' has no class_type.", "extra_info": {"node_id": "5"}}
    refusal = parse_refusal({"error": {**error, "details": "Node ID '#5'"}, "node_errors": {}})
    assert refusal is not None
    assert [(problem.node_id, problem.class_type) for problem in refusal.problems] == [("5", "unknown class")]
