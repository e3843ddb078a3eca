"""Comfy's own client of API v2 (`comfy-sdk`) against `comfypin serve` on the embedded engine."""

import io
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from comfy_low.errors import ApiError
from comfy_sdk import AsyncComfy, Comfy
from comfy_sdk.events import OutputReady, Preview, Progress, StatusChange
from comfy_sdk.exceptions import ComfyError, JobFailed, NotFound
from PIL import Image

from tests.conftest import shared_path
from tests.support.comfy_api import hash_of
from tests.support.server import TOKEN, Server, serving
from tests.support.workflows import load, picture, slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serve"), "--concurrency", "1") as running:
        yield running


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Comfy]:
    monkeypatch.setenv("COMFY_BASE_URL", server.url)
    with Comfy(api_key=TOKEN) as one:
        yield one


def a_png(color: tuple[int, int, int], size: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), color).save(buffer, "PNG")
    return buffer.getvalue()


def pixel(data: bytes) -> Any:
    return Image.open(io.BytesIO(data)).convert("RGB").getpixel((0, 0))


def test_a_workflow_runs_on_an_uploaded_picture_and_gives_its_output(client: Comfy) -> None:
    workflow = client.workflows.from_json(load("?"))
    workflow.set_input("1", "image", client.assets.from_bytes(a_png((9, 8, 7)), filename="photo.png"))
    job = client.run(workflow, timeout=60)
    (output,) = job.get_outputs("2")
    assert pixel(output.to_bytes()) == (9, 8, 7)
    assert (output.node_id, output.name) == ("2", "ComfyUI_00001_.png")
    assert output.to_bytes(range=(0, 7)) == b"\x89PNG\r\n\x1a\n"
    assert client.assets.get(output.id).job_id == job.id


def test_the_same_bytes_are_uploaded_once(client: Comfy) -> None:
    data = a_png((1, 2, 3))
    first, second = client.assets.from_bytes(data), client.assets.from_bytes(data)
    first.commit()
    second.commit()
    assert (first.created_new, second.created_new) == (True, False)


def test_events_tell_a_job_from_its_queue_to_its_outputs(client: Comfy) -> None:
    events = list(client.submit(client.workflows.from_json(slow(40))).events())
    statuses = [event.status for event in events if isinstance(event, StatusChange)]
    assert statuses[-1] == "succeeded"
    assert "running" in statuses
    values = [event.value for event in events if isinstance(event, Progress)]
    assert values == sorted(values)
    assert all(event.nodes_total == 42 for event in events if isinstance(event, Progress))
    (ready,) = [event for event in events if isinstance(event, OutputReady)]
    assert Image.open(io.BytesIO(ready.output.to_bytes())).size == (96, 96)  # type: ignore[arg-type]


def test_previews_are_shown_while_a_job_runs(client: Comfy) -> None:
    list(client.submit(client.workflows.from_json(slow(2))).events())  # whoever follows one job follows the next too
    events = list(client.submit(client.workflows.from_json(slow(140))).events())
    previews = [event for event in events if isinstance(event, Preview)]
    assert previews
    assert max(Image.open(io.BytesIO(previews[0].data)).size) <= 512


def test_each_event_is_as_the_description_says(client: Comfy, server: Server) -> None:
    document = yaml.safe_load((shared_path("openapi") / "comfy-api-v2.openapi.yaml").read_text())
    described = document["paths"]["/api/v2/jobs/{id}/events"]["get"]["x-sse-events"]
    schemas = {name: {**document, "$ref": one["schema"]} for name, one in described.items()}
    job = client.submit(client.workflows.from_json(slow(20)))
    request = urllib.request.Request(f"{server.url}/api/v2/jobs/{job.id}/events")
    request.add_header("Authorization", f"Bearer {TOKEN}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        frames = [frame for frame in answer.read().decode().split("\n\n") if frame and not frame.startswith(":")]
    told = [frame.removeprefix("event: ").split("\ndata: ") for frame in frames]
    # Previews depend on whether somebody followed a job before.
    assert {name for name, _ in told} - {"preview"} == {"status", "progress", "output"}
    for name, data in told:
        jsonschema.Draft4Validator(schemas[name]).validate(_without_null(json.loads(data)))


def _without_null(document: dict[str, Any]) -> dict[str, Any]:
    """A document without what is null: OpenAPI 3.0 says `nullable`, which JSON Schema does not know."""
    return {name: value for name, value in document.items() if value is not None}


def test_a_job_is_canceled_while_it_waits_and_while_it_runs(client: Comfy) -> None:
    running = client.submit(client.workflows.from_json(slow(400)))
    waiting = client.submit(client.workflows.from_json(slow(401)))
    assert waiting.cancel().status in ("canceling", "canceled")
    assert running.cancel().status in ("canceling", "canceled")
    assert {running.wait(30).status, waiting.wait(30).status} == {"canceled"}
    assert running.cancel().status == "canceled"


def test_what_is_wrong_with_a_workflow_is_told_before_it_is_queued(client: Comfy) -> None:
    graph = picture(1)
    graph["2"]["class_type"] = "SaveNothing"
    with pytest.raises(ComfyError) as caught:
        client.submit(client.workflows.from_json(graph))
    assert caught.value.code == "invalid_workflow"
    assert caught.value.details["node_errors"]["2"][0]["reason"] == "class_unknown"


def test_an_asset_that_is_not_here_is_named(client: Comfy) -> None:
    graph = load("?")
    graph["1"]["inputs"]["image"] = {"__type": "core/ASSET", "info": {"id": "none"}}
    with pytest.raises(ComfyError) as caught:
        client.submit(client.workflows.from_json(graph))
    assert caught.value.code == "missing_asset"


def test_a_job_that_fails_names_its_node(client: Comfy) -> None:
    workflow = client.workflows.from_json(load("?"))
    workflow.set_input("1", "image", client.assets.from_bytes(b"no picture at all", filename="no.png"))
    with pytest.raises(JobFailed) as caught:
        client.run(workflow, timeout=60)
    assert caught.value.error.code in ("node_execution_error", "input_file_invalid")


def test_a_key_is_for_one_job(client: Comfy) -> None:
    workflow = client.workflows.from_json(picture(7))
    bad = client.workflows.from_json({"1": {"class_type": "None", "inputs": {}}})
    with pytest.raises(ComfyError):
        client.submit(bad, idempotency_key="one-job")
    job = client.submit(workflow, idempotency_key="one-job")
    with pytest.raises(ComfyError) as caught:
        client.submit(workflow, idempotency_key="one-job")
    assert caught.value.code == "idempotency_key_reuse"
    assert job.wait(60).status == "succeeded"


def test_jobs_are_found_by_their_labels(client: Comfy) -> None:
    wanted = [client.submit(client.workflows.from_json(picture(7)), metadata={"run": "7"}).id for _ in range(3)]
    client.submit(client.workflows.from_json(picture(7)), metadata={"run": "8"})
    found = list(client.list_jobs(metadata={"run": "7"}, limit=2))
    assert [one.id for one in found] == wanted[::-1]
    assert client.jobs.get(wanted[0]).metadata == {"run": "7"}
    with pytest.raises(ComfyError) as caught:
        client.submit(client.workflows.from_json(picture(7)), metadata={"a b": "c"})
    assert caught.value.code == "metadata_invalid"


def test_the_workflow_of_a_job_is_as_it_was_sent(client: Comfy) -> None:
    graph = picture(11)
    job = client.run(client.workflows.from_json(graph), timeout=60)
    kept = client.jobs.get(job.id).get_workflow()
    assert (kept.graph, kept.format) == (graph, "api")


def test_an_output_cannot_be_deleted_while_its_job_is_kept(client: Comfy) -> None:
    job = client.run(client.workflows.from_json(picture(12)), timeout=60)
    with pytest.raises(ComfyError) as caught:
        client.assets.delete(job.outputs[0].id)
    assert caught.value.code == "asset_in_use"
    upload = client.assets.from_bytes(b"free")
    asset_id = upload.commit()
    upload.delete()
    with pytest.raises(NotFound):
        client.assets.get(asset_id)


def test_jobs_of_both_apis_are_the_same_jobs(client: Comfy, server: Server) -> None:
    theirs = client.run(client.workflows.from_json(picture(13)), timeout=60)
    seen = server.get(f"/status/{theirs.id}")
    assert seen["status"] == "COMPLETED"
    assert seen["output"]["images"][0]["url"].endswith(f"/api/v2/assets/{theirs.outputs[0].id}/content")
    ours = server.post("/runsync", {"input": {"workflow": picture(14)}})
    job = client.jobs.get(ours["id"])
    assert (job.status, len(job.outputs)) == ("succeeded", 1)
    assert pixel(job.outputs[0].to_bytes()) == (0, 0, 14)


def test_a_job_with_inline_outputs_is_seen_with_its_outputs(client: Comfy, server: Server) -> None:
    sent = {"input": {"workflow": picture(15), "output": {"mode": "base64"}}}
    job = client.jobs.get(server.post("/runsync", sent)["id"])
    assert pixel(job.outputs[0].to_bytes()) == (0, 0, 15)


def test_a_job_of_the_other_api_brings_an_asset(client: Comfy, server: Server) -> None:
    asset = client.assets.from_bytes(a_png((7, 7, 1)))
    asset.commit()
    sent = {"input": {"workflow": load("a.png"), "inputs": [{"name": "a.png", "asset": asset.hash}]}}
    job = client.jobs.get(server.post("/runsync", sent)["id"])
    assert pixel(job.outputs[0].to_bytes()) == (7, 7, 1)
    sent["input"]["inputs"] = [{"name": "a.png", "asset": hash_of(b"nobody has these bytes")}]
    failed = server.post("/runsync", sent)
    assert failed["status"] == "FAILED"
    assert "upload it again" in failed["error"]


def test_a_large_upload_that_is_refused_reads_its_answer(client: Comfy) -> None:
    data = bytes(30_000_000)
    client._low.post_assets(io.BytesIO(data), "application/octet-stream", "a.bin", idempotency_key="large")
    with pytest.raises(ApiError) as caught:
        client._low.post_assets(io.BytesIO(data), "application/octet-stream", "a.bin", idempotency_key="large")
    assert caught.value.code == "idempotency_key_reuse"


def test_a_text_is_an_output_too(client: Comfy, server: Server) -> None:
    graph = {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": "ночь"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    job = client.run(client.workflows.from_json(graph), timeout=60)
    (text,) = job.get_outputs("2")
    assert (text.type, text.content_type, text.to_bytes().decode()) == ("text", "text/plain", "ночь")
    ours = client.jobs.get(server.post("/runsync", {"input": {"workflow": graph}})["id"])
    assert ours.outputs[0].to_bytes().decode() == "ночь"


def test_a_wrong_token_is_told_as_such(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFY_BASE_URL", server.url)
    with Comfy(api_key="wrong") as client, pytest.raises(ComfyError) as caught:
        client.jobs.get("any")
    assert caught.value.code == "unauthorized"


async def test_the_asynchronous_client_does_the_same(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFY_BASE_URL", server.url)
    async with AsyncComfy(api_key=TOKEN) as client:
        workflow = client.workflows.from_json(load("?"))
        workflow.set_input("1", "image", client.assets.from_bytes(a_png((4, 5, 6)), filename="a.png"))
        job = await client.submit(workflow)
        events = [event async for event in job.events()]
        assert isinstance(events[-1], StatusChange)
        done = await job.result()
        assert pixel(await done.outputs[0].to_bytes()) == (4, 5, 6)


def test_the_key_of_a_workflow_is_never_on_the_disk(client: Comfy, server: Server) -> None:
    secret = "comfyui-0123456789-sesame"
    job = client.submit(client.workflows.from_json(slow(30)), api_key=secret)
    on_disk = [path for path in Path(server.home, "state").rglob("*") if path.is_file()]
    assert not [path for path in on_disk if secret.encode() in path.read_bytes()]
    assert job.wait(60).status == "succeeded"
