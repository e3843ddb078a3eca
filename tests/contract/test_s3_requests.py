"""What goes over the wire to S3 servers, and how far their ETags are believed."""

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from comfypin.atomic_files import FileStamp
from comfypin.storage.errors import ChecksumMismatch, PayloadUnreadable, PermissionMissing, StoreUnreachable
from comfypin.storage.interface import Payload
from comfypin.storage.part_sizes import MIB, MOST_PARTS, PART_BYTES, part_size
from comfypin.storage.retry import StoreRetry
from comfypin.storage.s3 import S3Store
from comfypin.storage.s3_settings import S3Settings
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.object_servers import S3Server
from tests.support.payloads import noise, payload_of
from tests.support.scripted_server import answering_by

_KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}


@pytest.fixture
def proxy(moto: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(moto.url) as made:
        yield made


def a_store(moto: S3Server, proxy: FaultProxy, bucket: str) -> S3Store:
    return S3Store(moto.config(moto.new_bucket(bucket), url=proxy.url), retry=StoreRetry(retries=0))


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
    store = S3Store(S3Settings.from_variables({"S3_BUCKET": "pics", **_KEYS, **environ}))
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
    config: Any = S3Settings().for_job(
        {"accessId": "k", "accessSecret": "s", "bucketName": "b", "endpointUrl": "https://mine.example"}
    )
    url = S3Store(config).signed_url("a", ttl_s=60)
    assert url.startswith("https://mine.example/b/a?")
    assert "Security-Token" not in url


class DigestServer:
    """Answers as servers do that check the signed digest of a body; gives ETags that say nothing."""

    def __init__(self, *, words: str = "XAmzContentSHA256Mismatch", allowed: bool = True) -> None:
        self.asked: list[str] = []
        self.kept: dict[str, bytes] = {}
        self.words, self.allowed = words, allowed

    def answer(self, handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        data = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.asked.append(handler.command)
        if not self.allowed:
            return 403, "<Error><Code>AccessDenied</Code></Error>"
        if handler.command == "DELETE":
            self.kept.pop(handler.path, None)
            return 204, ""
        if handler.command == "HEAD":
            kept = self.kept.get(handler.path)
            return (404, "") if kept is None else (200, kept.decode("latin-1"))
        if hashlib.sha256(data).hexdigest() != handler.headers["x-amz-content-sha256"]:
            return 400, f"<Error><Code>{self.words}</Code></Error>"
        self.kept[handler.path] = data
        return 200, ""


def a_payload(folder: Path) -> Payload:
    return payload_of(folder / "f", noise(1000))


def test_a_server_that_refuses_other_bytes_stores_nothing_and_is_believed(tmp_path: Path) -> None:
    server = DigestServer()
    with answering_by(server.answer, {"ETag": '"opaque"'}) as url:
        store = plain_store(url)
        store.check(below="p")
        assert server.asked == ["PUT"]
        store.put("a", payload_of(tmp_path / "f", bytes(1000)))
    # No GET: that the object is there under the ETag of the answer is enough.
    assert server.asked == ["PUT", "PUT", "HEAD"]
    assert list(server.kept) == ["/b/a"]


def test_a_server_with_other_words_for_it_is_asked_with_the_right_bytes() -> None:
    server = DigestServer(words="SignatureDoesNotMatch")
    with answering_by(server.answer) as url:
        plain_store(url).check()
    assert server.asked == ["PUT", "PUT", "DELETE"]
    assert not server.kept


def test_keys_that_may_not_write_are_refused_before_the_job() -> None:
    server = DigestServer(allowed=False)
    with answering_by(server.answer) as url, pytest.raises(PermissionMissing, match=r"grant s3:PutObject on b/\*"):
        plain_store(url).check()


def test_keys_that_may_not_delete_are_good_enough(moto: S3Server, proxy: FaultProxy) -> None:
    store = a_store(moto, proxy, "no-delete")
    proxy.rule = lambda seen: "500" if seen.method == "DELETE" else None
    store.check()


def test_a_server_that_checks_no_digest_is_held_to_its_etags(moto: S3Server, proxy: FaultProxy, tmp_path: Path) -> None:
    store = a_store(moto, proxy, "unchecked")
    store.check()
    proxy.rule = lambda seen: "corrupt" if seen.method == "PUT" else None
    with pytest.raises(ChecksumMismatch):
        store.put("a", a_payload(tmp_path))


def stamped(payload: Payload) -> Payload:
    with payload.path.open("rb") as file:
        return replace(payload, stamp=FileStamp.of(file.fileno()))


def test_a_file_with_its_stamp_is_not_hashed_again_and_a_changed_one_is_refused(
    moto: S3Server, proxy: FaultProxy, tmp_path: Path
) -> None:
    store = a_store(moto, proxy, "stamped")
    payload = stamped(a_payload(tmp_path))
    store.put("a", payload)
    os.utime(payload.path, ns=(1, 1))
    with pytest.raises(PayloadUnreadable, match="changed"):
        store.put("b", payload)
    assert [seen.path for seen in proxy.seen] == ["/stamped/a"]


def test_an_answer_before_the_end_of_the_body_is_heard(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse_at_once() -> None:
            connection, _ = listener.accept()
            connection.recv(2000)
            body = b"<Error><Code>AccessDenied</Code></Error>"
            head = b"HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
            connection.sendall(head + body)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):
                pass
            connection.close()

        thread = threading.Thread(target=refuse_at_once, daemon=True)
        thread.start()
        store = plain_store(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(PermissionMissing):
            store.put("a", payload_of(tmp_path / "f", bytes(15 * MIB)))
        thread.join()


def test_a_kept_connection_that_the_server_closed_is_not_used(moto: S3Server, tmp_path: Path) -> None:
    closed: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        handler.close_connection = True  # without saying so
        closed.append(handler.path)
        return 200, ""

    with answering_by(answer) as url:
        store = plain_store(url)
        for key in "abc":
            with contextlib.suppress(ChecksumMismatch, StoreUnreachable):
                store.head(key)
            time.sleep(0.05)
    assert closed == ["/b/a", "/b/b", "/b/c"]


def plain_store(url: str) -> S3Store:
    return S3Store(
        S3Settings.from_variables({"S3_BUCKET": "b", "S3_ENDPOINT_URL": url, **_KEYS}), retry=StoreRetry(retries=0)
    )


@pytest.mark.parametrize("size", [PART_BYTES + 1, 4 << 30, 200 << 30, 5 << 40])
def test_parts_are_equal_whole_mebibytes_and_few_enough(size: int) -> None:
    part = part_size(size)
    assert part % MIB == 0
    assert part >= PART_BYTES
    assert -(-size // part) <= MOST_PARTS
