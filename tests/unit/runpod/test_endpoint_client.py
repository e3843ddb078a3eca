"""What an endpoint's answer becomes on this machine."""

import base64
from pathlib import Path

import pytest

from comfypin.runpod.endpoint_client import run_endpoint_job, save_outputs
from comfypin.runpod.errors import JobTooLarge
from comfypin.runpod.management_api import ManagementApi


@pytest.mark.parametrize(
    ("kind", "address"), [("gcs_url", "gs://bucket/a.png"), ("s3_url", "s3://bucket/a.png"), ("file", "/out/a.png")]
)
def test_an_output_that_was_delivered_elsewhere_is_told_by_its_address(tmp_path: Path, kind: str, address: str) -> None:
    (saved,) = save_outputs({"images": [{"filename": "a.png", "type": kind, "data": address}]}, tmp_path)
    assert (saved.path, saved.uri) == (None, address)


def test_two_outputs_of_one_name_are_two_files(tmp_path: Path) -> None:
    header = b"x" * 100
    images = [
        {"filename": "a.png", "type": "base64", "data": base64.b64encode(header + end).decode()} for end in (b"1", b"2")
    ]
    saved = save_outputs({"images": images}, tmp_path)
    assert [item.path.name for item in saved if item.path] == ["a.png", "a-2.png"]


def test_a_job_that_no_endpoint_takes_is_not_sent() -> None:
    api = ManagementApi(key="k", base_url="http://127.0.0.1:9", sleep=lambda _s: None)
    with pytest.raises(JobTooLarge, match="bucket"):
        run_endpoint_job(api, "e", {"workflow": {}, "inputs": ["x" * 10_000_000]}, timeout_s=1)
