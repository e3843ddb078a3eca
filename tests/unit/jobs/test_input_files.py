"""A job's input files: their bytes as they were sent, within limits."""

import base64
from pathlib import Path
from typing import Any

import pytest

from comfypin.digest import Digest
from comfypin.jobs.errors import InputUnusable
from comfypin.jobs.input_files import InputLimits
from comfypin.jobs.job_input import parse_job_input
from comfypin.storage.interface import Payload
from comfypin.testing import MemoryStore
from tests.support.served import served
from tests.support.services import a_fetcher


def bring(folder: Path, job: dict[str, Any], **more: Any) -> tuple[str, ...]:
    return a_fetcher(**more).fetch_inputs(parse_job_input({"workflow": {}, **job})[0], folder)


def test_base64_and_data_uris_give_their_bytes(tmp_path: Path) -> None:
    data = base64.b64encode(b"hello").decode()
    items = [
        {"name": "a", "data": data},
        {"name": "b", "data": f"data:text/plain;base64,{data}"},
        {"name": "c", "data": "data:,he%6Clo"},
        {"name": "d/e", "data": f"{data[:3]}\n{data[3:]}"},
    ]
    bring(tmp_path, {"inputs": items})
    assert {(tmp_path / name).read_bytes() for name in ("a", "b", "c", "d/e")} == {b"hello"}


def test_an_input_may_point_a_node_at_its_file(tmp_path: Path) -> None:
    assert bring(tmp_path, {"inputs": [{"name": "a", "data": "AAAA", "node": "7"}]}) == (f"7={tmp_path / 'a'}",)


@pytest.mark.parametrize("scheme", ["gs", "s3", "az"])
def test_buckets_are_read(tmp_path: Path, scheme: str) -> None:
    store = MemoryStore()
    file = tmp_path / "source"
    file.write_bytes(b"pixels")
    store.put("some/key.png", Payload(path=file, size_bytes=6, sha256=Digest.of(b"pixels")))
    item = {"name": "a", "url": f"{scheme}://pictures/some/key.png"}
    bring(tmp_path, {"inputs": [item]}, stores={f"{scheme}://pictures": store})
    assert (tmp_path / "a").read_bytes() == b"pixels"


@pytest.mark.parametrize("data", ["%%%", "AAAAA", "data:image/png;base64", "data:;base64,%%"])
def test_what_is_not_base64_is_refused(tmp_path: Path, data: str) -> None:
    with pytest.raises(InputUnusable, match="'a'"):
        bring(tmp_path, {"inputs": [{"name": "a", "data": data}]})


def test_a_file_may_not_be_larger_than_the_limit(tmp_path: Path) -> None:
    with pytest.raises(InputUnusable, match="larger than"):
        bring(tmp_path, {"images": [{"name": "a", "image": "A" * 400}]}, limits=InputLimits(file_bytes=100))


def test_all_files_together_may_not_be_larger_than_theirs(tmp_path: Path) -> None:
    images = [{"name": name, "image": "AAAA"} for name in "ab"]
    with pytest.raises(InputUnusable, match="all inputs together"):
        bring(tmp_path, {"images": images}, limits=InputLimits(total_bytes=5))


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputUnusable, match="leaves the input folder"):
        bring(tmp_path / "in", {"images": [{"name": name, "image": "AAAA"}]})
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "169.254.169.254", "[::1]", "10.0.0.1", "localhost", "2130706433", "[::ffff:10.0.0.1]"]
)
def test_private_addresses_are_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(InputUnusable):
        bring(tmp_path, {"inputs": [{"name": "a", "url": f"http://{host}:9/x"}]})


@pytest.mark.parametrize("field", ["images", "inputs"])
def test_an_address_where_base64_is_expected_is_fetched(field: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.png").write_bytes(b"pixels")
    with served(tmp_path / "there") as (url, _):
        sent = {"name": "in.png", "image" if field == "images" else "data": f" {url}/a.png\n"}
        bring(tmp_path / "in", {field: [sent]}, public_only=False)
    assert (tmp_path / "in" / "in.png").read_bytes() == b"pixels"


def test_it_is_fetched_by_the_rules_of_addresses(tmp_path: Path) -> None:
    with pytest.raises(InputUnusable, match="127\\.0\\.0\\.1"):
        bring(tmp_path, {"images": [{"name": "a", "image": "http://127.0.0.1:9/x.png"}]})
