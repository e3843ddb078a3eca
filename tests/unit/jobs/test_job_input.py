"""What a job may ask for: read at the edge, every mistake at once, unknown fields warned of."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from comfypin.jobs.errors import JobInvalid
from comfypin.jobs.job_input import job_input_schema, parse_job_input

DOCS = Path(__file__).parents[3] / "docs"


def test_the_published_schema_is_the_one_that_is_used() -> None:
    published = json.loads((DOCS / "job.schema.json").read_text())
    assert published == job_input_schema(), "write it again: comfypin worker --schema > docs/job.schema.json"


@pytest.mark.parametrize(
    "document",
    [
        {"workflow": {}},
        {"workflow": {"1": {"class_type": "A", "inputs": {}}}, "images": [{"name": "a.png", "image": "AAAA"}]},
        {"workflow_name": "demo", "set": {"1.width": 3}, "timeout_s": 3, "release": "demo"},
        {"workflow": {}, "inputs": [{"name": "a.wav", "url": "s3://bucket/key", "node": "5"}]},
        {
            "workflow": {},
            "s3Config": {"accessId": "a", "accessSecret": "b", "bucketName": "c", "endpointUrl": "https://d"},
        },
    ],
)
def test_what_is_taken_fits_the_schema(document: dict[str, Any]) -> None:
    parse_job_input(document)
    jsonschema.validate(document, job_input_schema())


def test_a_text_that_is_json_is_read() -> None:
    job, _ = parse_job_input('{"workflow": {}, "release": "demo"}')
    assert job.release == "demo"


def test_a_null_stands_for_what_is_not_sent() -> None:
    nothing = ("images", "inputs", "set", "output", "release", "timeout_s", "s3Config", "comfy_org_api_key")
    assert parse_job_input({"workflow": {}, **dict.fromkeys(nothing)}) == parse_job_input({"workflow": {}})


def test_every_mistake_is_named_at_once_and_no_value_is_repeated() -> None:
    with pytest.raises(JobInvalid) as caught:
        parse_job_input({"workflow": {}, "timeout_s": -1, "images": [{"name": "a\0b", "image": "secret"}]})
    assert any(finding.startswith("timeout_s") for finding in caught.value.findings)
    assert any(finding.startswith("images.0.name") for finding in caught.value.findings)
    assert "secret" not in str(caught.value)


def test_names_that_stand_twice_are_refused() -> None:
    twice = [{"name": "a.png", "image": "AAAA"}, {"name": "a.png", "image": "AAAA"}]
    with pytest.raises(JobInvalid, match="is used twice"):
        parse_job_input({"workflow": {}, "images": twice})


@pytest.mark.parametrize("deep", ["[" * 100_000, "nope", '{"a":'])
def test_a_text_that_is_no_json_is_refused(deep: str) -> None:
    with pytest.raises(JobInvalid, match="not JSON"):
        parse_job_input(deep)


def test_unknown_fields_are_named_where_they_stand() -> None:
    _, warnings = parse_job_input(
        {"workflow": {}, "output": {"modus": "x"}, "images": [{"name": "a", "image": "b", "c": 1}]}
    )
    assert [warning.split()[2] for warning in warnings] == ["images.0.c", "output.modus"]


def test_webhook_events_in_the_input_are_told_where_they_belong() -> None:
    _, (warning,) = parse_job_input({"workflow": {}, "webhook_events": ["started"]})
    assert "webhook_events was ignored" in warning
    assert "beside" in warning
