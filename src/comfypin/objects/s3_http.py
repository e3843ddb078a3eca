"""Signed requests to one bucket over connections that stay open: the standard library's HTTP, and bodies that stream.

Ours, because no client that we know takes a digest which is known already, and hashing is most of an upload's cost.
"""

import hashlib
import http.client
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn, Protocol
from urllib.parse import urlsplit

from comfypin.errors.storage import PayloadUnreadable, ProviderSaid, StoreUnreachable
from comfypin.files import reading_buffer
from comfypin.objects.aws_profile import S3Credentials
from comfypin.objects.config import S3Config
from comfypin.objects.s3_errors import S3Place, answered, is_page
from comfypin.objects.sigv4 import SHA256_OF_NOTHING, S3Request, encoded_key, presigned_url, signed_headers

_CONNECT_TIMEOUT_S = 10.0
_TIMEOUT_S = 300.0  # joining the parts of a large object takes some servers minutes
_MOST_IDLE = 32


class Body(Protocol):
    """What a request sends; `pieces` may be asked for again when it is sent again."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    def pieces(self) -> Iterator[bytes | memoryview]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A few bytes in memory."""

    data: bytes = field(default=b"", repr=False)
    sha256: str = SHA256_OF_NOTHING

    @classmethod
    def of(cls, data: bytes) -> "Text":
        """The bytes with their digest."""
        return cls(data=data, sha256=hashlib.sha256(data).hexdigest())

    @property
    def size_bytes(self) -> int:
        """How many bytes."""
        return len(self.data)

    def pieces(self) -> Iterator[bytes]:
        """All of them, if any."""
        return iter([self.data] if self.data else [])


class FilePart:
    """A part of an open file, read through one small buffer. `md5` is that of the bytes that were last sent."""

    def __init__(self, descriptor: int, *, offset: int, size_bytes: int, path: str) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._path = path
        self.size_bytes = size_bytes
        self.sha256 = SHA256_OF_NOTHING
        self.pace: Callable[[int], None] | None = None
        self.wants_md5 = False
        self.md5 = ""

    def pieces(self) -> Iterator[memoryview]:
        """The bytes, each piece valid until this thread reads on."""
        summed = hashlib.md5(usedforsecurity=False) if self.wants_md5 else None
        for piece in self._read():
            if self.pace is not None:
                self.pace(len(piece))
            if summed is not None:
                summed.update(piece)
            yield piece
        self.md5 = summed.hexdigest() if summed else ""

    def digest(self) -> str:
        """The sha256 of the bytes, read now."""
        hasher = hashlib.sha256()
        for piece in self._read():
            hasher.update(piece)
        return hasher.hexdigest()

    def _read(self) -> Iterator[memoryview]:
        buffer = reading_buffer()
        at, end = self._offset, self._offset + self.size_bytes
        while at < end:
            try:
                count = os.preadv(self._descriptor, [buffer[: min(len(buffer), end - at)]], at)
            except OSError as exc:
                raise PayloadUnreadable(path=self._path, reason=(exc.strerror or str(exc)).lower()) from exc
            if not count:
                raise PayloadUnreadable(path=self._path, reason="it became shorter while it was uploaded")
            yield buffer[:count]
            at += count


NOTHING = Text()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer; its headers by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    data: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.data.decode(errors="replace")


class S3Http:
    """The requests of one bucket. Safe for threads: each request has a connection to itself."""

    def __init__(self, config: S3Config, place: S3Place, keys: Callable[[], S3Credentials]) -> None:
        self._place = place
        self._keys = keys
        self._endpoint, self._base = address_of(config)
        self._ca_bundle = config.ca_bundle
        self._tls: ssl.SSLContext | None = None
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    @property
    def is_encrypted(self) -> bool:
        """Whether the bytes travel under TLS, which notices every change to them."""
        return self._endpoint.startswith("https://")

    def ask(
        self,
        method: str,
        key: str,
        *,
        action: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = NOTHING,
    ) -> Answer:
        """Send the request and have the answer, which is a success. Raises `StorageError`."""
        answer = self.exchange(method, key, query=query, headers=headers, body=body)
        self.require_success(answer, key, action=action)
        return answer

    def exchange(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = NOTHING,
    ) -> Answer:
        """Send the request and have the answer, whatever it is. Raises `StoreUnreachable`."""
        with self._sent(method, key, query or {}, headers or {}, body) as response:
            data = response.read()
            return Answer(status=response.status, headers=_headers(response), data=data)

    def stream(
        self, key: str, *, headers: Mapping[str, str], chunk_bytes: int, action: str = "read"
    ) -> Iterator[tuple[bool, bytes]]:
        """GET an object: whether it is the range that was asked for, and each chunk, the first of them empty.

        Raises `StorageError`.
        """
        with self._sent("GET", key, {}, headers, NOTHING) as response:
            if response.status >= 300:
                answer = Answer(status=response.status, headers=_headers(response), data=response.read())
                self.require_success(answer, key, action=action)
            # `rclone serve s3` answers 200 to a range, with the range.
            ranged = response.status == http.client.PARTIAL_CONTENT or "Content-Range" in response.headers
            yield ranged, b""
            while chunk := response.read(chunk_bytes):
                yield ranged, chunk
            if response.length:
                # The library ends such a read as if it were whole.
                raise http.client.IncompleteRead(b"", response.length)

    def require_success(self, answer: Answer, key: str, *, action: str) -> None:
        """Raises the error that the answer is, if it is one."""
        if answer.status >= 300 or is_page(answer.text[:200]):
            self.refuse(answer, key, action=action)

    def refuse(self, answer: Answer, key: str, *, action: str) -> NoReturn:
        """Raises the error that the answer is."""
        # S3 may begin with 200 and end with an error.
        status = answer.status if answer.status >= 300 or is_page(answer.text) else 500
        region = answer.headers.get("x-amz-bucket-region")
        raise answered(status, answer.text, place=self._place, action=action, uri=self.uri(key), region=region)

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """A presigned GET."""
        request = self._request("GET", key, {}, {}, NOTHING)
        return presigned_url(request, self._keys(), region=self._place.region, ttl_s=ttl_s)

    def _request(
        self, method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], body: Body
    ) -> S3Request:
        return S3Request(
            method=method,
            endpoint=self._endpoint,
            path=f"{self._base}/{encoded_key(key)}",
            query=query,
            headers=headers,
            body_sha256=body.sha256,
        )

    @contextmanager
    def _sent(
        self, method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], body: Body
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer's beginning; its connection is kept where all of the answer was read."""
        request = self._request(method, key, query, headers, body)
        signed = signed_headers(request, self._keys(), region=self._place.region)
        connection = None
        try:
            connection = self._connection()
            _send(connection, request, signed, body)
            response = connection.getresponse()
            yield response
            if response.isclosed() and not response.will_close:
                self._keep(connection)
                connection = None
        except (OSError, http.client.HTTPException) as exc:
            # The text of the original may quote a request; its kind is enough.
            raise StoreUnreachable(store=self._place.name, reason=_reason(exc)) from ProviderSaid(type(exc).__name__)
        finally:
            if connection is not None:
                connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        """One that was kept and still lives, else a new one."""
        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle else None
            if kept is None:
                return self._connect()
            if not _ended(kept):
                return kept
            kept.close()

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        address = urlsplit(self._endpoint)
        host = str(address.hostname)
        connection: http.client.HTTPConnection
        if self.is_encrypted:
            with self._lock:
                if self._tls is None:
                    self._tls = ssl.create_default_context(cafile=self._ca_bundle)
            connection = http.client.HTTPSConnection(host, address.port, timeout=_CONNECT_TIMEOUT_S, context=self._tls)
        else:
            connection = http.client.HTTPConnection(host, address.port, timeout=_CONNECT_TIMEOUT_S)
        connection.connect()
        connection.sock.settimeout(_TIMEOUT_S)
        return connection

    def uri(self, key: str) -> str:
        """The object in words."""
        return f"s3://{self._place.bucket}/{key}"


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _send(connection: http.client.HTTPConnection, request: S3Request, headers: Mapping[str, str], body: Body) -> None:
    connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if body.size_bytes or request.method in {"PUT", "POST"}:
        connection.putheader("Content-Length", str(body.size_bytes))
    connection.endheaders()
    try:
        for piece in body.pieces():
            connection.send(piece)
    except (BrokenPipeError, ConnectionResetError):
        # A server that refuses a request may answer, and close, before it has read all of it.
        if not _readable(connection):
            raise


def _readable(connection: http.client.HTTPConnection) -> bool:
    return connection.sock is not None and bool(select.select([connection.sock], [], [], 0.2)[0])


def _ended(connection: http.client.HTTPConnection) -> bool:
    """Whether a connection nobody uses has something to say: that it was closed."""
    poller = select.poll()
    poller.register(connection.sock, select.POLLIN)
    return bool(poller.poll(0))


def address_of(config: S3Config) -> tuple[str, str]:
    """The endpoint and what stands before keys in paths: the bucket, unless it is in the host."""
    bucket = str(config.bucket)
    # AWS wants virtual hosts, except where dots in the bucket's name would break TLS; others know paths best.
    on_aws = config.endpoint is None
    china = ".cn" if config.region.startswith("cn-") else ""
    endpoint = config.endpoint or f"https://s3.{config.region}.amazonaws.com{china}"
    virtual = config.addressing == "virtual" or (config.addressing == "auto" and on_aws and "." not in bucket)
    scheme, _, host = endpoint.partition("://")
    return (f"{scheme}://{bucket}.{host}", "") if virtual else (endpoint, f"/{encoded_key(bucket)}")


def _reason(exc: Exception) -> str:
    match exc:
        case socket.gaierror():
            return "its name is not known"
        case ConnectionRefusedError():
            return "the connection was refused"
        case ssl.SSLCertVerificationError():
            return "its TLS certificate is not accepted"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "HTTP_REQUEST" | "RECORD_LAYER_FAILURE"):
            return "it does not speak TLS: is it http:// instead of https://?"
        case TimeoutError():
            return "it did not answer in time"
        case _:
            return "the connection broke"
