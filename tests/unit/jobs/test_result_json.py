"""Results as JSON: lists by kind, addresses by type."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfypin.digest import Digest
from comfypin.engine.errors import EngineCrashed
from comfypin.jobs.errors import JobInvalid
from comfypin.jobs.job import JobResult
from comfypin.jobs.result_json import failure_to_json, report_to_json, result_to_json
from comfypin.lock.model import Release
from comfypin.outputs.interface import Delivery
from comfypin.storage.registry import SCHEMES
from tests.conftest import ROOT
from tests.support.outputs import an_output


def a_result(*deliveries: Delivery) -> JobResult:
    release = Release(name="demo", digest=Digest.of(b"lock"))
    return JobResult(job_id="j", release=release, prompt_id="p", deliveries=deliveries)


@pytest.mark.parametrize(
    ("uri", "url", "type_", "data"),
    [
        ("s3://b/k", None, "s3_url", "s3://b/k"),
        ("s3://b/k", "https://b/k?sig", "s3_url", "https://b/k?sig"),
        ("gs://b/k", None, "gcs_url", "gs://b/k"),
        ("/out/a.png", "http://host/outputs/a.png", "file", "http://host/outputs/a.png"),
    ],
)
def test_data_is_what_a_client_can_open(tmp_path: Path, uri: str, url: str | None, type_: str, data: str) -> None:
    document: Any = result_to_json(a_result(Delivery(output=an_output(tmp_path, b"x"), uri=uri, url=url)))
    (image,) = document["images"]
    assert (image["type"], image["data"]) == (type_, data)


@pytest.mark.parametrize("page", ["docs/serverless.md", "docs/ru/serverless.md"])
def test_every_type_of_a_file_is_on_the_page_of_results(page: str) -> None:
    text = (ROOT / page).read_text()
    types = {"base64", "file", *(scheme.result_type for scheme in SCHEMES.values())}
    assert {type_ for type_ in types if f"`{type_}`" not in text} == set()


def test_both_documents_say_the_same_of_a_file(tmp_path: Path) -> None:
    result = a_result(Delivery(output=an_output(tmp_path, b"x"), uri="s3://b/k"))
    report: Any = report_to_json(result)
    output: Any = result_to_json(result)
    (listed,), (image,) = report["outputs"], output["images"]
    assert {name: image[name] for name in listed if name in image} == {
        name: value for name, value in listed.items() if name != "temporary"
    }
    assert report["seconds"] == output["seconds"]


def test_a_job_without_files_says_so_as_worker_comfyui_does() -> None:
    assert result_to_json(a_result())["status"] == "success_no_images"


def test_a_failure_carries_its_facts() -> None:
    document = failure_to_json(EngineCrashed(reason="killed", log_tail=("last words",)), warnings=["w"])
    assert document["error_facts"] == {"reason": "killed", "log_tail": ["last words"]}
    assert document["errors"] == [document["error"]]
    assert document["warnings"] == ["w"]


def test_a_video_reported_among_images_is_in_both_lists(tmp_path: Path) -> None:
    still = an_output(tmp_path, b"x")
    clip = replace(an_output(tmp_path, b"y", filename="v_00001_.mp4", index=1), kind="video", reported_as="images")
    gif = replace(an_output(tmp_path, b"z", filename="g.mp4", index=2), kind="video", reported_as="gifs")
    deliveries = [Delivery(output=output, data_base64="eA==") for output in (still, clip, gif)]
    document: Any = result_to_json(a_result(*deliveries))
    assert [image["filename"] for image in document["images"]] == ["a.png", "v_00001_.mp4"]
    assert [video["filename"] for video in document["videos"]] == ["v_00001_.mp4", "g.mp4"]


def test_errors_is_there_only_if_something_went_wrong() -> None:
    assert "errors" not in result_to_json(a_result())
    assert result_to_json(replace(a_result(), errors=("left out",)))["errors"] == ["left out"]


def test_each_finding_of_a_failure_is_a_detail() -> None:
    assert failure_to_json(JobInvalid(findings=["a", "b"]))["details"] == ["a", "b"]
    crashed = failure_to_json(EngineCrashed(reason="killed", log_tail=()))
    assert crashed["details"] == [crashed["error"]]


def test_what_a_job_drew_is_in_all_of_its_results(tmp_path: Path) -> None:
    drawn = {"3.seed": 7}
    result = replace(a_result(Delivery(output=an_output(tmp_path, b"x"), uri="s3://b/k")), own_values=drawn)
    failed = failure_to_json(JobInvalid(findings=["x"]), own_values=drawn)
    assert [document["values"] for document in (result_to_json(result), report_to_json(result), failed)] == [drawn] * 3
    assert "values" not in result_to_json(replace(result, own_values={}))
