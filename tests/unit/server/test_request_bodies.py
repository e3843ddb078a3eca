"""Bodies of requests, read at the edge."""

import json
from typing import Any

import pytest

from comfypin.jobs.secret_fields import holds_secret
from comfypin.server.errors import RequestInvalid, RequestTooComplex
from comfypin.server.request_bodies import (
    MAX_LEVELS,
    MAX_VALUES,
    job_for_workflow,
    longest_wait_s,
    parse_json_body,
    read_job_request,
)
from comfypin.workflow.settable_inputs import WorkflowInput


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"[" + b"[]," * MAX_VALUES + b"[]]", "values"),
        (b"{" + b",".join(b'"%d":1' % number for number in range(MAX_VALUES + 2)) + b"}", "values"),
        (b'"' + b"\\u0041" * 2_000_001 + b'"', "escaped"),
        (nested(MAX_LEVELS + 1), "levels"),
        (nested(100_000), "levels"),
        (json.dumps({"input": json.dumps({"workflow": json.loads(nested(MAX_LEVELS))})}).encode(), "levels"),
    ],
    ids=["lists", "fields", "escapes", "levels", "recursion", "text"],
)
def test_json_that_would_keep_others_waiting_is_refused(body: bytes, what: str) -> None:
    with pytest.raises((RequestTooComplex, RequestInvalid), match=what):
        read_job_request(body)


@pytest.mark.timeout(25)  # parsing takes half a minute
def test_a_refusal_costs_no_parsing() -> None:
    with pytest.raises(RequestTooComplex):
        parse_json_body(b"[" + b"[]," * 19_000_000 + b"[]]")


def test_large_texts_are_no_large_structure() -> None:
    picture = "A" * 20_000_000
    assert parse_json_body(json.dumps({"image": picture}).encode()) == {"image": picture}
    assert parse_json_body(nested(MAX_LEVELS - 1)) is not None


def test_a_job_that_is_a_text_is_read_like_any_other() -> None:
    job = {"workflow": {}, "images": []}
    body = {"input": json.dumps(job), "s3Config": {"accessId": "a"}}
    assert read_job_request(json.dumps(body).encode()).input == {**job, "s3Config": {"accessId": "a"}}
    assert read_job_request(b'{"input": "no JSON"}').input == "no JSON"


@pytest.mark.parametrize(
    ("host", "asked_ms", "waited_s"),
    [
        ("abc-8000.proxy.runpod.net", 90_000, 90),
        ("abc-8000.proxy.runpod.net", 300_000, 90),
        ("abc-8000.proxy.runpod.net", 0, 0),
        ("203.0.113.5", 300_000, 300),
        (None, 300_000, 300),
    ],
)
def test_nobody_waits_longer_than_runpods_proxy_does(host: str | None, asked_ms: int, waited_s: float) -> None:
    assert longest_wait_s(host, asked_ms) == waited_s


@pytest.mark.parametrize("body", [b"", b"{", b'{"input": NaN}', b'{"input": 1e999}', b"\xff"])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(RequestInvalid, match="not JSON"):
        read_job_request(body)


@pytest.mark.parametrize(
    "job",
    [
        {"s3Config": {"accessId": "a"}},
        {"S3Config": {"accessId": "a"}},
        {"s3_config": {"accessId": "a"}},
        {"S3-CONFIG": "x"},
        {"bucket": {"accessSecret": "x"}},
        {"comfy_org_api_key": "x"},
        {"workflow": {"prompt": {}, "extra_data": {"auth_token_comfy_org": "x"}}},
        {"workflow": json.dumps({"extra_data": {"api_key_comfy_org": "x"}})},
        {"set": {"5.api_key": "x"}},
        {"workflow": {"5": {"inputs": {"password": "x"}}}},
        {"inputs": [{"url": "https://user:pass@example.com/a.png"}]},
        {"inputs": [{"url": "https://b.example.com/a.png?X-Amz-Signature=0&X-Amz-Expires=1"}]},
        {"inputs": [{"url": "https://b.example.com/a.png?sv=1&sig=0"}]},
        {"note": "s3Config: {accessSecret: x}"},
        {"note": '{"api_key": "x",}'},
        {"headers": [{"name": "Authorization", "value": "Bearer 0123456789abcdef"}]},
        json.dumps({"S3Config": {"accessId": "a"}}),
        json.dumps(json.dumps({"s3Config": {"accessId": "a"}})),
        '{"s3\\u0043onfig": {"accessId": "a"}}',
        '{"s3\\u0043onfig": {"accessId": "a"},}',
    ],
)
def test_a_secret_is_found_whatever_its_form(job: Any) -> None:
    assert holds_secret(job)


@pytest.mark.parametrize(
    "job",
    [
        {"workflow": {"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a {red|blue} secret garden"}}}},
        {"workflow": {"6": {"inputs": {"token_normalization": "none", "max_tokens": 5, "token": ["5", 0]}}}},
        {"inputs": [{"url": "https://example.com/a.png?width=5"}], "comfy_org_api_key": ""},
        {"images": [{"name": "a.png", "image": "iVBORw0KGgo" * 1000}]},
    ],
)
def test_what_is_no_secret_may_be_retried(job: Any) -> None:
    assert not holds_secret(job)


@pytest.mark.parametrize("text", ["x" * 65_000, "secret" * 10_000, "secret" + " " * 65_000, "secret_" + "\\" * 60_000])
@pytest.mark.timeout(10)  # a repetition without a bound takes minutes
def test_texts_of_strangers_are_looked_through_in_no_time(text: str) -> None:
    assert not holds_secret({"text": text})


@pytest.mark.parametrize("address", ["http://[", "https://[::1", "http://a]b/x.png"])
def test_an_address_that_is_none_is_left_to_whoever_fetches_it(address: str) -> None:
    image = WorkflowInput(name="photo", node_id="1", input_name="image", kind="file", type="COMBO", default="a.png")
    job: Any = job_for_workflow("demo", {"photo": address}, [image])
    assert [media["url"] for media in job["inputs"]] == [address]


def test_a_typed_workflow_takes_models_beside_its_inputs() -> None:
    lora = {"source": "https://example.com/cat.safetensors", "folder": "loras"}
    assert job_for_workflow("w", {"models": [lora]}, [])["models"] == [lora]
    for wrong, words in (({}, "a list"), ([{"folder": 5, "source": "https://e.com/a"}], "models.0")):
        with pytest.raises(RequestInvalid, match=words):
            job_for_workflow("w", {"models": wrong}, [])


@pytest.mark.parametrize(
    ("policy", "priority"),
    [({}, 0), ({"lowPriority": True}, -1), ({"lowPriority": False}, 0), ({"priority": 7, "lowPriority": True}, 7)],
)
def test_a_policy_names_the_priority(policy: dict[str, Any], priority: int) -> None:
    assert read_job_request(json.dumps({"input": {}, "policy": policy}).encode()).route.rank == priority


@pytest.mark.parametrize("policy", [{"lowPriority": 1}, {"priority": True}, {"priority": 1.5}, {"priority": 1001}])
def test_a_priority_that_is_none_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid, match=r"policy\.(lowP|p)riority"):
        read_job_request(json.dumps({"input": {}, "policy": policy}).encode())
