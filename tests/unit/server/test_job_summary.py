"""Jobs as lists show them."""

import pytest

from comfypin.digest import JsonValue
from comfypin.jobs.interface import JobState
from comfypin.queue.interface import JobRow
from comfypin.queue.job_description import JobDescription
from comfypin.server.job_summary import job_summary

PROGRESS: dict[str, JsonValue] = {"progress": 0.5, "nodes_total": 2, "current_node": "1"}


@pytest.mark.parametrize(("state", "is_told"), [("IN_QUEUE", False), ("IN_PROGRESS", True), ("COMPLETED", False)])
def test_only_a_job_that_runs_tells_its_progress(state: JobState, is_told: bool) -> None:
    row = JobRow(id="a", state=state, created_at=0.0)
    summary = job_summary(row, JobDescription(api="runpod"), None, progress=PROGRESS)
    assert (summary["progress"] is not None) == is_told
