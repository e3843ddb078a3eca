"""`comfypin worker` under the real SDK's loop, on a queue of our own and the embedded engine."""

import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.fault_proxy import fault_proxy, no_faults
from tests.support.nginx import free_port
from tests.support.object_servers import ACCESS_KEY, SECRET_KEY, S3Server
from tests.support.runpod_queue import RunpodQueue, worker
from tests.support.scripted_server import answering_by
from tests.support.workflows import load, picture, slow

PNG = (ROOT / "workflows" / "demo.png").read_bytes()
BUCKET = {"accessId": "id", "accessSecret": "secret", "bucketName": "bucket"}


@pytest.fixture(scope="module")
def queue() -> Iterator[RunpodQueue]:
    with RunpodQueue().running() as running:
        yield running


@pytest.fixture(scope="module")
def running(queue: RunpodQueue) -> Iterator["subprocess.Popen[bytes]"]:
    with worker(queue) as process:
        yield process


def test_a_job_in_worker_comfyuis_format_gets_an_answer_in_its_shape(queue: RunpodQueue, running: object) -> None:
    data = base64.b64encode(PNG).decode()
    queue.put("images-1", {"workflow": load("in.png"), "images": [{"name": "in.png", "image": data}]})
    answer = queue.wait("images-1")
    assert "error" not in answer
    (image,) = answer["output"]["images"]
    assert image["type"] == "base64"
    assert image["filename"].startswith("ComfyUI")
    assert base64.b64decode(image["data"]).startswith(b"\x89PNG")
    assert (image["width"], image["height"]) == (768, 512)
    assert "errors" not in answer["output"]
    assert answer["output"]["release"] == "demo"


def test_a_data_uri_is_taken_too(queue: RunpodQueue, running: object) -> None:
    data = "data:image/png;base64," + base64.b64encode(PNG).decode()
    queue.put("uri-1", {"workflow": load("in.png"), "images": [{"name": "in.png", "image": data}]})
    assert len(queue.wait("uri-1")["output"]["images"]) == 1


def test_overrides_and_the_smoke_test(queue: RunpodQueue, running: object) -> None:
    queue.put("set-1", {"workflow": picture(1), "set": {"1.width": 96, "EmptyImage.height": 32}})
    queue.put("smoke-1", {"workflow": {}})
    (image,) = queue.wait("set-1")["output"]["images"]
    assert (image["width"], image["height"]) == (96, 32)
    assert len(queue.wait("smoke-1")["output"]["images"]) == 1


def test_a_workflow_of_the_image_runs_by_its_name(queue: RunpodQueue, running: object) -> None:
    queue.put("named-1", {"workflow_name": "demo"})
    (image,) = queue.wait("named-1")["output"]["images"]
    assert (image["width"], image["height"]) == (1280, 800)


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({}, "give either `workflow` or `workflow_name`"),
        ("no json", "it is a text that is not JSON"),
        ([], "it is a list"),
        ({"workflow": {"1": {"class_type": "Nope", "inputs": {}}}}, "Nope"),
        ({"workflow": {}, "release": "other"}, "This worker runs the release demo"),
        ({"workflow": {}, "timeout_s": -1}, "timeout_s"),
        ({"workflow": load("a.png"), "images": [{"name": "a.png", "image": "%%%"}]}, "is not base64"),
        ({"workflow": load("a.png"), "images": [{"name": "../a.png", "image": "AAAA"}]}, "leaves the input folder"),
        ({"workflow": {}, "inputs": [{"name": "a", "url": "http://169.254.169.254/latest"}]}, "link-local"),
        ({"workflow": {}, "inputs": [{"name": "a", "url": "http://127.0.0.1:1/x"}]}, "private address"),
        ({"workflow": {}, "s3Config": {**BUCKET, "endpointUrl": "http://169.254.169.254"}}, "private address"),
        ({"workflow": {}, "s3Config": {**BUCKET, "endpointUrl": "http://localhost:9000"}}, "private address"),
        ({"workflow_name": "demmo"}, "demo"),
        ({"workflow": {}, "output": {"mode": "gcs"}}, "GCS_BUCKET"),
    ],
)
def test_what_cannot_be_done_is_an_error_that_says_why(
    queue: RunpodQueue, running: object, job: object, words: str, request: pytest.FixtureRequest
) -> None:
    job_id = f"bad-{abs(hash(request.node.name))}"
    queue.put(job_id, job)
    answer = queue.wait(job_id)
    assert words in answer["error"], answer
    assert "Traceback" not in json.dumps(answer)


def test_unknown_fields_are_warned_of(queue: RunpodQueue, running: object) -> None:
    queue.put("warn-1", {"workflow": {}, "colour": 1, "output": {"modus": "x"}})
    warnings = queue.wait("warn-1")["output"]["warnings"]
    assert "The field colour is unknown and was ignored." in warnings
    assert "The field output.modus is unknown and was ignored." in warnings


def test_progress_comes_in_order_and_before_the_result(queue: RunpodQueue, running: object) -> None:
    queue.put("progress-1", {"workflow": slow(120)})
    queue.wait("progress-1")
    time.sleep(1.5)  # whatever would come late has come by now
    posts = queue.posts["progress-1"]
    assert posts[-1].get("status") != "IN_PROGRESS"
    fractions = [post["output"]["progress"] for post in posts[:-1]]
    assert fractions == sorted(fractions)
    assert len(fractions) >= 2


def test_a_cancelled_job_leaves_the_engine_free(queue: RunpodQueue, running: object) -> None:
    queue.put("cancel-1", {"workflow": slow(1000)})
    deadline = time.monotonic() + 20
    while not queue.posts["cancel-1"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    queue.cancel("cancel-1")
    queue.put("after-cancel", {"workflow": picture(77)})
    queue.wait("after-cancel", within_s=30)
    assert queue.final("cancel-1") is None


def test_jobs_that_come_together_are_taken_in_a_batch_and_all_answered(queue: RunpodQueue, running: object) -> None:
    for index in range(40):
        queue.put(f"many-{index}", {"workflow": picture(1000 + index)})
    for index in range(40):
        (image,) = queue.wait(f"many-{index}")["output"]["images"]
        assert image["filename"].startswith("out")
    assert any("job-take-batch" in take for take in queue.takes)
    assert all(len(queue.posts[f"many-{index}"]) >= 1 for index in range(40))


def test_a_result_too_big_for_the_platform_is_an_error_with_sizes(queue: RunpodQueue, running: object) -> None:
    data = base64.b64encode(PNG).decode()
    graph = load("in.png")
    graph["3"] = {
        "class_type": "ImageScale",
        "inputs": {"image": ["1", 0], "upscale_method": "bicubic", "width": 4608, "height": 3072, "crop": "disabled"},
    }
    graph["2"]["inputs"]["images"] = ["3", 0]
    queue.put("big-1", {"workflow": graph, "images": [{"name": "in.png", "image": data}]})
    answer = queue.wait("big-1", within_s=120)
    said = re.search(r"(\d+) bytes as base64, and INLINE_MAX_BYTES is 9936000", answer["error"])
    assert said is not None
    assert int(said[1]) > 9936000


def test_outputs_go_up_while_the_next_job_runs() -> None:
    let_go = threading.Event()
    puts: list[str] = []

    def bucket(request: BaseHTTPRequestHandler) -> tuple[int, str, dict[str, str]]:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if request.path.endswith("write-check"):
            return 400, "<Error><Code>XAmzContentSHA256Mismatch</Code></Error>", {}
        puts.append(request.path)
        if "/first/" in request.path:
            let_go.wait(60)
        return 200, "", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}

    with answering_by(bucket) as url, RunpodQueue().running() as own:
        keys = {"BUCKET_ACCESS_KEY_ID": "id", "BUCKET_SECRET_ACCESS_KEY": "secret"}
        with worker(own, environ={"BUCKET_ENDPOINT_URL": f"{url}/pictures", **keys}) as process:
            own.put("first", {"workflow": picture(1)})
            _wait_for(lambda: any("/first/" in path for path in puts), process)
            own.put("second", {"workflow": picture(2)})
            own.wait("second")
            assert own.final("first") is None
            let_go.set()
            (image,) = own.wait("first")["output"]["images"]
            assert image["uri"].startswith("s3://pictures/comfy/outputs/first/")
    assert [path.rpartition("/")[2] for path in puts if "/first/" in path][-1] == "manifest.json"


def test_sigterm_finishes_the_running_job_and_takes_no_more(queue: RunpodQueue) -> None:
    with RunpodQueue().running() as own, worker(own) as process:
        own.put("last", {"workflow": slow(120)})
        deadline = time.monotonic() + 40
        while not own.posts["last"]:
            assert time.monotonic() < deadline, Path(process.log).read_text()  # type: ignore[attr-defined]
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "output" in (own.final("last") or {})


def test_sigterm_gives_back_what_is_not_done_within_the_grace() -> None:
    with RunpodQueue().running() as own, worker(own, "--grace", "1") as process:
        own.put("endless", {"workflow": slow(2_000)})
        _wait_for(lambda: bool(own.posts["endless"]), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert own.final("endless") is None, "an answer would end the job; without one another worker gets it"
        text = Path(process.log).read_text()  # type: ignore[attr-defined]
        assert "unfinished jobs go back" in text
        assert "Traceback" not in text


def test_the_third_crash_in_a_row_gives_the_worker_back() -> None:
    with RunpodQueue().running() as own, worker(own, "--concurrency", "1") as process:
        dead: set[int] = set()
        for number in (1, 2):
            own.put(f"job-{number}", {"workflow": slow(1_000 + number)})
            for _ in range(2):
                _wait_for(lambda: _engines(process.pid) - dead != set(), process)
                _wait_for(_told_since(own, f"job-{number}"), process)
                (engine,) = _engines(process.pid) - dead
                dead.add(engine)
                os.kill(engine, signal.SIGKILL)
            final = own.wait(f"job-{number}")
            assert "EngineCrashed" in json.dumps(final)
            assert final.get("stopPod", False) is (number == 2)
        assert process.wait(60) == 0, "nothing more is taken"


def test_a_job_that_kills_the_engine_fails_alone_while_others_wait_behind_it() -> None:
    with RunpodQueue().running() as own, worker(own, "--concurrency", "3") as process:
        dead: set[int] = set()
        own.put("killer", {"workflow": slow(2_000)})
        _wait_for(_told_since(own, "killer"), process)
        for name in ("bystander-1", "bystander-2"):
            own.put(name, {"workflow": picture(len(name) + int(name[-1]))})
        _wait_for(lambda: all(_waiting_told(own, name) for name in ("bystander-1", "bystander-2")), process)
        for _ in range(2):
            _wait_for(lambda: _engines(process.pid) - dead != set(), process)
            _wait_for(_told_since(own, "killer"), process)
            (engine,) = _engines(process.pid) - dead
            dead.add(engine)
            os.kill(engine, signal.SIGKILL)
        assert "EngineCrashed" in json.dumps(own.wait("killer"))
        for name in ("bystander-1", "bystander-2"):
            assert len(own.wait(name)["output"]["images"]) == 1


def _waiting_told(queue: RunpodQueue, job_id: str) -> bool:
    """Whether the platform was told that the job waits in the engine's queue."""
    return any("queued" in json.dumps(post) for post in queue.posts[job_id])


def _told_since(queue: RunpodQueue, job_id: str) -> Callable[[], bool]:
    """Whether a node of the job has begun since now."""
    seen = len(queue.posts[job_id])
    return lambda: any("node" in json.dumps(post) for post in queue.posts[job_id][seen:])


def _engines(worker_pid: int) -> set[int]:
    """The processes of the embedded engine that the worker has started."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if b"comfypin.engine.embedded" in command and parent == worker_pid:
                found.add(int(folder.name))
    return found


def _wait_for(there: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline, Path(process.log).read_text()  # type: ignore[attr-defined]
        time.sleep(0.02)


S3_KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


def test_a_worker_whose_bucket_is_wrong_ends_before_it_takes_a_job(moto: S3Server) -> None:
    place = {"S3_BUCKET": "no-such-bucket", "S3_ENDPOINT_URL": moto.url, **S3_KEYS}
    for environ, code, words in (
        (place, 31, "s3://no-such-bucket at http://.* does not exist.*S3_BUCKET"),
        ({**place, "OUTPUT_FORMAT": "bmp"}, 3, "OUTPUT_FORMAT"),
        ({"OUTPUT_MODE": "file"}, 3, "a worker's disk is lost"),
    ):
        with RunpodQueue().running() as own, worker(own, environ=environ) as process:
            assert process.wait(30) == code
            log = process.log.read_text()  # type: ignore[attr-defined]
        assert re.search(words, log), log
        assert SECRET_KEY not in log
        assert "Traceback" not in log
        assert "worker_ready" not in log
        assert own.takes == []


def test_a_bucket_that_is_away_for_a_while_does_not_end_the_worker(moto: S3Server) -> None:
    bucket = moto.new_bucket("comes-back")
    with fault_proxy(moto.url, lambda seen: "503") as proxy, RunpodQueue().running() as own:
        place = {"S3_BUCKET": bucket, "S3_ENDPOINT_URL": proxy.url, "S3_RETRIES": "0", **S3_KEYS}
        with worker(own, environ=place) as process:
            own.put("too-early", {"workflow": {}})
            assert "cannot serve now" in own.wait("too-early")["error"]
            proxy.rule = no_faults
            own.put("later", {"workflow": {}})
            assert own.wait("later")["output"]["images"][0]["type"] == "s3_url"
            assert "the bucket could not be checked" in process.log.read_text()  # type: ignore[attr-defined]
    assert "comfy/outputs/later/manifest.json" in moto.objects(bucket)


def test_jobs_bring_their_own_bucket_to_a_worker_that_has_none(moto: S3Server) -> None:
    bucket = moto.new_bucket("of-the-job")
    job = {"accessId": ACCESS_KEY, "accessSecret": SECRET_KEY, "bucketName": bucket, "endpointUrl": moto.url}
    with (
        RunpodQueue().running() as own,
        worker(own, "--allow-private-inputs", environ={"OUTPUT_MODE": "s3"}) as process,
    ):
        own.put("without", {"workflow": {}})
        assert "S3_BUCKET is not set" in own.wait("without")["error"]
        own.put("with", {"workflow": {}, "s3Config": job})
        assert own.wait("with")["output"]["images"][0]["type"] == "s3_url"
        assert "jobs without an s3Config will fail" in process.log.read_text()  # type: ignore[attr-defined]


def test_a_wrong_bucket_for_what_is_too_big_is_told_of_and_no_more(moto: S3Server) -> None:
    place = {"OUTPUT_MODE": "base64", "S3_BUCKET": "no-such-bucket", "S3_ENDPOINT_URL": moto.url, **S3_KEYS}
    with RunpodQueue().running() as own, worker(own, environ=place) as process:
        own.put("small", {"workflow": {}})
        assert own.wait("small")["output"]["images"][0]["type"] == "base64"
        log = process.log.read_text()  # type: ignore[attr-defined]
        assert re.search("too big for a result cannot be delivered.*no-such-bucket", log), log


def test_a_worker_serves_metrics_where_it_is_given_a_port() -> None:
    port = free_port()
    with RunpodQueue().running() as own, worker(own, environ={"COMFYPIN_METRICS_PORT": str(port)}):
        own.put("counted", {"workflow": {}})
        own.wait("counted")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    assert 'comfypin_jobs_total{state="COMPLETED"} 1.0' in text
    assert 'comfypin_job_phase_seconds_count{phase="run"} 1.0' in text
    assert "comfypin_jobs_in_queue" not in text  # the queue is the platform's


def test_a_worker_without_its_release_says_so_in_one_line() -> None:
    with RunpodQueue().running() as own, worker(own, environ={"COMFY_VERSION_NAME": ""}) as process:
        pass
    with RunpodQueue().running() as own, worker(own, "--lock", "nowhere") as process:
        assert process.wait(30) == 10
        text = Path(process.log).read_text()  # type: ignore[attr-defined]
        assert "nowhere" in text
        assert "Traceback" not in text
