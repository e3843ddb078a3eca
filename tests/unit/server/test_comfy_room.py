"""Comfy API v2's disk and buckets: room for assets, outputs that lie in a bucket, where a node failed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfypin.queue import job_changes
from comfypin.queue.interface import JobRow
from comfypin.server.comfy_api.assets import Assets
from comfypin.server.comfy_api.output_assets import ForeignOutputs
from comfypin.server.comfy_api.own_bucket import OwnBucket, read_range
from comfypin.storage.interface import StoredObject
from tests.support.comfy_api import LocalApi, SetClock, local_api

DATA = bytes(range(200))


class Bucket:
    """A bucket of one object, `out/job/a.png`."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url
        self.objects = {"out/job/a.png": DATA}

    def head(self, key: str) -> StoredObject | None:
        data = self.objects.get(key)
        return None if data is None else StoredObject(key=key, size_bytes=len(data), uri=f"s3://mine/{key}")

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        data = self.objects[key][offset:]
        yield from (data[start : start + 64] for start in range(0, len(data), 64))

    def own(self) -> OwnBucket:
        return OwnBucket(
            addresses=("s3://mine/", "r2://mine/"),
            prefix="out",
            open_reader=lambda: self,
            url_of_key=lambda key: f"{self.url}/{key}" if self.url else None,
        )


def end_job(api: LocalApi, job_id: str, output: str, *, job_input: object = None, state: Any = "COMPLETED") -> None:
    """A job of another API that has ended."""
    row = JobRow(id=job_id, state="IN_QUEUE", created_at=api.clock())
    ended = job_changes.job_ended(job_id, state, api.clock(), output=output, error=None)
    api.run(api.store.write_changes, job_changes.job_accepted(row, job_input or {}), ended)


def with_bucket(api: LocalApi, bucket: Bucket | None) -> None:
    own = None if bucket is None else bucket.own()
    foreign = ForeignOutputs(api.api.assets, api.api.site.outputs, records=api.api.records, bucket=own)
    object.__setattr__(api.api, "foreign", foreign)
    object.__setattr__(api.api, "bucket", own)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[LocalApi]:
    with local_api(tmp_path) as running:
        yield running


def in_bucket(uri: str, url: str = "") -> str:
    shown = f', "url": "{url}"' if url else ""
    return f'{{"images": [{{"filename": "ä b.png", "type": "s3_url", "uri": "{uri}", "size_bytes": 200{shown}}}]}}'


def content_of(api: LocalApi, job_id: str, **headers: str) -> Any:
    (output,) = api.client.get(f"/api/v2/jobs/{job_id}").json()["outputs"]
    return api.client.get(f"/api/v2/assets/{output['id']}/content", headers=headers, follow_redirects=False)


def test_an_output_in_the_servers_bucket_comes_through_the_server(api: LocalApi) -> None:
    with_bucket(api, Bucket())
    end_job(api, "job", in_bucket("s3://mine/out/job/a.png"))
    answer = content_of(api, "job")
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-length"] == "200"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "%C3%A4%20b.png" in answer.headers["content-disposition"]


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, DATA[:10]), ("bytes=190-", 206, DATA[190:]), ("bytes=-5", 206, DATA[-5:]),
        ("bytes=100-900", 206, DATA[100:]), ("bytes=200-", 416, None), ("bytes=-0", 416, None),
        ("bytes=9-3", 200, DATA), ("items=0-1", 200, DATA), ("bytes=0-1,4-5", 200, DATA), ("bytes=-", 200, DATA),
    ],
)  # fmt: skip
def test_a_part_of_it_can_be_asked_for(api: LocalApi, asked: str, status: int, part: bytes | None) -> None:
    with_bucket(api, Bucket())
    end_job(api, "job", in_bucket("s3://mine/out/job/a.png"))
    answer = content_of(api, "job", Range=asked)
    assert answer.status_code == status
    if part is None:
        assert answer.json()["error"]["code"] == "range_not_satisfiable"
    else:
        assert answer.content == part
    assert ("content-range" in answer.headers) is (status != 200)


def test_a_bucket_that_makes_addresses_is_led_to_with_a_fresh_one(api: LocalApi) -> None:
    with_bucket(api, Bucket("https://signed.example"))
    end_job(api, "job", in_bucket("s3://mine/out/job/a.png", url="https://signed.example/that-has-ended"))
    answer = content_of(api, "job")
    assert answer.status_code == 302
    assert answer.headers["location"] == "https://signed.example/out/job/a.png"


def test_what_is_no_more_in_the_bucket_is_not_found(api: LocalApi) -> None:
    bucket = Bucket()
    with_bucket(api, bucket)
    end_job(api, "job", in_bucket("s3://mine/out/job/a.png"))
    bucket.objects.clear()
    assert content_of(api, "job").status_code == 404
    with_bucket(api, None)
    assert content_of(api, "job").status_code == 404


@pytest.mark.parametrize("uri", ["s3://mine/secret.txt", "s3://mine/outside/a", "s3://other/out/a", "gs://mine/out/a"])
def test_only_outputs_below_the_servers_own_prefix_are_read(api: LocalApi, uri: str) -> None:
    with_bucket(api, Bucket())
    end_job(api, "job", in_bucket(uri))
    assert api.client.get("/api/v2/jobs/job").json()["outputs"] == []


def test_a_job_with_a_bucket_of_its_own_reads_nothing_of_the_servers(api: LocalApi) -> None:
    with_bucket(api, Bucket())
    own = {"s3Config": {"accessId": "a", "accessSecret": "b", "bucketName": "mine", "endpointUrl": "https://x.example"}}
    end_job(api, "job", in_bucket("s3://mine/out/job/a.png"), job_input=own)
    assert api.client.get("/api/v2/jobs/job").json()["outputs"] == []


def test_ranges_are_within_the_object() -> None:
    assert read_range("bytes=0-0", 0) is None
    assert read_range(None, 0) == range(0)
    assert read_range("bytes=0-99999999999999999", 3) == range(3)


def test_a_failed_node_says_where_without_the_servers_folders(api: LocalApi) -> None:
    failed = '{"error": "no", "error_type": "NodeFailed", "error_facts": {"node_id": "3"}, "error_traceback": "line 3"}'
    end_job(api, "job", failed, state="FAILED")
    error = api.client.get("/api/v2/jobs/job").json()["error"]
    assert (error["code"], error["node_id"], error["traceback"]) == ("node_execution_error", "3", "line 3")


def a_room(api: LocalApi, keep_bytes: int, removed: list[str]) -> Assets:
    return Assets(
        api.api.records,
        api.blobs,
        keep_s=3600,
        clock=api.clock,
        keep_bytes=keep_bytes,
        on_job_removed=removed.append,
    )


def test_the_oldest_uploads_go_first_and_each_byte_counts_once(tmp_path: Path) -> None:
    with local_api(tmp_path, SetClock()) as api:
        first, second = api.upload(b"a" * 600)["id"], api.upload(b"b" * 600, file_path="b.png")["id"]
        for name in ("c.png", "d.png"):
            api.clock.now += 1
            api.upload(b"c" * 600, file_path=name, status=201 if name == "c.png" else 200)
        removed: list[str] = []
        room = a_room(api, 1300, removed)
        api.run(room.sweep)
        assert len(api.files()) == 3  # fresh: their job is about to come
        api.clock.now += 400
        api.run(room.sweep)
        assert len(api.files()) == 2
        found = [api.client.get(f"/api/v2/assets/{asset_id}").status_code for asset_id in (first, second)]
        assert sorted(found) == [200, 404]
        assert removed == []


def test_results_go_with_their_outputs_and_followers_are_told(tmp_path: Path) -> None:
    with local_api(tmp_path, SetClock()) as api:
        picture = '{"images": [{"filename": "a.png", "type": "base64", "data": "%s"}]}'
        for number in range(3):
            api.clock.now += 10
            end_job(api, f"job-{number}", picture % ("QUJD" * (100 + number)))
            assert len(api.client.get(f"/api/v2/jobs/job-{number}").json()["outputs"]) == 1
        removed: list[str] = []
        api.run(a_room(api, 2000, removed).sweep)
        assert removed == ["job-0"]
        assert api.client.get("/api/v2/jobs/job-0").status_code == 404
        assert len(api.files()) == 2
