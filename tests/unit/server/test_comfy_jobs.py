"""Jobs of Comfy API v2: checked before they are taken, each key for one, seen as the description says."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from comfypin.jobs.interface import JobOutcome, ProgressCallback, ignore_progress
from comfypin.queue.interface import JobRow
from comfypin.queue.job_changes import job_accepted, job_ended, job_started
from comfypin.server.comfy_api.lent_keys import LentKeys
from tests.support.comfy_api import LocalApi, SetClock, local_api
from tests.support.workflows import load, picture


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalApi]:
    with local_api(tmp_path) as one:
        yield one


def post(local: LocalApi, body: object, *, key: str | None = None, status: int = 201) -> dict[str, Any]:
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = local.client.post("/api/v2/jobs", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def code(local: LocalApi, body: object, **more: Any) -> str:
    return str(post(local, body, status=422, **more)["error"]["code"])


def reference(asset: Mapping[str, object]) -> dict[str, Any]:
    return {"__type": "core/ASSET", "info": {"id": asset["id"], "file_path": "elsewhere.png"}}


def loading(value: object) -> dict[str, Any]:
    graph = load("?")
    graph["1"]["inputs"]["image"] = value
    return {"workflow": graph}


def get(local: LocalApi, path: str) -> Any:
    answer = local.client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_job_that_was_taken_waits_at_its_place(local: LocalApi) -> None:
    first, second = (post(local, {"workflow": picture(color)}) for color in (1, 2))
    assert (first["status"], first["queue_position"]) == ("queued", 1)
    assert get(local, second["urls"]["self"])["queue_position"] == 2
    assert first["metrics"] == {"queue_ms": None, "execution_ms": None}
    assert (first["outputs"], first["error"], first["progress"]) == ([], None, None)


def test_it_is_a_job_of_the_other_api_too(local: LocalApi) -> None:
    job = post(local, {"workflow": picture(1)})
    assert get(local, f"/status/{job['id']}")["status"] == "IN_QUEUE"
    taken = local.client.post("/run", json={"input": {"workflow": picture(2)}}).json()["id"]
    assert get(local, f"/api/v2/jobs/{taken}")["status"] == "queued"
    assert get(local, f"/api/v2/jobs/{taken}/workflow") == {"workflow": picture(2), "format": "api"}


def test_a_waiting_job_is_canceled_and_stays_so(local: LocalApi) -> None:
    job = post(local, {"workflow": picture(1)})
    for _ in range(2):
        shown = local.client.post(job["urls"]["cancel"]).json()
        assert (shown["status"], shown["queue_position"]) == ("canceled", None)


def test_a_job_brings_the_files_of_its_assets_under_their_names(local: LocalApi) -> None:
    asset = local.upload(b"bytes", file_path="pictures/cat.png")
    twin = local.upload(b"other", file_path="cat.png")
    graph = {**loading(reference(asset))["workflow"]}
    graph["3"] = {"class_type": "LoadImage", "inputs": {"image": reference(twin)}}
    graph["4"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "b"}}
    job = post(local, {"workflow": graph})
    document = local.run(local.api.queue.read_input, job["id"])
    assert isinstance(document, dict)
    names = {item["asset"]: item["name"] for item in document["inputs"]}
    assert names == {asset["hash"]: "cat.png", twin["hash"]: f"{twin['id']}.png"}
    assert document["workflow"]["1"]["inputs"]["image"] == "cat.png"
    assert get(local, f"{job['urls']['self']}/workflow")["workflow"] == graph
    assert local.client.delete(f"/api/v2/assets/{asset['id']}").status_code == 409


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([], "invalid_request"),
        ({}, "invalid_workflow"),
        ({"workflow": {}}, "invalid_workflow"),
        ({"workflow": {"prompt": picture(1)}}, "invalid_workflow"),
        ({"workflow": {"1": 5}}, "invalid_workflow"),
        ({"workflow": {"1": {"class_type": "None", "inputs": {}}}}, "invalid_workflow"),
        ({"workflow": {"nodes": [], "links": []}}, "workflow_format_ui"),
        ({"workflow": picture(1), "webhook_url": "https://example.com"}, "invalid_request"),
        ({"workflow": picture(1), "inputs": {}}, "invalid_request"),
        ({"workflow": picture(1), "extra_data": {"other": 1}}, "invalid_request"),
        ({"workflow": picture(1), "extra_data": {"api_key_comfy_org": 1}}, "invalid_request"),
        ({"workflow": picture(1), "metadata": {"a": 1}}, "metadata_invalid"),
        ({"workflow": picture(1), "metadata": {str(n): "" for n in range(17)}}, "metadata_invalid"),
        (loading({"__type": "core/ASSET", "info": {"id": "none"}}), "missing_asset"),
        (loading({"__type": "core/ASSET", "info": {}}), "missing_asset"),
        (loading({"__type": "core/ASSET"}), "missing_asset"),
        (loading([{"__type": "core/ASSET", "info": {"id": "x"}}]), "missing_asset"),
    ],
)
def test_what_cannot_run_is_refused_by_its_code_and_releases_its_key(
    body: object, expected: str, local: LocalApi
) -> None:
    assert code(local, body, key="k") == expected
    post(local, {"workflow": picture(1)}, key="k")


def test_half_a_character_names_no_asset(local: LocalApi) -> None:
    body = json.dumps(loading({"__type": "core/ASSET", "info": {"id": "\ud800"}}))
    answer = local.client.post("/api/v2/jobs", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "missing_asset")


def test_an_asset_stands_only_where_a_file_is_loaded(local: LocalApi) -> None:
    graph = picture(1)
    graph["2"]["inputs"]["filename_prefix"] = reference(local.upload(b"x"))
    assert code(local, {"workflow": graph}) == "invalid_workflow"


def test_a_key_is_refused_again_whatever_comes_under_it_and_whoever_serves(tmp_path: Path) -> None:
    clock = SetClock()
    with local_api(tmp_path, clock) as local:
        post(local, {"workflow": picture(1)}, key="k")
        assert code(local, {"workflow": picture(2)}, key="k") == "idempotency_key_reuse"
        assert code(local, {"workflow": {}}, key="k") == "idempotency_key_reuse"
    with local_api(tmp_path, clock) as local:
        assert code(local, {"workflow": picture(1)}, key="k") == "idempotency_key_reuse"
        clock.now += 86_401
        post(local, {"workflow": picture(1)}, key="k")


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_a_key_that_is_none_is_refused(key: str, local: LocalApi) -> None:
    assert code(local, {"workflow": picture(1)}, key=key) == "invalid_request"


def test_a_full_queue_and_an_engine_that_starts_say_when_to_come_again(tmp_path: Path) -> None:
    with local_api(tmp_path / "full", waiting=1) as local:
        post(local, {"workflow": picture(1)})
        answer = local.client.post("/api/v2/jobs", json={"workflow": picture(1)}, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) > 0
        local.client.post("/purge-queue")
        post(local, {"workflow": picture(1)}, key="k")
    with local_api(tmp_path / "starting", ready=False) as local:
        answer = local.client.post("/api/v2/jobs", json={"workflow": picture(1)})
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "deployment_not_ready")
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("ran", "ttl_s", "status", "error"),
    [
        (False, None, "expired", "expired"),
        (True, 5.0, "expired", "expired"),
        (True, None, "failed", "execution_timeout"),
    ],
)
def test_a_job_that_waited_too_long_has_expired(
    ran: bool, ttl_s: float | None, status: str, error: str, local: LocalApi
) -> None:
    row = JobRow(id="late", state="IN_QUEUE", created_at=local.clock.now, ttl_s=ttl_s)
    late = job_ended("late", "TIMED_OUT", local.clock.now + 10, output='{"error": "too late"}', error="too late")
    changes = (job_accepted(row, {}), *([job_started("late", local.clock.now + 1)] if ran else []), late)
    local.run(local.store.write_changes, *changes)
    shown = get(local, "/api/v2/jobs/late")
    assert (shown["status"], shown["error"]["code"]) == (status, error)


def test_an_output_in_a_bucket_leads_to_its_address(local: LocalApi) -> None:
    entry = {"filename": "a.png", "node": "9", "kind": "image", "media_type": "image/png", "size_bytes": 5}
    address = {"type": "s3_url", "uri": "s3://b/a.png", "url": "https://b.example/a.png?signed"}
    lost = {"type": "s3_url", "uri": "s3://b/b.png", "url": "s3://b/b.png"}
    escaped = {"type": "file", "uri": "/etc/hostname"}
    output = json.dumps({"images": [{**entry, **where} for where in (address, lost, escaped)]})
    row = JobRow(id="sent", state="IN_QUEUE", created_at=local.clock.now)
    done = job_ended("sent", "COMPLETED", local.clock.now, output=output, error=None)
    local.run(local.store.write_changes, job_accepted(row, {}), done)
    (shown,) = get(local, "/api/v2/jobs/sent")["outputs"]
    assert (shown["hash"], shown["size_bytes"], shown["node_id"]) == (None, 5, "9")
    answer = local.client.get(shown["url"], follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (302, address["url"])
    assert get(local, f"/api/v2/assets/{shown['id']}")["hash"] is None


def test_jobs_are_listed_newest_first_in_pages(local: LocalApi) -> None:
    ids = [post(local, {"workflow": picture(1), "metadata": {"n": str(n % 2)}})["id"] for n in range(5)]
    first = get(local, "/api/v2/jobs?limit=3")
    second = get(local, f"/api/v2/jobs?limit=3&cursor={first['next_cursor']}")
    assert [one["id"] for one in (*first["jobs"], *second["jobs"])] == ids[::-1]
    assert "next_cursor" not in second
    assert [one["id"] for one in get(local, "/api/v2/jobs?metadata[n]=1")["jobs"]] == [ids[3], ids[1]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("cursor=odd", "invalid_cursor"),
        ("limit=0", "invalid_request"),
        ("limit=101", "invalid_request"),
        ("metadata=x", "invalid_metadata_filter"),
        ("metadata[]=x", "invalid_metadata_filter"),
        ("metadata[a]=x&metadata[a]=y", "invalid_metadata_filter"),
    ],
)
def test_a_list_that_is_asked_for_wrongly_is_refused(query: str, expected: str, local: LocalApi) -> None:
    answer = local.client.get(f"/api/v2/jobs?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, expected)


def test_links_have_the_prefix_of_the_proxy(local: LocalApi) -> None:
    job = post(local, {"workflow": picture(1)})
    shown = local.client.get(job["urls"]["self"], headers={"X-Forwarded-Prefix": "/deployment/7"}).json()
    assert shown["urls"]["events"] == f"/deployment/7/api/v2/jobs/{job['id']}/events"


def test_the_stream_of_a_job_that_has_ended_ends_with_its_status(local: LocalApi) -> None:
    job = post(local, {"workflow": picture(1)})
    local.client.post(job["urls"]["cancel"])
    assert local.client.get(job["urls"]["events"]).text == (
        'event: status\ndata: {"status": "canceled", "queue_position": null, "outputs": []}\n\n'
    )


def test_more_streams_than_there_may_be_are_refused(tmp_path: Path) -> None:
    with local_api(tmp_path, streams=0) as local:
        job = post(local, {"workflow": picture(1)})
        answer = local.client.get(job["urls"]["events"])
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_streams")


def test_a_workflow_that_holds_a_secret_is_not_kept_after_its_job(local: LocalApi) -> None:
    graph = picture(1)
    graph["1"]["_meta"] = {"token": "sesame"}
    job = post(local, {"workflow": graph})
    assert get(local, f"{job['urls']['self']}/workflow")["workflow"] == graph
    local.client.post(job["urls"]["cancel"])
    assert local.client.get(f"{job['urls']['self']}/workflow").status_code == 404


async def test_a_key_for_api_nodes_reaches_its_job_once() -> None:
    seen: list[object] = []

    async def handle(job_id: str, document: object, *, progress: ProgressCallback = ignore_progress) -> JobOutcome:
        seen.append(document)
        return JobOutcome(output={})

    class NoJobs:
        async def job(self, _job_id: str) -> None:
            return None

    keys = LentKeys(NoJobs(), find_live=lambda _job_id: None)  # type: ignore[arg-type]
    with keys.lending("a", "sesame"):
        pass
    around = keys.wrap_handle(handle)
    await around("a", {"workflow": {}})
    await around("a", {"workflow": {}})
    assert seen == [{"workflow": {}, "comfy_org_api_key": "sesame"}, {"workflow": {}}]
