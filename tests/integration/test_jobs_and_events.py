"""The list of all jobs, one job with all that is known of it, and the events of all."""

import base64
import io
import json
import subprocess
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.event_reader import reading_events
from tests.support.server import Server, serving
from tests.support.workflows import picture, slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serve"), "--concurrency", "1") as running:
        yield running


def run(server: Server, workflow: object, **more: object) -> str:
    return str(server.post("/run", {"input": {"workflow": workflow, **more}})["id"])


def done(server: Server, workflow: object, **more: object) -> str:
    job_id = run(server, workflow, **more)
    server.ended(job_id)
    return job_id


def titled(text: str) -> dict[str, Any]:
    """A picture whose graph holds a text of people."""
    graph = picture(3)
    node = next(iter(graph.values()))
    return {**graph, "note": {"class_type": "PreviewAny", "inputs": {"source": text}, "_meta": {"title": "A note"}}} | {
        "unused": node
    }


def listed(server: Server, **query: object) -> list[dict[str, Any]]:
    answer = server.get("/jobs?" + urllib.parse.urlencode(query, doseq=True))
    return list(answer["jobs"])


def test_a_list_has_jobs_of_all_apis_newest_first(server: Server) -> None:
    by_run = done(server, picture(1))
    status, by_comfy, _ = server.ask("POST", "/api/v2/jobs", {"workflow": picture(2)})
    assert status == 201
    server.ended(by_comfy["id"])
    newest, older = listed(server, limit=2)
    assert [newest["id"], older["id"]] == [by_comfy["id"], by_run]
    assert [newest["api"], older["api"]] == ["comfy", "runpod"]
    assert older["release"] == "demo"
    assert older["status"] == "COMPLETED"
    assert older["output_count"] == 1
    assert older["created_at"] <= older["started_at"] <= older["finished_at"]


def test_a_list_is_filtered_by_state_and_text_and_paged(server: Server) -> None:
    marked = [done(server, titled(f"Рыжая ЛИСА {number}")) for number in range(3)]
    assert [job["id"] for job in listed(server, text="рыжая лиса")] == marked[::-1]
    assert listed(server, text="лиса", state=["failed", "CANCELLED"]) == []
    first = server.get("/jobs?limit=2&text=" + urllib.parse.quote("лиса"))
    assert [job["id"] for job in first["jobs"]] == marked[:0:-1]
    second = server.get(f"/jobs?limit=2&text={urllib.parse.quote('лиса')}&after={first['next']}")
    assert ([job["id"] for job in second["jobs"]], second["next"]) == ([marked[0]], None)
    assert [job["id"] for job in listed(server, text=marked[1])] == [marked[1]]


@pytest.mark.parametrize(
    "query", ["state=done", "after=x", "after=YmVmb3JlOi0x", "limit=0", "limit=x", "text=" + "x" * 501]
)
def test_a_query_that_cannot_be_is_refused_with_a_sentence(server: Server, query: str) -> None:
    status, body, _ = server.ask("GET", f"/jobs?{query}")
    assert status == 400
    assert body["error"].startswith("The request is invalid: ")


def test_a_job_is_shown_with_its_input_and_output(server: Server) -> None:
    job_id = done(server, picture(4))
    shown = server.get(f"/jobs/{job_id}")
    assert shown["input"]["workflow"] == json.loads(json.dumps(picture(4)))
    assert len(shown["output"]["images"]) == 1
    assert shown["id"] == job_id
    assert server.ask("GET", "/jobs/nobody")[0] == 404


def test_files_in_an_input_are_shown_by_their_size_and_secrets_not_at_all(server: Server) -> None:
    large = run(server, picture(5), images=[{"name": "a.png", "image": "A" * 5000}])
    assert server.get(f"/jobs/{large}")["input"]["images"][0]["image"] == "(5000 characters)"
    with_secret = run(server, slow(40), s3Config={"accessSecret": "hunter2", "accessId": "me", "bucketName": "b"})
    assert server.get(f"/jobs/{with_secret}")["input"] is None
    assert "hunter2" not in json.dumps(server.get("/jobs"))
    server.ended(large), server.ended(with_secret)


def test_a_failed_job_says_in_the_list_with_what(server: Server) -> None:
    job_id = done(server, {"1": {"class_type": "Nope", "inputs": {}}})
    (job,) = listed(server, text=job_id)
    assert job["status"] == "FAILED"
    assert "Nope" in job["error"]["message"]
    assert job["error"]["name"]
    shown = server.get(f"/jobs/{job_id}")["error"]
    assert shown["message"] == job["error"]["message"]
    assert shown["family"] == "workflow"
    assert "workflow-check" in shown["remedy"]
    assert shown["log"] == []


def test_a_jobs_files_are_listed_with_checksums_that_fit_them(server: Server, tmp_path: Path) -> None:
    job_id = done(server, picture(8))
    listed_files = server.get(f"/jobs/{job_id}/manifest")
    assert (listed_files["job_id"], listed_files["status"]) == (job_id, "COMPLETED")
    (entry,) = listed_files["outputs"]
    (tmp_path / entry["filename"]).write_bytes(server.get_bytes(f"/{entry['href']}"))
    lines = server.get_bytes(f"/jobs/{job_id}/manifest?format=sha256")
    checked = subprocess.run(["sha256sum", "-c", "-"], cwd=tmp_path, input=lines, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert server.ask("GET", "/jobs/nobody/manifest")[0] == 404


def test_outputs_are_filtered_by_the_day_on_which_they_were_made(server: Server) -> None:
    job_id = done(server, picture(9))
    day = datetime.now(UTC).date()

    def found(**query: str) -> list[str]:
        answer = server.get("/outputs?" + urllib.parse.urlencode({"job": job_id, **query}))
        return [output["job_id"] for output in answer["outputs"]]

    yesterday, tomorrow = (str(day + timedelta(days=days)) for days in (-1, 1))
    assert found(since=yesterday, until=tomorrow) == [job_id]
    assert found(until=yesterday) == found(since=str(day + timedelta(days=2))) == []
    assert server.ask("GET", "/outputs?since=soon")[0] == 400


def test_jobs_that_wait_have_a_place_and_an_estimate(server: Server) -> None:
    done(server, slow(150))
    ids = [run(server, slow(150)) for _ in range(3)]
    waiting = {job["id"]: job for job in listed(server, limit=3)}
    places = [waiting[job_id]["position"] for job_id in ids if waiting[job_id]["position"] is not None]
    assert places == list(range(1, len(places) + 1))
    assert len(places) >= 1
    estimates = [waiting[job_id]["estimate_s"] for job_id in ids if waiting[job_id]["finished_at"] is None]
    assert None not in estimates
    assert estimates == sorted(estimates)
    for job_id in ids:
        server.post(f"/cancel/{job_id}")


def test_followers_hear_of_all_jobs_after_a_snapshot(server: Server) -> None:
    with reading_events(server.url) as one, reading_events(server.url) as other:
        first, before = one.until("snapshot")
        assert before == []
        assert {"jobs", "queue"} <= set(first.data)
        other.until("snapshot")
        # Of a size that no other test has cached: its end would replace what progress was not sent yet.
        job_id = run(server, slow(120, size=104))
        for follower in (one, other):
            _, begun = follower.until("job", id=job_id, status="IN_PROGRESS")
            assert all(event.data["id"] == job_id for event in begun if event.name == "job")
            told, _ = follower.until("progress", id=job_id)
            while told.data["progress"]["phase"] == "queue":  # the engine may be at another test's job
                told, _ = follower.until("progress", id=job_id)
            assert 0 <= told.data["progress"]["fraction"] <= 1
            assert told.data["progress"]["nodes_total"] >= 1
            ended, _ = follower.until("job", id=job_id, status="COMPLETED")
            assert ended.data["output_count"] == 1


def test_a_follower_that_comes_back_hears_what_it_missed_and_no_snapshot(server: Server) -> None:
    with reading_events(server.url) as follower:
        snapshot, _ = follower.until("snapshot")
    job_id = done(server, picture(6))
    with reading_events(server.url, Last_Event_ID=str(snapshot.id)) as follower:
        _, before = follower.until("job", id=job_id, status="COMPLETED")
        assert "snapshot" not in [event.name for event in before]
    with reading_events(server.url) as follower:
        snapshot, _ = follower.until("snapshot")
    with reading_events(server.url, f"/events?after={snapshot.id}") as follower:
        second = done(server, picture(7))
        _, before = follower.until("job", id=second, status="COMPLETED")
        assert job_id not in [event.data.get("id") for event in before]


def test_a_follower_of_an_earlier_life_gets_a_snapshot(server: Server) -> None:
    with reading_events(server.url, Last_Event_ID="00000000-5") as follower:
        assert next(iter(follower)).name == "snapshot"


def test_pollers_of_a_jobs_stream_do_not_take_each_others_chunks(server: Server) -> None:
    job_id = done(server, slow(20))
    first, second = (server.get(f"/stream/{job_id}") for _ in range(2))  # each over a connection of its own
    assert first == second
    assert len(first["stream"]) > 1
    assert server.get(f"/stream/{job_id}?after={first['next']}")["stream"] == []
    assert len(server.get(f"/stream/{job_id}?after={first['next'] - 1}")["stream"]) == 1


def test_followers_see_what_a_job_is_making_unless_they_do_not_want_to(server: Server) -> None:
    with reading_events(server.url) as one, reading_events(server.url, "/events?previews=0") as other:
        one.until("snapshot"), other.until("snapshot")
        job_id = run(server, {**slow(30), "99": {"class_type": "PreviewAny", "inputs": {"source": "not cached"}}})
        preview, _ = one.until("preview", id=job_id)
        assert preview.data["content_type"] == "image/jpeg"
        with Image.open(io.BytesIO(base64.b64decode(preview.data["data"]))) as picture:
            assert max(picture.size) <= 512
        _, before = other.until("job", id=job_id, status="COMPLETED")
        assert "preview" not in [event.name for event in before]


def test_a_job_that_waits_is_let_begin_first(server: Server) -> None:
    with reading_events(server.url) as follower:
        follower.until("snapshot")
        running = run(server, slow(100))
        follower.until("job", id=running, status="IN_PROGRESS")
        first, second, low = (
            run(server, picture(11)),
            run(server, picture(12)),
            str(server.post("/run", {"input": {"workflow": picture(13)}, "policy": {"lowPriority": True}})["id"]),
        )
        moved = server.post(f"/jobs/{second}/priority", {"priority": 5})
        assert (moved["priority"], moved["position"]) == (5, 1)
        told, _ = follower.until("job", id=second, priority=5)
        assert told.data["position"] == 1
        for job_id in (running, first, second, low):
            server.ended(job_id)
        started = {job_id: server.get(f"/jobs/{job_id}")["started_at"] for job_id in (first, second, low)}
        assert sorted(started, key=started.__getitem__) == [second, first, low]
        assert server.ask("POST", f"/jobs/{second}/priority", {"priority": "high"})[0] == 400


def test_what_a_completed_job_asked_for_is_asked_again(server: Server) -> None:
    job_id = done(server, picture(14))
    assert server.ask("POST", f"/retry/{job_id}", {})[0] == 409
    again = str(server.post(f"/jobs/{job_id}/again", {})["id"])
    assert again != job_id
    server.ended(again)
    assert server.get(f"/jobs/{again}")["input"] == server.get(f"/jobs/{job_id}")["input"]


def test_a_job_whose_input_is_not_kept_cannot_be_asked_again(server: Server) -> None:
    large = done(server, picture(15), images=[{"name": "a.png", "image": base64.b64encode(bytes(300_000)).decode()}])
    status, body, _ = server.ask("POST", f"/jobs/{large}/again", {})
    assert (status, body["error_type"]) == (409, "RetryRefused")
    assert "too large to be kept" in body["error"]
    assert server.ask("POST", "/jobs/nobody/again", {})[0] == 404
