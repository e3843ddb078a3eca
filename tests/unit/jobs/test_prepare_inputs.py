"""What an inputs file beside a workflow allows a job to set."""

from datetime import UTC, datetime

import pytest

from comfypin.jobs.prepare import RunRequest, prepare_job
from comfypin.lock.model import Lock
from comfypin.workflow.document import to_document
from comfypin.workflow.errors import OverrideInvalid
from comfypin.workflow.graph import InputValue
from comfypin.workflow.inputs_file import load_inputs_file
from comfypin.workflow.overrides import overrides_from_json
from tests.support.node_list import CATALOGUE

FILE = """
[inputs.size]
target = "1.width"
maximum = 64
required = true
[inputs.color]
target = "1.color"
default = 7
"""
WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


def canvas(values: dict[str, int | str], *, only_named: bool) -> dict[str, InputValue]:
    request = RunRequest(
        document=to_document(WORKFLOW, source="w"),
        job_id="j",
        submission_id="s",
        overrides=overrides_from_json(values),
        inputs_file=load_inputs_file(FILE, source="f"),
        only_named=only_named,
    )
    job = prepare_job(request, lock=Lock(version_name="r"), catalogue=CATALOGUE, now=datetime.now(UTC))
    return dict(job.graph.nodes["1"].inputs)


def test_named_inputs_are_set_beside_the_defaults_of_the_file() -> None:
    inputs = canvas({"size": 32}, only_named=True)
    assert (inputs["width"], inputs["color"]) == (32, 7)


@pytest.mark.parametrize("values", [{}, {"size": 65}, {"size": "65"}, {"size": 8, "1.height": 9}])
def test_what_the_file_does_not_allow_is_refused(values: dict[str, int | str]) -> None:
    with pytest.raises(OverrideInvalid):
        canvas(values, only_named=True)


def test_other_targets_stay_open_where_names_are_not_everything() -> None:
    assert canvas({"1.height": 9}, only_named=False)["height"] == 9


@pytest.mark.parametrize("target", ["size", "1.width"])
def test_limits_hold_by_name_and_by_node(target: str) -> None:
    with pytest.raises(OverrideInvalid, match="maximum is 64"):
        canvas({target: 65}, only_named=False)
