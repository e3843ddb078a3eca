"""The workflow of a job as ComfyUI's page opens it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfypin.queue.interface import JobRow
from comfypin.queue.job_changes import job_accepted, job_ended
from tests.support.comfy_api import LocalApi, local_api
from tests.support.ui_graphs import node, ui
from tests.support.workflows import picture


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalApi]:
    with local_api(tmp_path) as one:
        yield one


def taken(local: LocalApi, **job_input: object) -> str:
    return str(local.client.post("/run", json={"input": job_input}).json()["id"])


def test_a_graph_is_given_as_it_was_sent(local: LocalApi) -> None:
    graph = picture(1)
    answer = local.client.get(f"/jobs/{taken(local, workflow={'prompt': graph})}/workflow")
    assert (answer.status_code, answer.json()) == (200, graph)
    assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''workflow-")


def test_what_the_job_set_is_in_it(local: LocalApi) -> None:
    job_id = taken(local, workflow=picture(1), set={"2.filename_prefix": "fox"})
    graph = local.client.get(f"/jobs/{job_id}/workflow").json()
    assert graph["2"]["inputs"]["filename_prefix"] == "fox"


def test_a_file_of_the_page_keeps_its_layout_with_what_the_job_set(local: LocalApi) -> None:
    links = [[1, 1, 0, 2, 0, "IMAGE"]]
    save_node = node(2, "SaveImage", ["out"], wires={"images": 1}, pos=[400, 50])
    saved = ui([node(1, "EmptyImage", [64, 64, 1, 0]), save_node], links)
    job_id = taken(local, workflow=saved, set={"1.width": 32})
    opened = local.client.get(f"/jobs/{job_id}/workflow").json()
    assert [one["widgets_values"] for one in opened["nodes"]] == [[32, 64, 1, 0], ["out"]]
    assert opened["nodes"][1] == saved["nodes"][1]


def test_that_of_a_job_with_secrets_is_not_kept(local: LocalApi) -> None:
    job_id = taken(local, workflow=picture(1), comfy_org_api_key="comfyui-0123456789abcdef")
    answer = local.client.get(f"/jobs/{job_id}/workflow")
    assert (answer.status_code, "secrets" in answer.json()["error"]) == (404, True)
    assert local.client.get("/jobs/nobody/workflow").status_code == 404


def ended(local: LocalApi, job_input: object, result: object) -> str:
    row = JobRow(id="ran", state="IN_QUEUE", created_at=1.0)
    end = job_ended("ran", "COMPLETED", 2.0, output=json.dumps(result), error=None)
    local.run(local.store.write_changes, job_accepted(row, job_input), end)
    return "ran"


def of_both_apis(local: LocalApi, job_id: str) -> list[Any]:
    """The workflow as ComfyUI's page opens it, and as Comfy API v2 gives it."""
    own, comfy = (local.client.get(f"{prefix}/jobs/{job_id}/workflow") for prefix in ("", "/api/v2"))
    assert (own.status_code, comfy.status_code) == (200, 200), (own.text, comfy.text)
    return [own.json(), comfy.json()["workflow"]]


def test_what_was_drawn_for_the_job_is_in_it(local: LocalApi) -> None:
    asked = {"2.filename_prefix": "fox", "1.color": "random"}
    job_id = ended(local, {"workflow": picture(1), "set": asked}, {"values": {"1.color": 77}})
    for graph in of_both_apis(local, job_id):
        assert (graph["1"]["inputs"]["color"], graph["2"]["inputs"]["filename_prefix"]) == (77, "fox")


def test_what_is_not_drawn_yet_stays_the_workflow_s_own(local: LocalApi) -> None:
    job_id = taken(local, workflow=picture(5), set={"1.color": "random", "2.filename_prefix": "random", "1.width": 32})
    for graph in of_both_apis(local, job_id):
        assert graph["1"]["inputs"] == {**picture(5)["1"]["inputs"], "width": 32}
        assert graph["2"]["inputs"]["filename_prefix"] == "random"


def test_a_file_of_the_page_holds_what_was_drawn(local: LocalApi) -> None:
    nodes = [node(1, "EmptyImage", [64, 64, 1, 0]), node(2, "SaveImage", ["out"], wires={"images": 1})]
    saved = ui(nodes, [[1, 1, 0, 2, 0, "IMAGE"]])
    job_id = ended(local, {"workflow": saved, "set": {"1.width": 32}}, {"values": {"1.color": 77}})
    for opened in of_both_apis(local, job_id):
        assert [one["widgets_values"] for one in opened["nodes"]] == [[32, 64, 1, 77], ["out"]]


@pytest.mark.parametrize("values", [None, [], {"1.gone": 5}, {"7.seed": 5}, {"": ""}])
def test_values_that_do_not_fit_leave_the_workflow_as_it_was_sent(local: LocalApi, values: object) -> None:
    job_id = ended(local, {"workflow": picture(1)}, {"values": values})
    assert of_both_apis(local, job_id) == [picture(1)] * 2


def test_that_of_a_job_with_secrets_is_not_told_by_either_api(local: LocalApi) -> None:
    body = {"prompt": picture(1), "extra_data": {"api_key_comfy_org": "comfyui-0123456789abcdef"}}
    job_id = taken(local, workflow=body)
    for prefix in ("", "/api/v2"):
        answer = local.client.get(f"{prefix}/jobs/{job_id}/workflow")
        assert answer.status_code == 404
        assert "comfyui-0123" not in answer.text
