"""What goes over the wire to S3 servers, and how far their ETags are believed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from comfypin.objects.config import S3Config
from comfypin.objects.retry import Retry
from comfypin.objects.s3 import MIB, MOST_PARTS, PART_BYTES, S3Store, part_size
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.object_servers import S3Server
from tests.support.payloads import noise, payload_of

_KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}


@pytest.fixture
def proxy(moto: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(moto.url) as made:
        yield made


def a_store(moto: S3Server, proxy: FaultProxy, bucket: str) -> S3Store:
    return S3Store(moto.config(moto.new_bucket(bucket), url=proxy.url), retry=Retry(retries=0))


@pytest.mark.parametrize(("size", "bucket"), [(1000, "plain-small"), (PART_BYTES + 1, "plain-large")])
def test_no_checksum_is_sent_that_servers_refuse(
    moto: S3Server, proxy: FaultProxy, tmp_path: Path, size: int, bucket: str
) -> None:
    a_store(moto, proxy, bucket).put("a", payload_of(tmp_path / "f", noise(size)))
    for seen in proxy.seen:
        headers = {name.lower(): value for name, value in seen.headers.items()}
        assert not [name for name in headers if "checksum" in name or "trailer" in name]
        assert "aws-chunked" not in headers.get("content-encoding", "")
        assert len(headers["x-amz-content-sha256"]) == 64


def test_lies_about_etags_cost_a_look_at_the_object_and_end_in_indifference(
    moto: S3Server, proxy: FaultProxy, tmp_path: Path
) -> None:
    store = a_store(moto, proxy, "opaque")
    proxy.rule = lambda seen: "lie"
    for number in range(5):
        store.put(str(number), payload_of(tmp_path / "f", noise(1000)))
    assert (proxy.count("PUT"), proxy.count("GET")) == (5, 3)


def test_a_server_that_told_the_truth_once_is_held_to_it(moto: S3Server, proxy: FaultProxy, tmp_path: Path) -> None:
    store = a_store(moto, proxy, "truthful")
    store.put("first", payload_of(tmp_path / "f", b"x"))
    proxy.rule = lambda seen: "lie"
    for number in range(5):
        store.put(str(number), payload_of(tmp_path / "f", noise(1000)))
    assert proxy.count("GET") == 5


@pytest.mark.parametrize(
    ("environ", "host", "path"),
    [
        ({}, "pics.s3.us-east-1.amazonaws.com", "/a.png"),
        ({"AWS_REGION": "eu-west-3"}, "pics.s3.eu-west-3.amazonaws.com", "/a.png"),
        ({"S3_ENDPOINT_URL": "https://minio.example"}, "minio.example", "/pics/a.png"),
        (
            {"S3_ENDPOINT_URL": "https://oss.example", "S3_ADDRESSING_STYLE": "virtual"},
            "pics.oss.example",
            "/a.png",
        ),
        ({"R2_ACCOUNT_ID": "0" * 32}, f"{'0' * 32}.r2.cloudflarestorage.com", "/pics/a.png"),
    ],
)
def test_requests_go_to_the_buckets_address(environ: dict[str, str], host: str, path: str) -> None:
    store = S3Store(S3Config.from_variables({"S3_BUCKET": "pics", **_KEYS, **environ}))
    url = urlsplit(store.signed_url("a.png", ttl_s=60))
    assert (url.hostname, url.path) == (host, path)
    assert "X-Amz-Expires=60" in url.query


def test_variables_of_the_process_do_not_leak_into_a_jobs_own_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_SESSION_TOKEN": "foreign",
        "AWS_ENDPOINT_URL_S3": "https://foreign.example",
        "AWS_ENDPOINT_URL": "https://foreign.example",
    }.items():
        monkeypatch.setenv(name, value)
    config: Any = S3Config().for_job(
        {"accessId": "k", "accessSecret": "s", "bucketName": "b", "endpointUrl": "https://mine.example"}
    )
    url = S3Store(config).signed_url("a", ttl_s=60)
    assert url.startswith("https://mine.example/b/a?")
    assert "Security-Token" not in url


@pytest.mark.parametrize("size", [PART_BYTES + 1, 4 << 30, 200 << 30, 5 << 40])
def test_parts_are_equal_whole_mebibytes_and_few_enough(size: int) -> None:
    part = part_size(size)
    assert part % MIB == 0
    assert part >= PART_BYTES
    assert -(-size // part) <= MOST_PARTS
