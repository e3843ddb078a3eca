"""`comfypin serve` as its clients meet it: Runpod's API, tokens, limits, typed workflows, restarts."""

import base64
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from comfypin.queue.webhook import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign_body
from tests.conftest import ROOT
from tests.support.object_servers import ACCESS_KEY, SECRET_KEY, S3Server
from tests.support.server import TOKEN, Server, serving
from tests.support.small_disk import small_disk
from tests.support.workflows import load, picture, slow

PNG = (ROOT / "workflows" / "demo.png").read_bytes()
SECRET = "webhook-secret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--allow-private-inputs", "--max-body-mb", "8")
    home = tmp_path_factory.mktemp("serve")
    with serving(home, *flags, environ={"COMFYPIN_WEBHOOK_SECRET": SECRET}) as running:
        yield running


def job(workflow: object, **more: object) -> dict[str, object]:
    return {"input": {"workflow": workflow, **more}}


# -- Runpod's API ------------------------------------------------------------------------------------------------------


def test_a_job_is_taken_followed_and_its_output_is_served(server: Server) -> None:
    taken = server.post("/run", job(picture(1)))
    assert taken["status"] == "IN_QUEUE"
    answer = server.ended(taken["id"])
    assert answer["status"] == "COMPLETED"
    assert answer["delayTime"] >= 0
    assert answer["executionTime"] >= 0
    (image,) = answer["output"]["images"]
    request = urllib.request.Request(image["url"], headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request) as file:
        assert file.read().startswith(b"\x89PNG")


def test_worker_comfyuis_request_gets_its_answer(server: Server) -> None:
    data = base64.b64encode(PNG).decode()
    body = job(load("in.png"), images=[{"name": "in.png", "image": data}], output={"mode": "base64"})
    answer = server.post("/runsync", body)
    (image,) = answer["output"]["images"]
    assert image["type"] == "base64"
    assert base64.b64decode(image["data"]).startswith(b"\x89PNG")


def test_what_fails_says_why(server: Server) -> None:
    answer = server.post("/v2/any/runsync", job({"1": {"class_type": "Nope", "inputs": {}}}))
    assert answer["status"] == "FAILED"
    assert "Nope" in answer["error"]


def test_a_short_wait_ends_with_the_state_so_far(server: Server) -> None:
    answer = server.post("/runsync?wait=1", job(slow(400)))
    assert answer["status"] in ("IN_QUEUE", "IN_PROGRESS")
    assert server.post(f"/cancel/{answer['id']}")["status"] == "CANCELLED"
    assert server.get(f"/status/{answer['id']}")["status"] == "CANCELLED"


def test_jobs_that_wait_can_be_purged(server: Server) -> None:
    first = server.post("/run", job(slow(400)))["id"]
    waiting = [server.post("/run", job(slow(400)))["id"] for _ in range(4)]
    removed = server.post("/purge-queue")
    assert removed["status"] == "completed"
    assert removed["removed"] >= 2
    for job_id in (first, *waiting):
        server.post(f"/cancel/{job_id}")
    assert {server.ended(job_id)["status"] for job_id in waiting} == {"CANCELLED"}


def test_a_policy_bounds_a_job_and_retry_runs_it_again(server: Server) -> None:
    body = {**job(slow(800)), "policy": {"executionTimeout": 300}}
    taken = server.post("/run", body)
    assert server.ended(taken["id"])["status"] == "TIMED_OUT"
    assert server.post(f"/retry/{taken['id']}") == {"id": taken["id"], "status": "IN_QUEUE"}
    assert server.post(f"/cancel/{taken['id']}")["status"] == "CANCELLED"
    assert server.ask("POST", f"/retry/{taken['id']}", {})[0] == 409


def test_progress_is_streamed_as_events(server: Server) -> None:
    taken = server.post("/run", job(slow(60)))
    _, text, headers = server.ask("GET", f"/stream/{taken['id']}", Accept="text/event-stream")
    assert headers["content-type"].startswith("text/event-stream")
    events = [block.split("\n") for block in text.decode().strip().split("\n\n") if not block.startswith(":")]
    assert events[-1][0] == "event: status"
    assert json.loads(events[-1][1].removeprefix("data: "))["status"] == "COMPLETED"
    fractions = [json.loads(event[1].removeprefix("data: "))["progress"] for event in events[:-1]]
    assert fractions == sorted(fractions)


def test_runpods_own_client_works(server: Server) -> None:
    script = """
import os, runpod
runpod.api_key = os.environ["RUNPOD_API_KEY"]
endpoint = runpod.Endpoint("demo")
print(endpoint.health()["workers"]["ready"])
print(len(endpoint.run_sync({"workflow": {}}, timeout=60)["images"]))
job = endpoint.run({"input": {"workflow": {}}})
print(len(job.output(timeout=60)["images"]), job.status())
print(all("progress" in chunk for chunk in endpoint.run({"workflow": {}}).stream()))
print(endpoint.run({"workflow": {}}).cancel()["status"] in ("CANCELLED", "COMPLETED"))
print(endpoint.purge_queue()["status"])
"""
    environ = {**os.environ, "RUNPOD_ENDPOINT_BASE_URL": f"{server.url}/v2", "RUNPOD_API_KEY": TOKEN}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.stdout.split("\n")[:6] == ["1", "1", "1 COMPLETED", "True", "True", "completed"], ran.stderr


def test_a_webhook_is_told_signed_and_told_again(server: Server) -> None:
    heard: list[tuple[dict[str, str], bytes]] = []
    done = threading.Event()

    class Receiver(BaseHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((dict(self.headers.items()), body))
            self.send_response(500 if len(heard) == 1 else 200)
            self.end_headers()
            if len(heard) == 2:
                done.set()

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, args=(0.05,), daemon=True).start()
        server.post("/run", {**job({}), "webhook": f"http://127.0.0.1:{receiver.server_port}/hook"})
        assert done.wait(30)
        receiver.shutdown()
    headers, body = heard[-1]
    assert json.loads(body)["status"] == "COMPLETED"
    assert headers[SIGNATURE_HEADER] == sign_body(SECRET, headers[TIMESTAMP_HEADER], body)


# -- Workflows ---------------------------------------------------------------------------------------------------------


def test_a_workflow_is_an_endpoint_with_typed_inputs(server: Server) -> None:
    (demo,) = [one for one in server.get("/workflows") if one["name"] == "demo"]
    width = next(one["name"] for one in demo["inputs"] if one["name"].endswith("width"))
    answer = server.post("/workflows/demo?wait=60000", {width: 128})
    assert answer["status"] == "COMPLETED"
    status, refused, _ = server.ask("POST", "/workflows/demo", {"nonsense": 1})
    assert status == 422
    assert "nonsense" in refused["error"]
    schema = server.get("/openapi.json")["paths"]["/workflows/demo"]["post"]["requestBody"]
    assert schema["content"]["application/json"]["schema"]["properties"][width]["type"] == "integer"


# -- Who may what ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/status/x", "/outputs/x", "/openapi.json", "/docs", "/metrics", "/nope"])
def test_nothing_but_ping_is_open(server: Server, path: str) -> None:
    assert server.ask("GET", path, token=None)[0] == 401
    assert server.ask("GET", path, token="wrong")[0] == 401
    assert server.ask("GET", "/ping", token=None)[0] == 200


def test_a_browser_may_look_with_a_password_and_not_post(server: Server) -> None:
    basic = "Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode()
    assert server.ask("GET", "/docs", token=None, Authorization=basic)[0] == 200
    assert server.ask("POST", "/run", job({}), token=None, Authorization=basic)[0] == 401


def test_pages_of_other_sites_are_refused(server: Server) -> None:
    status, _, headers = server.ask("POST", "/run", job({}), Origin="https://evil.example")
    assert status == 403
    assert "access-control-allow-origin" not in {name.lower() for name in headers}


@pytest.mark.parametrize(
    "path",
    [
        "/outputs/../state/token",
        "/outputs/%2e%2e/state/jobs.sqlite",
        "/outputs//etc/passwd",
        "/outputs/%00",
        "/outputs/",
    ],
)
def test_no_path_leaves_the_outputs(server: Server, path: str) -> None:
    assert server.ask("GET", path)[0] == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"nonsense", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"input": NaN}', 400),
        (b'{"input": 1e999}', 400),
        (b"[" * 100_000, 400),
        (b'{"input": ' + b"9" * 5000 + b"}", 400),
        (b'{"input": {"workflow": {}}, "webhook": "file:///etc/passwd"}', 400),
        (b'{"input": {"workflow": {}}, "policy": {"ttl": -1}}', 400),
        (b'{"input": {"workflow": {}}, "webhook_events": ["started"]}', 400),
        (b'{"input": {"workflow": {}}, "webhook": "http://x.example/", "webhook_events": []}', 400),
        (b'{"input": {"workflow": {}}, "webhook": "http://x.example/", "webhook_events": "started"}', 400),
        (b'{"input": {"workflow": {}}, "webhook": "http://x.example/", "webhook_events": [{}]}', 400),
        (b'{"input": {"workflow": {}}, "webhook": "http://x.example/", "webhook_events": ["ended"]}', 400),
        (b" " * 8_000_001, 413),
    ],
)
def test_bodies_that_make_no_sense_are_refused(server: Server, body: bytes, status: int) -> None:
    assert server.ask("POST", "/run", body)[0] == status


def test_any_text_can_be_told_back(server: Server) -> None:
    answer = server.post("/runsync", job({"1": {"class_type": "\ud800", "inputs": {}}}))
    assert "\\ud800" in answer["error"]


def test_secrets_do_not_outlive_their_job(server: Server) -> None:
    sesame = "open-sesame-" * 3
    taken = server.post("/runsync", job({}, comfy_org_api_key=sesame))
    assert taken["status"] == "COMPLETED"
    stored = b"".join(path.read_bytes() for path in (server.home / "state").rglob("jobs.sqlite"))
    assert sesame.encode() not in stored
    assert sesame.encode() not in server.log.read_bytes()


def test_metrics_are_prometheus_text(server: Server) -> None:
    server.post("/runsync", job({}))
    text = server.get("/metrics").decode()
    assert 'comfypin_jobs_total{state="COMPLETED"}' in text
    assert 'comfypin_job_phase_seconds_sum{phase="run"}' in text
    assert 'comfypin_job_phase_seconds_bucket{le="+Inf",phase="run"}' in text


# -- Its own life ------------------------------------------------------------------------------------------------------


def test_it_answers_while_it_starts_and_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    with serving(tmp_path, "--max-waiting", "2", ready=False) as server:
        taken = [server.ask("POST", "/run", job(slow(400))) for _ in range(8)]
        assert [status for status, _, _ in taken][:2] == [200, 200]
        refused = [headers for status, _, headers in taken if status == 429]
        assert refused
        assert int({name.lower(): value for name, value in refused[0].items()}["retry-after"]) > 0
        for status, body, _ in taken:
            if status == 200:
                server.post(f"/cancel/{body['id']}")


def test_a_release_that_needs_no_env_loads_nothing_of_it(tmp_path: Path) -> None:
    with serving(tmp_path, environ={"PYTHONPROFILEIMPORTTIME": "1"}) as server:
        server.post("/runsync", job({}))
        imported = server.log.read_text()
    assert "comfypin.wiring.envs" in imported
    assert "comfypin.env" not in imported


def test_sigterm_puts_back_what_runs_and_the_next_start_finishes_it(tmp_path: Path) -> None:
    with serving(tmp_path, "--grace", "1") as server:
        jobs = [server.post("/run", job(slow(120)))["id"] for _ in range(2)]
        done = server.post("/run", job({}))["id"]
        assert server.stop() == 0
        server.start()
        assert {server.ended(job_id, within_s=120)["status"] for job_id in (*jobs, done)} == {"COMPLETED"}


def test_a_token_is_made_once_and_kept_for_its_owner(tmp_path: Path) -> None:
    with serving(tmp_path, environ={"COMFYPIN_TOKEN": ""}, ready=False) as server:
        path = tmp_path / "state" / "token"
        token = path.read_text().strip()
        assert path.stat().st_mode & 0o777 == 0o600
        assert token in server.log.read_text()
        assert server.ask("GET", "/health", token=token)[0] == 200


@pytest.mark.parametrize(
    ("flags", "environ", "words"),
    [
        (["--no-auth", "--host", "0.0.0.0"], {}, "--no-auth would open"),
        (["--port", "70000"], {}, "RUNPOD_TCP_PORT_70000"),
        ([], {"PORT": "abc"}, "PORT is 'abc'"),
        (["--concurrency", "0"], {}, "is not a number from 1"),
    ],
)
def test_what_cannot_be_served_is_refused(
    flags: list[str], environ: dict[str, str], words: str, tmp_path: Path
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "comfypin.cli.main", "serve", "--lock", "demo", *flags],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path), "COMFYPIN_STATE_DIR": str(tmp_path), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode in (3, 64)
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_server_whose_bucket_is_wrong_ends_with_what_is_wrong(moto: S3Server, tmp_path: Path) -> None:
    environ = {
        "S3_BUCKET": "no-such-bucket",
        "S3_ENDPOINT_URL": moto.url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    with serving(tmp_path, environ=environ, ready=False) as server:
        assert server.process is not None
        assert server.process.wait(30) == 31
        assert "s3://no-such-bucket at" in server.log.read_text()


def test_behind_runpods_proxy_runsync_answers_with_the_jobs_state(server: Server) -> None:
    host = "pod-8000.proxy.runpod.net"
    status, answer, _ = server.ask("POST", "/runsync?wait=0", job({}), Host=host)
    assert (status, answer["status"]) in ((200, "IN_QUEUE"), (200, "IN_PROGRESS"), (200, "COMPLETED"))
    assert server.ended(answer["id"])["status"] == "COMPLETED"


def test_a_large_body_of_nothing_keeps_nobody_waiting(server: Server) -> None:
    status, answer, _ = server.ask("POST", "/run", b'{"input": [' + b"[]," * 2_000_000 + b"[]]}")
    assert (status, answer["error_type"]) == (413, "RequestTooComplex")


@pytest.mark.needs("unshare")
def test_a_token_that_met_a_full_disk_is_made_at_the_next_start(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mb=4) as disk:
        command = [sys.executable, "-m", "comfypin.cli.main", "serve", "--lock", "demo", "--port", "1"]
        environ = {name: value for name, value in os.environ.items() if name != "COMFYPIN_TOKEN"}
        (disk.path / "state").mkdir()
        disk.fill()
        for _ in range(2):
            done = subprocess.run(
                [*command, "--state-dir", str(disk.path / "state")],
                capture_output=True,
                cwd=ROOT,
                env={**environ, "HOME": str(tmp_path)},
                timeout=60,
                check=False,
            )
            assert b"the disk is full" in done.stderr, done.stderr
            assert str(disk.path).encode() in done.stderr
            assert disk.files() == []


def test_what_lies_in_a_private_bucket_reaches_clients_of_comfy_api_v2(moto: S3Server, tmp_path: Path) -> None:
    bucket = moto.new_bucket("serve-private")
    environ = {
        "S3_BUCKET": bucket,
        "S3_ENDPOINT_URL": moto.url,
        "S3_PREFIX": "made/here",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    with serving(tmp_path, environ=environ) as server:
        ended = server.ended(server.post("/run", job(picture(1)))["id"])
        (image,) = ended["output"]["images"]
        assert image["uri"].startswith(f"s3://{bucket}/made/here/")
        (output,) = server.get(f"/api/v2/jobs/{ended['id']}")["outputs"]
        stored = moto.objects(bucket)[image["uri"].removeprefix(f"s3://{bucket}/")]
        assert server.get_bytes(f"/api/v2/assets/{output['id']}/content") == stored
        path = f"/api/v2/assets/{output['id']}/content"
        status, part, headers = server.ask("GET", path, Range="bytes=1-3")
        assert (status, part) == (206, stored[1:4])
        assert headers["content-range"] == f"bytes 1-3/{len(stored)}"
