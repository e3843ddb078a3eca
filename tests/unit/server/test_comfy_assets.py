"""Assets of Comfy API v2: stored once by hash, whole or not at all, kept a while and while jobs need them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from comfypin.queue.interface import JobRow
from comfypin.queue.job_changes import JobChange, job_accepted, job_ended
from comfypin.queue.job_notes import asset_used
from comfypin.server.comfy_api import records
from tests.support.comfy_api import UPLOAD_BYTES, LocalApi, SetClock, hash_of, local_api
from tests.support.small_disk import small_disk


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalApi]:
    with local_api(tmp_path) as one:
        yield one


def error_of(local: LocalApi, method: str, path: str, **more: object) -> tuple[int, str]:
    answer = local.client.request(method, path, **more)  # type: ignore[arg-type]
    return answer.status_code, answer.json()["error"]["code"]


def test_an_upload_is_answered_with_its_hash_and_can_be_read_again(local: LocalApi) -> None:
    data = bytes(range(256)) * 1000
    asset = local.upload(data)
    assert asset["hash"] == hash_of(data)
    assert (asset["size_bytes"], asset["created_new"], asset["file_path"]) == (len(data), True, "photo.png")
    content = local.client.get(str(asset["url"]))
    assert content.content == data
    assert content.headers["etag"] == f'"{hash_of(data)}"'
    assert local.client.get(f"/api/v2/assets/{asset['id']}").json()["hash"] == hash_of(data)


def test_the_same_bytes_are_stored_once_under_two_records(local: LocalApi) -> None:
    first = local.upload(b"same")
    second = local.upload(b"same", status=200)
    assert first["id"] != second["id"]
    assert second["created_new"] is False
    assert len(local.files()) == 1
    assert local.client.delete(f"/api/v2/assets/{first['id']}").status_code == 204
    assert local.client.get(str(second["url"])).content == b"same"
    assert local.client.delete(f"/api/v2/assets/{second['id']}").status_code == 204
    assert local.files() == []
    assert error_of(local, "DELETE", f"/api/v2/assets/{second['id']}") == (404, "not_found")


def test_bytes_that_are_not_what_the_client_hashed_are_refused(local: LocalApi) -> None:
    assert local.upload(b"right", expected_hash=hash_of(b"right"))["created_new"] is True
    refused = local.upload(b"wrong", status=409, expected_hash=hash_of(b"right"))
    assert refused["error"]["code"] == "hash_mismatch"  # type: ignore[index]
    assert len(local.files()) == 1


def test_an_asset_is_made_over_bytes_that_are_here(local: LocalApi) -> None:
    local.upload(b"here", expires_in="60")
    body = {"hash": hash_of(b"here"), "file_path": "again.png", "expires_in": 7200}
    first = local.client.post("/api/v2/assets/from-hash", json=body)
    assert (first.status_code, first.json()["created_new"]) == (201, False)
    again = local.client.post("/api/v2/assets/from-hash", json=body)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert local.client.head(f"/api/v2/assets/by-hash/{hash_of(b'here')}").status_code == 200
    assert local.client.head(f"/api/v2/assets/by-hash/{hash_of(b'there')}").status_code == 404
    absent = {"json": {"hash": hash_of(b"there")}}
    assert error_of(local, "POST", "/api/v2/assets/from-hash", **absent) == (404, "blob_not_found")


def test_naming_bytes_again_never_shortens_how_long_they_are_kept(local: LocalApi) -> None:
    long = local.upload(b"kept", expires_in="7200")
    short = local.upload(b"kept", status=200, expires_in="60")
    assert short["expires_at"] == long["expires_at"]


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=4-", 206, b"456789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=9-3", 200, b"0123456789"),
        ("bytes=-0", 416, None),
        ("bytes=10-", 416, None),
        ("bytes=0-1,4-5", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
    ],
)
def test_a_range_of_the_bytes_can_be_asked_for(asked: str, status: int, part: bytes | None, local: LocalApi) -> None:
    url = str(local.upload(b"0123456789")["url"])
    answer = local.client.get(url, headers={"Range": asked})
    assert answer.status_code == status
    if part is None:
        assert answer.json()["error"]["code"] == "range_not_satisfiable"
        assert "which has 10 bytes" in answer.json()["error"]["message"]
        assert answer.headers["content-range"] == "bytes */10"
    else:
        assert answer.content == part


def test_no_part_of_an_empty_asset_can_be_asked_for(local: LocalApi) -> None:
    url = str(local.upload(b"")["url"])
    assert local.client.get(url, headers={"Range": "bytes=0-"}).status_code == 416
    answer = local.client.get(url)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_changed_etag_gives_the_whole_content(local: LocalApi) -> None:
    url = str(local.upload(b"0123456789")["url"])
    answer = local.client.get(url, headers={"Range": "bytes=0-3", "If-Range": '"another"'})
    assert (answer.status_code, answer.content) == (200, b"0123456789")


def test_an_asset_goes_when_it_was_kept_long_enough(local: LocalApi) -> None:
    asset = local.upload(b"short", expires_in="60")
    local.clock.now += 61
    assert error_of(local, "GET", f"/api/v2/assets/{asset['id']}") == (404, "not_found")
    local.run(local.api.assets.sweep)
    assert local.files() == []


def job(local: LocalApi, *changes: JobChange) -> None:
    local.run(local.store.write_changes, job_accepted(JobRow(id="job", state="IN_QUEUE", created_at=1.0), {}), *changes)


def end_job(local: LocalApi) -> None:
    local.run(local.store.write_changes, job_ended("job", "COMPLETED", 2.0, output=None, error=None))


def test_what_a_waiting_job_needs_is_neither_deleted_nor_swept(local: LocalApi) -> None:
    asset = local.upload(b"needed", expires_in="60")
    job(local, asset_used("job", str(asset["hash"])))
    local.clock.now += 61
    local.run(local.api.assets.sweep)
    assert local.client.get(str(asset["url"])).content == b"needed"
    assert error_of(local, "DELETE", f"/api/v2/assets/{asset['id']}") == (409, "asset_in_use")
    end_job(local)
    local.run(local.api.assets.sweep)
    assert local.files() == []


def test_an_output_stays_as_long_as_its_job(local: LocalApi, tmp_path: Path) -> None:
    (tmp_path / "out.png").write_bytes(b"picture")
    job(local)
    end_job(local)
    stored = records.Asset(
        id="output",
        hash=str(local.upload(b"picture")["hash"]),
        size_bytes=7,
        content_type="image/png",
        file_path="out.png",
        created_at=1.0,
        job_id="job",
    )
    local.run(local.store.write_changes, records.asset_added(stored))
    assert error_of(local, "DELETE", "/api/v2/assets/output") == (409, "asset_in_use")
    local.run(local.store.write_changes, JobChange("DELETE FROM jobs WHERE id = ?", ("job",)))
    assert error_of(local, "GET", "/api/v2/assets/output") == (404, "not_found")


def test_a_key_is_taken_by_the_first_upload_and_not_by_one_that_fails(local: LocalApi) -> None:
    local.upload(b"a", key="once", status=409, expected_hash=hash_of(b"b"))
    local.upload(b"a", key="once")
    reused = local.upload(b"a", key="once", status=422)
    assert reused["error"]["code"] == "idempotency_key_reuse"  # type: ignore[index]


def test_keys_and_assets_are_kept_by_the_next_server_and_half_uploads_are_not(tmp_path: Path) -> None:
    clock = SetClock()
    with local_api(tmp_path, clock) as local:
        asset = local.upload(b"kept", key="once")
        (tmp_path / "assets" / "incoming" / "half").write_bytes(b"ha")
        orphan = tmp_path / "assets" / "aa" / ("aa" + "0" * 62)
        orphan.parent.mkdir(exist_ok=True)
        orphan.write_bytes(b"placed, and then the power went")
    with local_api(tmp_path, clock) as local:
        assert local.client.get(str(asset["url"])).content == b"kept"
        assert local.upload(b"kept", key="once", status=422)["error"]["code"] == "idempotency_key_reuse"  # type: ignore[index]
        local.run(local.api.assets.sweep)
        assert len(local.files()) == 1
        clock.now += 86_401
        local.upload(b"new", key="once")


@pytest.mark.parametrize(
    "fields",
    [
        {"file_path": "/etc/passwd"},
        {"file_path": "../up.png"},
        {"file_path": ""},
        {"content_type": ""},
        {"expected_hash": "md5:1"},
        {"expires_in": "59"},
        {"expires_in": "604801"},
        {"expires_in": "soon"},
    ],
)
def test_a_label_that_is_wrong_is_named_and_nothing_is_stored(fields: dict[str, str], local: LocalApi) -> None:
    sent = {"content_type": "image/png", "file_path": "a.png", **fields}
    answer = local.client.post("/api/v2/assets", files={"file": ("a.png", b"a")}, data=sent)
    assert answer.status_code == 422
    assert next(iter(fields)) in answer.json()["error"]["message"]
    assert local.files() == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"nonsense"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nhalf'),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\na\r\n--x--\r\n'),
    ],
)
def test_a_body_that_is_no_upload_is_refused(content_type: str, body: bytes, local: LocalApi) -> None:
    sent = {"content": body, "headers": {"Content-Type": content_type}}
    assert error_of(local, "POST", "/api/v2/assets", **sent) == (422, "invalid_request")
    assert local.files() == []


def test_a_file_over_the_limit_is_refused_and_leaves_nothing(local: LocalApi) -> None:
    refused = local.upload(b"x" * (UPLOAD_BYTES + 1), status=422)
    assert refused["error"]["code"] == "asset_too_large"  # type: ignore[index]
    assert local.files() == []


@pytest.mark.needs("unshare")
def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mb=0.5) as disk, local_api(tmp_path, blobs=disk.path / "assets") as local:
        refused = local.upload(bytes(900_000), status=500)
        assert refused["error"]["code"] == "upstream_error"  # type: ignore[index]
        assert "disk is full" in refused["error"]["message"]  # type: ignore[index]
        assert local.files() == []
        local.upload(b"small")


def test_only_the_upload_may_have_a_larger_body(local: LocalApi) -> None:
    large = {"content": b"x" * 100_001}
    assert error_of(local, "POST", "/api/v2/assets/from-hash", **large) == (422, "request_too_large")


def test_what_the_gate_and_the_router_refuse_is_told_in_the_envelope(local: LocalApi) -> None:
    assert error_of(local, "GET", "/api/v2/nothing") == (404, "not_found")
    assert error_of(local, "GET", "/api/v2/jobs/%0Aline") == (404, "not_found")
    unknown = local.client.get("/nothing").json()
    assert (unknown["detail"], unknown["error"].partition(":")[0]) == ("Not Found", "There is no path /nothing here")
    wrong = local.client.get("/run")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["error"] == "GET does nothing at /run: send POST."
    assert error_of(local, "PUT", "/api/v2/assets/1") == (405, "method_not_allowed")
    foreign = {"headers": {"Origin": "https://evil.example"}}
    assert error_of(local, "GET", "/api/v2/assets/1", **foreign) == (403, "forbidden")


def test_links_lead_back_through_a_proxy_and_its_prefix(local: LocalApi) -> None:
    asset = local.upload(b"a")
    proxied = {"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/deployment/7"}
    shown = local.client.get(f"/api/v2/assets/{asset['id']}", headers=proxied).json()
    assert shown["url"] == f"https://localhost/deployment/7/api/v2/assets/{asset['id']}/content"
    odd = {"X-Forwarded-Prefix": "//evil.example/<b>"}
    assert local.client.get(f"/api/v2/assets/{asset['id']}", headers=odd).json()["url"] == asset["url"]
