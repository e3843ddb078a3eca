"""What a job was asked for, as lists and searches show it."""

from typing import Any

import pytest

from comfypin.digest import JsonValue
from comfypin.queue.job_description import JobDescription, JobEnd, describe_end, describe_job


def described(job_input: object) -> JobDescription:
    return describe_job(job_input, api="runpod", release="demo")


def graph(text: str = "A Fox", seed: int = 1, steps: int = 20, **more: Any) -> dict[str, Any]:
    return {
        "workflow": {"3": {"class_type": "KSampler", "inputs": {"seed": seed, "steps": steps, "text": text}}},
        **more,
    }


def test_jobs_that_differ_in_seeds_and_prompts_have_one_shape() -> None:
    assert described(graph("a red fox", 5)).shape == described(graph("a blue hare in the snow", 2**60)).shape
    assert described(graph(steps=20)).shape != described(graph(steps=50)).shape


def test_a_graph_and_the_same_graph_with_its_extra_data_have_one_shape() -> None:
    plain = graph()["workflow"]
    assert described({"workflow": {"prompt": plain, "extra_data": {}}}).shape == described({"workflow": plain}).shape


def test_a_workflow_of_the_server_has_its_name() -> None:
    found = described({"workflow_name": "portrait", "set": {"6.text": "Ein Fuchs"}})
    assert (found.workflow, found.texts) == ("portrait", "ein fuchs")


def test_a_jobs_own_workflow_is_called_what_the_job_says() -> None:
    assert described(graph(title="Foxes")).workflow == "Foxes"
    assert described({"workflow_name": "portrait", "title": "Foxes"}).workflow == "portrait"
    assert [described(graph(title=title)).workflow for title in ("", None, 5)] == [None, None, None]


def test_texts_are_kept_in_lower_case_of_their_alphabet() -> None:
    assert "лиса в снегу" in described(graph("ЛИСА в снегу")).texts


@pytest.mark.parametrize("secret", ["sk-abcdefghijklmnop", "https://user:pw@host/x", "api_key: hunter2"])
def test_texts_of_a_graph_that_may_hold_a_secret_are_not_kept(secret: str) -> None:
    assert described(graph(secret)).texts == ""


def test_a_secret_beside_the_graph_does_not_hide_its_texts() -> None:
    assert "a fox" in described(graph(s3Config={"accessSecret": "hunter2"})).texts


@pytest.mark.parametrize("odd", [None, 5, "text", [], {"workflow": []}, {"workflow": "{}"}, {"workflow_name": 7}])
def test_whatever_was_sent_is_described(odd: object) -> None:
    assert described(odd).release == "demo"


def test_pictures_in_a_graph_are_no_texts() -> None:
    assert described(graph("x" * 50_000)).texts == "ksampler"


def test_an_end_counts_all_kinds_of_outputs() -> None:
    images: list[JsonValue] = [{}, {}, {"kind": "video"}]
    output: dict[str, JsonValue] = {"images": images, "videos": [{}], "texts": {"1": ["a"]}, "warnings": ["b"]}
    assert describe_end(output) == JobEnd(outputs=3, warnings=1)
    failed: dict[str, JsonValue] = {"error": "It broke.", "error_type": "NodeFailed"}
    assert describe_end(failed) == JobEnd(error_name="NodeFailed", error="It broke.")
    assert describe_end(None) == JobEnd()
