"""The workflow of a job as ComfyUI's page opens it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

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
