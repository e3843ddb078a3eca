"""Comfy API v2 in a fleet: what was uploaded goes along with the job, and its outputs come back as assets."""

import contextlib
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.support.fleets import serving_fleet, working
from tests.support.nats_servers import nats_server
from tests.support.server import TOKEN, Server
from tests.support.workflows import load

PNG = (ROOT / "workflows" / "demo.png").read_bytes()


def call(server: Server, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind}
    request = urllib.request.Request(server.url + path, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            read: bytes = answer.read()
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read()) from error
    return read


def upload(server: Server, data: bytes) -> str:
    boundary = "fleet-of-tests"
    fields = {"content_type": "image/png", "file_path": "in.png"}
    told = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="in.png"\r\n'
    body = f"{told}{part}Content-Type: image/png\r\n\r\n".encode() + data + f"\r\n--{boundary}--\r\n".encode()
    made: Any = json.loads(call(server, "POST", "/api/v2/assets", body, f"multipart/form-data; boundary={boundary}"))
    return str(made["id"])


def finished(server: Server, job_id: str) -> Any:
    deadline = time.monotonic() + 90
    while True:
        job = json.loads(call(server, "GET", f"/api/v2/jobs/{job_id}"))
        if job["status"] not in ("queued", "running"):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.3)


def test_an_uploaded_picture_reaches_the_worker_and_its_output_is_an_asset(tmp_path: Path) -> None:
    with nats_server(tmp_path) as nats, contextlib.ExitStack() as stack:
        one, two = (
            stack.enter_context(serving_fleet(tmp_path / name, nats.address, keeps_bodies=True))
            for name in ("one", "two")
        )
        stack.enter_context(working(tmp_path / "worker", nats.address))
        workflow = load("in.png")
        workflow["1"]["inputs"]["image"] = {"__type": "core/ASSET", "info": {"id": upload(one, PNG)}}
        body = json.dumps({"workflow": workflow}).encode()
        job_id = json.loads(call(one, "POST", "/api/v2/jobs", body))["id"]
        for server in (one, two):
            job = finished(server, job_id)
            assert job["status"] == "succeeded", job
            (output,) = job["outputs"]
            path = output["url"].removeprefix(server.url)
            assert call(server, "GET", path).startswith(b"\x89PNG")
