"""Clients of worker-comfyui meet its fields, types and pixels: its cases, its variables, Runpod's own client."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
import runpod
from PIL import Image

from comfypin.client.result_outputs import outputs_of_result
from comfypin.client.save_outputs import save_outputs
from comfypin.http.client import HttpClient
from comfypin.runpod.endpoint_client import run_endpoint_job
from comfypin.runpod.management_api import ManagementApi
from tests.conftest import SHARED
from tests.support.object_servers import ACCESS_KEY, SECRET_KEY, S3Server
from tests.support.runpod_queue import RunpodQueue, worker
from tests.support.server import TOKEN, Server, serving
from tests.support.workflows import picture

_FILE = SHARED / "cases" / "worker-comfyui" / "cases.json"
CASES: dict[str, dict[str, Any]] = (
    {case["name"]: case for case in json.loads(_FILE.read_text())} if _FILE.is_file() else {}
)
# A model and a video encoder, which the embedded engine has not: tests/contract/test_real_comfyui.py saves a video.
NEEDS_COMFYUI = {"checkpoint sampling", "video mp4"}
# It refuses these by accident of its upload or its engine, and the last of them is our smoke test.
DONE_HERE_ONLY = {"name with folder", "b64 url-safe no pad", "UI format", "E workflow empty"}
ONE_INVALID = "one of two outputs invalid"
KEYS = {"BUCKET_ACCESS_KEY_ID": ACCESS_KEY, "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY}

pytestmark = [
    pytest.mark.skipif(not CASES, reason="the recorded cases lie beside a checkout of ours"),
    pytest.mark.xdist_group("worker-comfyui"),  # each answer is asked for once, not once a process
]


@pytest.fixture(scope="module")
def worker_answers() -> Iterator[dict[str, Any]]:
    """The worker's answer to every case, in its order."""
    with RunpodQueue().running() as queue, worker(queue, "--concurrency", "1"):
        for number, case in enumerate(CASES.values()):
            queue.put(f"case-{number}", case["input"])
        yield {name: queue.wait(f"case-{number}") for number, name in enumerate(CASES)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # A server answers with addresses of its own unless it is told to answer as a worker does.
    with serving(tmp_path_factory.mktemp("serve"), environ={"OUTPUT_MODE": "base64"}) as running:
        yield running


@pytest.fixture(scope="module")
def server_answers(server: Server) -> dict[str, Any]:
    """The server's answer to every case, every second one by /runsync."""
    answers: dict[str, Any] = {}
    for number, (name, case) in enumerate(CASES.items()):
        body = {"input": case["input"]}
        answers[name] = server.post("/runsync", body) if number % 2 else server.ended(server.post("/run", body)["id"])
    return answers


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("door", ["worker_answers", "server_answers"])
def test_a_case_is_answered_to_the_letter(name: str, door: str, request: pytest.FixtureRequest) -> None:
    if name in NEEDS_COMFYUI:
        pytest.skip("needs a ComfyUI")
    answer, there = request.getfixturevalue(door)[name], CASES[name]["answer"]
    if name in DONE_HERE_ONLY:
        assert "error" not in answer
    elif "error" in there:
        assert isinstance(answer["error"], str)
        assert answer["output"]["details"]
        assert all(isinstance(detail, str) for detail in answer["output"]["details"])
        assert "images" not in answer["output"]
    else:
        output = answer["output"]
        assert "error" not in answer
        assert ("errors" in output) == (name == ONE_INVALID)
        assert output.get("status") == there["output"].get("status")
        assert seen(output["images"]) == seen(there["output"]["images"])


def seen(images: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """What a client relies on: names but for their numbers, types, decoded pixels. Nodes may run in another order."""
    return sorted((re.sub(r"\d{5}", "#", image["filename"]), image["type"], pixels(image["data"])) for image in images)


def pixels(data: str) -> str:
    """A picture as the recording describes it, which is such a description already."""
    if data.startswith(("PNG", "WEBP")):
        return data
    opened = Image.open(io.BytesIO(base64.b64decode(data)))
    digest = hashlib.md5(opened.convert("RGBA").tobytes()).hexdigest()[:6]
    return f"{opened.format} {opened.size} {digest}"


@pytest.mark.parametrize("door", ["worker_answers", "server_answers"])
def test_the_numbers_of_names_count_up_from_job_to_job(door: str, request: pytest.FixtureRequest) -> None:
    answers = request.getfixturevalue(door)
    outputs = [answer["output"].get("images", []) for name, answer in answers.items() if name not in NEEDS_COMFYUI]
    names = [image["filename"] for images in outputs for image in images]
    of_one_prefix = [name for name in names if name.startswith("peer_")]
    assert of_one_prefix == [f"peer_{number:05}_.png" for number in range(1, len(of_one_prefix) + 1)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("door", ["worker_answers", "server_answers"])
def test_the_error_of_the_invalid_output_names_its_node(door: str, request: pytest.FixtureRequest) -> None:
    (error,) = request.getfixturevalue(door)[ONE_INVALID]["output"]["errors"]
    assert error.startswith("The outputs of node 9 were left out: node 8 (LoadImage), input image: ")


# -- Its variables -----------------------------------------------------------------------------------------------------


def test_with_its_three_variables_data_is_an_address_that_opens(moto: S3Server, tmp_path: Path) -> None:
    bucket = moto.new_bucket("letter")
    variables = {"BUCKET_ENDPOINT_URL": f"{moto.url}/{bucket}", **KEYS}
    with RunpodQueue().running() as queue, worker(queue, environ=variables):
        queue.put("signed", {"workflow": picture(3)})
        (image,) = queue.wait("signed")["output"]["images"]
    assert image["type"] == "s3_url"
    answer = requests.get(image["data"], timeout=10)
    assert answer.status_code == 200
    assert Image.open(io.BytesIO(answer.content)).size == (64, 64)


def test_an_endpoint_without_a_bucket_ends_the_worker_with_a_sentence(moto: S3Server) -> None:
    with RunpodQueue().running() as queue, worker(queue, environ={"BUCKET_ENDPOINT_URL": moto.url, **KEYS}) as process:
        assert process.wait(60) == 3
        said = process.log.read_text()  # type: ignore[attr-defined]
    assert "BUCKET_NAME is not set (or S3_BUCKET): it is needed to deliver outputs to BUCKET_ENDPOINT_URL" in said
    assert "Traceback" not in said


# -- Several clients on one server ------------------------------------------------------------------------------------


def test_runpods_client_and_ours_are_served_at_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runpod, "endpoint_url_base", f"{server.url}/v2")
    endpoint = runpod.Endpoint("demo", api_key=TOKEN)
    api = ManagementApi(key=TOKEN, base_url=f"{server.url}/v2", client=HttpClient())

    def by_runpods(color: int) -> Any:
        request = {"input": {"workflow": picture(color, prefix="theirs")}}
        return endpoint.run_sync(request, timeout=60) if color % 2 else endpoint.run(request).output(timeout=60)

    def by_ours(color: int) -> Any:
        return run_endpoint_job(api, "demo", {"workflow": picture(color, prefix="ours")}, timeout_s=60)

    with ThreadPoolExecutor(8) as threads:
        theirs = list(threads.map(by_runpods, range(4)))
        ours = list(threads.map(by_ours, range(4)))
    assert [colors_of(output) for output in theirs] == [colors_of(output) for output in ours]
    assert colors_of(theirs[3]) == [(0, 0, 3)]
    names = [image["filename"] for output in (*theirs, *ours) for image in output["images"]]
    assert sorted(names) == [f"{who}_{number:05}_.png" for who in ("ours", "theirs") for number in range(1, 5)]
    saved = [output for result in ours for output in save_outputs(outputs_of_result(result), tmp_path, HttpClient())]
    assert sorted(str(output.path) for output in saved) == [str(tmp_path / f"ours_{n:05}_.png") for n in range(1, 5)]
    assert endpoint.health()["jobs"]["failed"] >= 0


def colors_of(output: dict[str, Any]) -> list[Any]:
    """The colour of each picture's first pixel."""
    pictures = [Image.open(io.BytesIO(base64.b64decode(image["data"]))) for image in output["images"]]
    return [opened.convert("RGB").getpixel((0, 0)) for opened in pictures]
