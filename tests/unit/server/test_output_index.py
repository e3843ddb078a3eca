"""The list of outputs: a row for each output of each job that ended, whatever became of the job since."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfypin.jobs.interface import JobState
from comfypin.queue.job_changes import job_ended, job_queued_again, job_started
from comfypin.server.output_index import OutputFilter, OutputIndex
from tests.support.comfy_api import LocalApi, local_api
from tests.support.workflows import picture

SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalApi]:
    with local_api(tmp_path) as one:
        yield one


def png(color: str = "red", size: tuple[int, int] = (8, 4)) -> bytes:
    spool = io.BytesIO()
    Image.new("RGB", size, color).save(spool, "PNG")
    return spool.getvalue()


def an_output(name: str, data: bytes, *, media_type: str = "image/png", kind: str = "image") -> dict[str, Any]:
    sha256 = (name.encode().hex() * 64)[:64]
    facts = {"filename": name, "node": "2", "kind": kind, "media_type": media_type, "sha256": sha256}
    return {**facts, "size_bytes": len(data), "type": "base64", "data": base64.b64encode(data).decode()}


def end(local: LocalApi, output: object, *, state: JobState = "COMPLETED", text: str = "a cat") -> str:
    """Take a job and end it as if it had run."""
    graph = picture(1)
    graph["2"]["inputs"]["filename_prefix"] = text
    job_id = str(local.client.post("/run", json={"input": {"workflow": graph}}).json()["id"])
    local.run(local.store.write_changes, job_started(job_id, 1.0))
    ended = job_ended(job_id, state, 2.0, output=json.dumps(output), error=None)
    local.run(local.store.write_changes, ended, *local.store.changes_beside(job_id))
    return job_id


def listed(local: LocalApi, query: str = "") -> list[dict[str, Any]]:
    answer = local.client.get(f"/outputs{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["outputs"]
    return found


def test_outputs_of_all_lists_stand_in_their_order_newest_first(local: LocalApi) -> None:
    first = end(local, {"images": [an_output("a.png", png()), an_output("b.png", png())]})
    second = end(local, {"files": [an_output("c.txt", b"c", media_type="text/plain", kind="text")], "videos": []})
    shown = [(one["job_id"], one["position"], one["filename"]) for one in listed(local)]
    assert shown == [(second, 0, "c.txt"), (first, 1, "b.png"), (first, 0, "a.png")]


def test_pages_follow_each_other_without_a_gap(local: LocalApi) -> None:
    end(local, {"images": [an_output(f"{number}.png", b"x") for number in range(7)]})
    names, after = [], ""
    while after is not None:
        answer = local.client.get(f"/outputs?limit=3{after}").json()
        names += [one["filename"] for one in answer["outputs"]]
        after = f"&after={answer['next']}" if answer["next"] else None
    assert names == [f"{number}.png" for number in reversed(range(7))]


def test_filters_narrow_the_list(local: LocalApi) -> None:
    cat = end(local, {"images": [an_output("a.png", b"x")]}, text="a Cat in the rain")
    dog = end(
        local, {"videos": [an_output("b.mp4", b"x", kind="video", media_type="video/mp4")]}, state="FAILED", text="dog"
    )
    assert [one["job_id"] for one in listed(local, "?text=cat in")] == [cat]
    assert [one["job_id"] for one in listed(local, "?kind=video,audio")] == [dog]
    assert [one["job_id"] for one in listed(local, "?state=completed")] == [cat]
    assert [one["job_id"] for one in listed(local, f"?job={dog}")] == [dog]
    assert listed(local, "?workflow=none") == []


@pytest.mark.parametrize(
    "query", ["?state=NOPE", "?after=x", "?after=-1", "?limit=0", "?limit=201", "?after=" + "9" * 40]
)
def test_a_wrong_question_is_told_so(local: LocalApi, query: str) -> None:
    assert local.client.get(f"/outputs{query}").status_code == 400


def test_outputs_go_with_their_job_and_with_its_next_run(local: LocalApi) -> None:
    gone, again = (end(local, {"images": [an_output("a.png", b"x")]}, state="FAILED") for _ in range(2))
    local.run(local.store.write_changes, job_queued_again(again, 3.0), *local.store.changes_beside(again))
    assert [one["job_id"] for one in listed(local)] == [gone]
    local.run(local.store.query_rows, "DELETE FROM jobs WHERE id = ?", gone)
    assert listed(local) == []


@pytest.mark.parametrize(
    "output", [None, 5, "text", [], {"images": 5}, {"images": [1, None, "x", []]}, {"images": {"a": 1}}]
)
def test_a_strange_result_ends_its_job_all_the_same(local: LocalApi, output: object) -> None:
    job_id = end(local, output)
    assert listed(local) == []
    assert local.client.get(f"/status/{job_id}").status_code == 200


def test_jobs_of_an_older_version_are_listed_too(local: LocalApi) -> None:
    end(local, {"images": [an_output("a.png", b"x")]})
    local.run(local.store.query_rows, "DELETE FROM job_outputs")
    index = OutputIndex(local.store)
    found: Any = local.run(lambda: index.page(OutputFilter(), before=None, limit=5))
    assert [one.filename for one in found] == ["a.png"]


def test_an_output_in_the_result_itself_is_given_and_drawn(local: LocalApi) -> None:
    end(local, {"images": [an_output("a.png", png(size=(900, 300)))]})
    (output,) = listed(local)
    answer = local.client.get("/" + output["href"])
    assert (answer.content[:4], answer.headers["content-type"]) == (b"\x89PNG", "image/png")
    assert answer.headers["content-disposition"].startswith("inline")
    drawn = local.client.get("/" + output["thumbnail"])
    with Image.open(io.BytesIO(drawn.content)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("WEBP", (448, 149))
    saved = local.client.get("/" + output["href"] + "?download=1")
    assert saved.headers["content-disposition"] == "attachment; filename*=UTF-8''a.png"


@pytest.mark.parametrize(
    "media_type", ["image/svg+xml", "text/html", "application/xhtml+xml", "application/octet-stream"]
)
def test_what_could_run_in_a_browser_is_saved_instead(local: LocalApi, media_type: str) -> None:
    end(local, {"files": [an_output('we"ird\n/é.svg', SVG, media_type=media_type)]})
    (output,) = listed(local)
    answer = local.client.get("/" + output["href"])
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A9.svg"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_is_no_picture_has_no_thumbnail(local: LocalApi) -> None:
    end(local, {"images": [an_output("a.png", b"no picture"), an_output("b.svg", SVG, media_type="image/svg+xml")]})
    svg, broken = listed(local)
    assert svg["thumbnail"] is None
    assert local.client.get("/" + broken["thumbnail"]).status_code == 404
    # Nor is it tried again.
    assert listed(local)[1]["thumbnail"] is None


def test_an_output_in_a_bucket_is_where_the_bucket_has_it(local: LocalApi) -> None:
    facts = {**an_output("a.png", b""), "type": "s3_url", "uri": "s3://bucket/a.png", "data": "x"}
    end(local, {"images": [{**facts, "url": "https://bucket.example:9000/a.png?signed=1"}]})
    (output,) = listed(local)
    answer = local.client.get("/" + output["href"], follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "https://bucket.example:9000/a.png?signed=1")
    assert output["bucket"] == "other"
    assert local.client.get(f"/{output['href']}/address").json() == {
        "url": "https://bucket.example:9000/a.png?signed=1",
        "uri": "s3://bucket/a.png",
    }


def test_an_output_of_a_foreign_bucket_comes_through_the_server_only_from_public_addresses(local: LocalApi) -> None:
    facts = {**an_output("a.png", b""), "type": "s3_url", "uri": "s3://bucket/a.png", "data": "x"}
    end(local, {"images": [{**facts, "url": "http://10.1.2.3/a.png?signed=1"}]})
    (output,) = listed(local)
    answer = local.client.get(f"/{output['href']}?redirect=0")
    assert (answer.status_code, "private" in answer.text) == (502, True), answer.text


def test_no_file_of_another_folder_is_given(local: LocalApi, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    facts = {**an_output("a.png", b""), "type": "file"}
    end(local, {"images": [{**facts, "uri": str(tmp_path / "secret.txt")}, {**facts, "uri": "file:///etc/passwd"}]})
    assert [local.client.get("/" + one["href"]).status_code for one in listed(local)] == [404, 404]
