"""Why a job failed, as one job shows it."""

import pytest

from comfypin.engine.errors import EngineCrashed, NodeFailed
from comfypin.jobs.result_json import failure_to_json
from comfypin.server.job_errors import error_details
from comfypin.workflow.errors import WorkflowInvalid
from comfypin.workflow.findings import WorkflowFinding, raise_if_errors


def test_an_engine_that_died_shows_the_end_of_its_log() -> None:
    details = error_details(failure_to_json(EngineCrashed(reason="signal 9", log_tail=("loading", "Killed"))))
    assert (details["family"], details["log"]) == ("engine", ["loading", "Killed"])
    assert "retry" in str(details["remedy"])


@pytest.mark.parametrize(
    ("message", "remedy"),
    [("CUDA out of memory. Tried to allocate", "smaller picture"), ("bad shape", "inputs of the")],
)
def test_a_node_that_failed_is_named_with_what_to_do_and_its_frames(message: str, remedy: str) -> None:
    failure = NodeFailed(
        node_id="3",
        class_type="KSampler",
        exception_type="RuntimeError",
        message=message,
        traceback=('  File "nodes.py", line 1, in sample\n',),
    )
    details = error_details(failure_to_json(failure))
    assert (details["node_id"], details["class_type"]) == ("3", "KSampler")
    assert remedy in str(details["remedy"])
    assert any("nodes.py" in str(line) for line in details["log"] or ())  # type: ignore[union-attr]


def test_a_result_that_says_little_has_all_fields() -> None:
    assert error_details({"error": "it failed"}) == {
        "family": "internal",
        "remedy": "Retry the job; if it fails again, the server's log has more.",
        "remedy_name": "other",
        "node_id": None,
        "class_type": None,
        "findings": [],
        "log": [],
    }


def test_what_a_workflow_lacks_is_told_with_codes_that_pages_translate() -> None:
    missing = WorkflowFinding(code="class_unknown", message="no such class", node_id="1", class_type="KSampler")
    engine = WorkflowFinding(code="engine_without_models", message="this workflow needs a real ComfyUI")
    assert [finding["code"] for finding in _findings_of(missing)] == ["class_unknown"]
    assert [finding["code"] for finding in _findings_of(engine, missing)] == ["engine_without_models"]


def _findings_of(*findings: WorkflowFinding) -> list[dict[str, str]]:
    with pytest.raises(WorkflowInvalid) as caught:
        raise_if_errors("in the job", findings)
    return error_details(failure_to_json(caught.value))["findings"]  # type: ignore[return-value]
