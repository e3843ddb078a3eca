"""A server's 2xx is believed only if status, body and ETag say that the object is there; else it is looked at."""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from comfypin.storage.errors import ChecksumMismatch, NotAStore, NotStored, StoreBusy, TransientStorageError
from comfypin.storage.part_sizes import PART_BYTES
from comfypin.storage.retry import StoreRetry
from comfypin.storage.s3 import S3Store
from comfypin.storage.s3_settings import S3Settings
from tests.support.background import QuietHandler, QuietServer, serving
from tests.support.payloads import noise, payload_of
from tests.support.tls import Certificate, tls_front

_ERROR = b"<?xml version='1.0'?><Error><Code>InternalError</Code><RequestId>4442587FB7D0A2F9</RequestId></Error>"


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    etag: str | None = None
    stores: bool = True


# What becomes of the true answer to the request that stores the object, or joins its parts.
LIES: dict[str, Callable[[Answer], Answer]] = {
    "an error with 200": lambda true: Answer(200, _ERROR, true.etag, stores=False),
    "an error with 202": lambda true: Answer(202, _ERROR, true.etag, stores=False),
    "202": lambda true: Answer(202, true.body, true.etag, stores=False),
    "204": lambda true: Answer(204, b"", true.etag, stores=False),
    "204 without an ETag": lambda true: Answer(204, b"", None, stores=False),
    "no ETag": lambda true: Answer(200, re.sub(b"<ETag>.*</ETag>", b"", true.body), None, stores=False),
    "another ETag": lambda true: Answer(200, re.sub(b"<ETag>.*</ETag>", b"<ETag>x</ETag>", true.body), "x", False),
    "nothing stored": lambda true: Answer(200, true.body, true.etag, stores=False),
    "a web page": lambda true: Answer(200, b"<html>Welcome</html>", None, stores=False),
    "an empty 200": lambda true: Answer(200, b"", None, stores=False),
}  # fmt: skip
# The same odd answers of a server that did store the object.
ODD = {name: lie for name, lie in LIES.items() if "error" not in name and "page" not in name and "nothing" not in name}


@dataclass
class LyingServer:
    """An S3 server in memory that keeps what it is sent, and says of it what `lie` makes of the truth."""

    lie: Callable[[Answer], Answer]
    always_stores: bool = False
    objects: dict[str, tuple[bytes, str, dict[str, str]]] = field(default_factory=dict)
    parts: dict[int, bytes] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def take(self, handler: BaseHTTPRequestHandler) -> tuple[Answer, dict[str, str]]:
        data = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        path, _, query = handler.path.partition("?")
        self.asked.append(handler.command)
        kept = {name.lower(): value for name, value in handler.headers.items() if name.lower().startswith("x-amz-meta")}
        match handler.command:
            case "POST" if "uploads" in query:
                self.metadata = kept
                return Answer(body=b"<R><UploadId>u</UploadId></R>"), {}
            case "PUT" if "partNumber" in query:
                self.parts[int(query.split("partNumber=")[1].split("&")[0])] = data
                return Answer(etag=hashlib.md5(data).hexdigest()), {}
            case "PUT":
                true = Answer(etag=hashlib.md5(data).hexdigest())
                return self._stored(path, data, true, kept), {}
            case "POST":
                whole = b"".join(self.parts[number] for number in sorted(self.parts))
                sums = b"".join(hashlib.md5(self.parts[number]).digest() for number in sorted(self.parts))
                etag = f"{hashlib.md5(sums).hexdigest()}-{len(self.parts)}"
                true = Answer(body=f"<R><ETag>{etag}</ETag></R>".encode(), etag=etag)
                return self._stored(path, whole, true, self.metadata), {}
            case "DELETE":
                return Answer(status=204), {}
            case _ if path in self.objects:
                data, etag, kept = self.objects[path]
                return Answer(body=data, etag=etag), kept
        return Answer(status=404), {}

    def _stored(self, path: str, data: bytes, true: Answer, kept: dict[str, str]) -> Answer:
        told = self.lie(true)
        if told.stores or self.always_stores:
            self.objects[path] = (data, str(true.etag), kept)
        return told


@pytest.fixture(params=["http", "TLS"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[LyingServer], S3Store]]:
    with ExitStack() as stack:

        def open_at(lying: LyingServer) -> S3Store:
            class Handler(QuietHandler):
                def do_PUT(self) -> None:
                    answer, headers = lying.take(self)
                    self.send_response_only(answer.status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    if answer.etag is not None:
                        self.send_header("ETag", f'"{answer.etag}"')
                    if answer.status != 204:
                        self.send_header("Content-Length", str(len(answer.body)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(answer.body)

                do_GET = do_HEAD = do_POST = do_DELETE = do_PUT

            server = QuietServer(("127.0.0.1", 0), Handler)
            stack.enter_context(serving(server))
            url = f"http://127.0.0.1:{server.server_port}"
            certificate = Certificate.made(tmp_path / "tls")
            if request.param == "TLS":
                url = stack.enter_context(tls_front(url, certificate))
            keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_CA_BUNDLE": str(certificate.path)}
            environ = {"S3_BUCKET": "b", "S3_ENDPOINT_URL": url, "S3_MULTIPART_BYTES": str(PART_BYTES), **keys}
            return S3Store(S3Settings.from_variables(environ), retry=StoreRetry(retries=1, base_sleep_s=0))

        yield open_at


def _of_puts() -> Iterator[object]:
    """All but one: 200 and the md5 of what was sent is all that S3 says of a PUT, and asking again costs a request."""
    for name, lie in LIES.items():
        if name != "nothing stored":
            yield pytest.param(1000, lie, id=f"put, {name}")


def _of_multiparts() -> Iterator[object]:
    for name, lie in LIES.items():
        yield pytest.param(PART_BYTES + 5, lie, id=f"multipart, {name}")


@pytest.mark.parametrize(("size", "lie"), [*_of_puts(), *_of_multiparts()])
def test_an_object_that_is_not_there_is_never_reported(
    opened: Callable[[LyingServer], S3Store], size: int, lie: Callable[[Answer], Answer], tmp_path: Path
) -> None:
    server = LyingServer(lie)
    store = opened(server)
    for key in "abcde":  # a server that is found to have no md5 for ETags is no more believed
        with pytest.raises((TransientStorageError, NotAStore)) as caught:
            store.put(key, payload_of(tmp_path / "f", noise(size)))
        assert isinstance(caught.value, NotStored | StoreBusy | NotAStore | ChecksumMismatch)
        if size > PART_BYTES:
            return


def test_a_put_whose_answer_is_all_that_s3_says_is_believed_at_the_cost_of_one_request(
    opened: Callable[[LyingServer], S3Store], tmp_path: Path
) -> None:
    # Only a HEAD for each object would tell; docs/storage.md says that we send none.
    server = LyingServer(LIES["nothing stored"])
    opened(server).put("a", payload_of(tmp_path / "f", noise(1000)))
    assert server.asked == ["PUT"]


@pytest.mark.parametrize("size", [1000, PART_BYTES + 5], ids=["put", "multipart"])
@pytest.mark.parametrize("lie", ODD.values(), ids=ODD)
def test_an_object_that_is_there_is_found_to_be(
    opened: Callable[[LyingServer], S3Store], lie: Callable[[Answer], Answer], size: int, tmp_path: Path
) -> None:
    server = LyingServer(lie, always_stores=True)
    payload = payload_of(tmp_path / "f", noise(size), metadata={"sha256": "x"})
    opened(server).put("a", payload)
    assert server.asked[-1] in {"GET", "HEAD"}
    assert server.objects["/b/a"][0] == payload.path.read_bytes()


def test_a_server_whose_etags_never_say_anything_is_asked_for_the_object_alone(
    opened: Callable[[LyingServer], S3Store], tmp_path: Path
) -> None:
    server = LyingServer(lambda true: Answer(200, b"", "opaque"), always_stores=True)
    store = opened(server)
    for number in range(5):
        store.put(str(number), payload_of(tmp_path / "f", noise(1000)))
        server.lie = lambda true: Answer(200, b"", "opaque")
    assert server.asked == ["PUT", "GET"] * 3 + ["PUT", "HEAD", "GET"] * 2
    server.always_stores = False
    server.lie = lambda true: Answer(200, b"", "opaque", stores=False)
    with pytest.raises(NotStored, match="is missing, although the upload was confirmed with HTTP 200"):
        store.put("6", payload_of(tmp_path / "f", noise(1000)))


def test_a_failure_names_the_services_request_id(opened: Callable[[LyingServer], S3Store], tmp_path: Path) -> None:
    server = LyingServer(LIES["an error with 200"])
    with pytest.raises(StoreBusy, match=r"InternalError.*\(request id 4442587FB7D0A2F9\)\.$"):
        opened(server).put("a", payload_of(tmp_path / "f", b"x"))
