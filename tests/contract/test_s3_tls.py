"""S3 over TLS: what is signed there, and which certificates are trusted."""

import hashlib
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from comfypin.storage.errors import CertificatesUnusable, ChecksumMismatch, StoreUnreachable
from comfypin.storage.part_sizes import PART_BYTES
from comfypin.storage.retry import StoreRetry
from comfypin.storage.s3 import S3Store
from comfypin.storage.s3_settings import S3Settings
from tests.support.payloads import noise, payload_of
from tests.support.tls import Certificate


class TlsServer:
    """Takes whole objects and parts, and answers with the md5 sums that S3 gives them."""

    def __init__(self, folder: Path) -> None:
        certificate = Certificate.made(folder)
        self.certificate = certificate.path
        self.digests: list[tuple[str, str]] = []
        self.parts: dict[int, bytes] = {}
        self.damaged = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = certificate.of_server().wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "TlsServer":
        self._thread.start()
        return self

    def __exit__(self, *ignored: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def answer(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.digests.append((self.command, self.headers["x-amz-content-sha256"]))
                etag, text, length = outer.take(self.command, self.path, data)
                self.send_response(200)
                self.send_header("ETag", f'"{etag}"')
                self.send_header("Content-Length", str(len(text) if length is None else length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(text.encode("latin-1"))

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

        return Handler

    def take(self, method: str, path: str, data: bytes) -> tuple[str, str, int | None]:
        whole = b"".join(self.parts[number] for number in sorted(self.parts))
        sums = b"".join(hashlib.md5(self.parts[number]).digest() for number in sorted(self.parts))
        joined = f"{hashlib.md5(sums).hexdigest()}-{len(self.parts)}"
        if method == "PUT" and "partNumber=" in path:
            number = int(path.split("partNumber=")[1].split("&", maxsplit=1)[0])
            self.parts[number] = b"x" + data[1:] if self.damaged else data
        elif method == "POST":
            return "", "<r><UploadId>u</UploadId></r>" if "uploads" in path else f"<r><ETag>{joined}</ETag></r>", None
        elif method == "HEAD":
            return joined, "", len(whole)
        elif method == "GET":
            return joined, whole.decode("latin-1"), None
        return hashlib.md5(data).hexdigest(), "", None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TlsServer]:
    with TlsServer(tmp_path) as made:
        yield made


def store_at(server: TlsServer, **environ: str) -> S3Store:
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}
    config = S3Settings.from_variables({"S3_BUCKET": "b", "S3_ENDPOINT_URL": server.url, **keys, **environ})
    return S3Store(config, retry=StoreRetry(retries=0))


def test_a_whole_object_is_signed_with_the_digest_that_is_known(server: TlsServer, tmp_path: Path) -> None:
    payload = payload_of(tmp_path / "f", noise(1000))
    store_at(server, AWS_CA_BUNDLE=str(server.certificate)).put("a", payload)
    assert server.digests == [("PUT", payload.sha256.hex)]


def test_parts_travel_under_tls_without_a_second_digest(server: TlsServer, tmp_path: Path) -> None:
    payload = payload_of(tmp_path / "f", noise(PART_BYTES + 5))
    store_at(server, AWS_CA_BUNDLE=str(server.certificate)).put("a", payload)
    assert [digest for method, digest in server.digests if method == "PUT"] == ["UNSIGNED-PAYLOAD"] * 2
    assert b"".join(server.parts[number] for number in (1, 2)) == payload.path.read_bytes()


def test_parts_that_the_server_damaged_are_seen_by_their_etag(server: TlsServer, tmp_path: Path) -> None:
    server.damaged = True
    with pytest.raises(ChecksumMismatch, match="sha256"):
        store_at(server, AWS_CA_BUNDLE=str(server.certificate)).put(
            "a", payload_of(tmp_path / "f", noise(PART_BYTES + 5))
        )


def test_only_the_given_addresses_are_dialled(server: TlsServer, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s3cr3t", "AWS_CA_BUNDLE": str(server.certificate)}
    named = {"S3_BUCKET": "b", "S3_ENDPOINT_URL": f"https://127.0.0.1:{port}"}
    config = S3Settings.from_variables({**keys, **named})
    payload = payload_of(tmp_path / "f", b"x")
    with pytest.raises(StoreUnreachable):
        S3Store(replace(config, connect_to=("127.0.0.2",)), retry=StoreRetry(retries=0)).put("a", payload)
    S3Store(replace(config, connect_to=("127.0.0.2", "127.0.0.1")), retry=StoreRetry(retries=0)).put("a", payload)
    assert [method for method, _ in server.digests] == ["PUT"]


def test_a_file_without_certificates_is_named(server: TlsServer, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    store = store_at(server, AWS_CA_BUNDLE=str(tmp_path / "empty.pem"))
    with pytest.raises(CertificatesUnusable, match=r"empty\.pem .from AWS_CA_BUNDLE"):
        store.put("a", payload_of(tmp_path / "f", b"x"))


def test_certificates_may_lie_in_a_folder(server: TlsServer, tmp_path: Path) -> None:
    hashed = ["openssl", "x509", "-hash", "-noout", "-in", str(server.certificate)]
    name = subprocess.run(hashed, capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / f"{name}.0").write_bytes(server.certificate.read_bytes())
    store_at(server, AWS_CA_BUNDLE=str(tmp_path / "trusted")).put("a", payload_of(tmp_path / "f", b"x"))
    assert [method for method, _ in server.digests] == ["PUT"]


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(server: TlsServer, tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachable, match="its certificate is not trusted"):
        store_at(server).put("a", payload_of(tmp_path / "f", b"x"))
