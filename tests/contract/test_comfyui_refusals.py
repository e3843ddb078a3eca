"""What a ComfyUI says of a prompt that it refuses, and every client must survive."""

import json
from pathlib import Path

import pytest

from comfypin.workflow.errors import WorkflowRejected
from tests.support.fake_comfyui import Canned
from tests.support.graphs import a_prompt
from tests.support.scripted_comfyui import engine_at, until

MISSING = {
    "9": {
        "errors": [
            {
                "type": "required_input_missing",
                "message": "Required input is missing",
                "details": "images",
                "extra_info": {"input_name": "images"},
            }
        ],
        "dependent_outputs": ["9"],
        "class_type": "SaveImage",
    }
}


class TestA200WithNodeErrors:
    async def test_is_refused_and_names_the_outputs_that_would_have_been_dropped(self) -> None:
        async with engine_at(node_errors=MISSING) as (_, engine):
            with pytest.raises(WorkflowRejected, match="without the outputs of node 9") as caught:
                await engine.submit(a_prompt())
        assert caught.value.node_errors == {"9": "Required input is missing"}

    async def test_does_not_leave_the_other_branches_running(self) -> None:
        async with engine_at(node_errors=MISSING, held={"1"}) as (fake, engine):
            prompt = a_prompt()
            with pytest.raises(WorkflowRejected):
                await engine.submit(prompt)
            await until(lambda: fake.running is None)
            assert prompt.prompt_id in fake.interrupted or not fake.history


class TestA400:
    @pytest.mark.parametrize(
        "recording, expected",
        [
            ("prompt_err_b_missing_required", ("1", "EmptyImage", "color", None, None)),
            ("prompt_err_c2_value_too_big", ("1", "EmptyImage", "width", 99999, (1, 16384))),
            (
                "prompt_err_c4_value_not_in_list",
                (
                    "3",
                    "ImageScale",
                    "upscale_method",
                    "bogus",
                    ("nearest-exact", "bilinear", "area", "bicubic", "lanczos"),
                ),
            ),
            ("prompt_err_c5_type_mismatch_link", ("2", "SaveImage", "images", "MASK", ("IMAGE",))),
        ],
    )
    async def test_names_node_class_input_received_and_allowed(
        self, recording: str, expected: tuple[object, ...], http_recordings: Path
    ) -> None:
        body = json.loads((http_recordings / f"{recording}.json").read_text())["body"]
        async with engine_at() as (fake, engine):
            fake.say_next("POST /prompt", Canned(400, json.dumps(body).encode()))
            with pytest.raises(WorkflowRejected) as caught:
                await engine.submit(a_prompt())
        [problem] = caught.value.problems
        assert (
            problem.node_id,
            problem.class_type,
            problem.input_name,
            problem.received,
            problem.allowed,
        ) == expected

    @pytest.mark.parametrize(
        "recording, words",
        [
            ("prompt_err_a_unknown_class", "NoSuchNode"),
            ("prompt_err_f2_ui_format_workflow", "class_type"),
            ("prompt_err_d_empty_prompt", "no outputs"),
            ("prompt_err_h_cycle", "failed validation"),
            ("prompt_err_i_loadimage_missing_file", "nope.png"),
        ],
    )
    async def test_without_a_node_says_what_the_engine_said(
        self, recording: str, words: str, http_recordings: Path
    ) -> None:
        body = json.loads((http_recordings / f"{recording}.json").read_text())["body"]
        async with engine_at() as (fake, engine):
            fake.say_next("POST /prompt", Canned(400, json.dumps(body).encode()))
            with pytest.raises(WorkflowRejected, match=words):
                await engine.submit(a_prompt())
