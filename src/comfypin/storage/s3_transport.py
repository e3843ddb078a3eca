"""Carries the requests that botocore signed, through urllib3: by the proxy, certificates and addresses of the settings.

botocore's own HTTP session trusts only a file of certificates of its own (not the system's, nor a folder), hides what a
proxy said, and cannot be held to the addresses that were checked. `before-send` is its public event for sending a
request otherwise: https://docs.aws.amazon.com/boto3/latest/guide/events.html
"""

import contextlib
import io
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from comfypin.storage.errors import CertificatesUnusable, ProviderSaid, StoreBusy
from comfypin.storage.network_errors import explained
from comfypin.storage.proxy import PROXY_WANTS_LOGIN, Proxies, Proxy, ProxyFailed
from comfypin.storage.upload_body import OtherWhenSent, UploadBody

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 300.0  # joining the parts of a large object takes some servers minutes
HURRY_S = 30.0
CONNECTIONS = 32
_BLOCK_BYTES = 256 << 10
_MOST_ANSWER_BYTES = 8 << 20  # a listing of a thousand long keys is 2 MB


class Transport:
    """A handler of `before-send`. Safe for threads. `store` is what it is connected to, in words."""

    def __init__(
        self,
        store: str,
        *,
        ca_bundle: str | None = None,
        proxies: Proxies | None = None,
        connect_to: tuple[str, ...] = (),
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._store = store
        self._ca_bundle = ca_bundle
        self._proxies = proxies or Proxies()
        self._connect_to = connect_to
        self._read_timeout_s = read_timeout_s
        self._timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s)
        self._pools: dict[tuple[str, str], urllib3.HTTPConnectionPool] = {}
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.RLock()

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """Within, whatever is sent has to be answered soon."""
        usual = self._timeout
        self._timeout = urllib3.Timeout(connect=HURRY_S, read=HURRY_S)
        try:
            yield
        finally:
            self._timeout = usual

    def __call__(self, request: AWSPreparedRequest, **_more: object) -> AWSResponse:
        """Send a request and return the response. Raises `StorageError`."""
        proxy = self._proxies.to(request.url)
        headers = {name: _text(value) for name, value in request.headers.items()}
        if proxy is not None and request.url.startswith("http:"):
            # tinyproxy does not answer a second plain request on a connection, and keeps it open.
            headers["Connection"] = "close"
        with self._failures_named(proxy), _sending(request.body):
            raw = self._send(request, headers, proxy)
            if raw.status == PROXY_WANTS_LOGIN and proxy is not None:
                raise ProxyFailed.of_status(proxy, raw.status)
            if not request.stream_output or raw.status >= HTTPStatus.MULTIPLE_CHOICES:
                raw = self._read_whole(raw)
        return AWSResponse(request.url, raw.status, raw.headers, raw)

    def _send(
        self, request: AWSPreparedRequest, headers: dict[str, str], proxy: Proxy | None
    ) -> urllib3.BaseHTTPResponse:
        if proxy is not None and request.url.startswith("http:"):
            # That connection must not be used again, whether the proxy closes it in time or not.
            return self._exchange(self._make_pool(request.url, "", proxy), request, headers, proxy)
        if proxy is not None or not self._connect_to:
            return self._exchange(self._pool(request.url, "", proxy), request, headers, proxy)
        # Only what was checked is dialled, whatever a name server says of the host by now.
        headers = {"Host": urlsplit(request.url).netloc, **headers}
        *others, last = self._connect_to
        for address in others:
            with contextlib.suppress(ConnectTimeoutError, NewConnectionError):
                return self._exchange(self._pool(request.url, address, None), request, headers, None)
        return self._exchange(self._pool(request.url, last, None), request, headers, None)

    def _exchange(
        self,
        pool: urllib3.HTTPConnectionPool,
        request: AWSPreparedRequest,
        headers: dict[str, str],
        proxy: Proxy | None,
    ) -> urllib3.BaseHTTPResponse:
        parts = urlsplit(request.url)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        return pool.urlopen(
            request.method,
            request.url if proxy is not None and parts.scheme == "http" else target,
            body=request.body,
            headers=headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            timeout=self._timeout,
        )

    def _read_whole(self, raw: urllib3.BaseHTTPResponse) -> urllib3.HTTPResponse:
        data = bytearray()
        for chunk in raw.stream(_BLOCK_BYTES, decode_content=False):
            data += chunk
            if len(data) > _MOST_ANSWER_BYTES:
                raw.close()
                raise StoreBusy(store=self._store, status=raw.status, code="its answer has no end")
        return urllib3.HTTPResponse(
            io.BytesIO(data),
            headers=raw.headers,
            status=raw.status,
            preload_content=False,
            decode_content=False,
            enforce_content_length=False,  # that of a HEAD is the object's
        )

    def _pool(self, url: str, address: str, proxy: Proxy | None) -> urllib3.HTTPConnectionPool:
        """The pool of connections to a URL's host, or instead to an address."""
        parts = urlsplit(url)
        with self._lock:
            found = self._pools.get((f"{parts.scheme}://{parts.netloc}", address))
            if found is None:
                found = self._make_pool(url, address, proxy)
                self._pools[f"{parts.scheme}://{parts.netloc}", address] = found
            return found

    def _make_pool(self, url: str, address: str, proxy: Proxy | None) -> urllib3.HTTPConnectionPool:
        parts = urlsplit(url)
        is_encrypted = parts.scheme == "https"
        options: dict[str, Any] = {"maxsize": CONNECTIONS, "blocksize": _BLOCK_BYTES}
        if is_encrypted:
            options["ssl_context"] = self._certificates()
        if address:
            port = parts.port or (443 if is_encrypted else 80)
            if not is_encrypted:
                return _HttpPool(address, port, **options)
            named: dict[str, Any] = {"server_hostname": parts.hostname, "assert_hostname": parts.hostname}
            return _HttpsPool(address, port, **named, **options)
        manager = urllib3.PoolManager(**options) if proxy is None else self._proxy_manager(proxy, options)
        manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        return manager.connection_from_url(url)

    def _proxy_manager(self, proxy: Proxy, options: dict[str, Any]) -> urllib3.ProxyManager:
        if proxy.is_encrypted:
            options = {**options, "proxy_ssl_context": self._certificates()}
        return urllib3.ProxyManager(proxy.name, proxy_headers=proxy.headers, **options)

    def _certificates(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                folder = self._ca_bundle if self._ca_bundle and Path(self._ca_bundle).is_dir() else None
                try:
                    made = ssl.create_default_context(cafile=None if folder else self._ca_bundle, capath=folder)
                except OSError as exc:
                    raise CertificatesUnusable(path=str(self._ca_bundle)) from exc
                made.set_alpn_protocols(["http/1.1"])
                self._tls = made
            return self._tls

    @contextmanager
    def _failures_named(self, proxy: Proxy | None) -> Iterator[None]:
        try:
            yield
        except (HTTPError, OSError) as exc:
            # The text of the original may quote a request; its kind is enough.
            raise explained(exc, store=self._store, proxy=proxy) from ProviderSaid(type(exc).__name__)


@contextmanager
def _sending(body: object) -> Iterator[None]:
    if not isinstance(body, UploadBody | OtherWhenSent):
        yield
        return
    body.start_sending()
    try:
        yield
    finally:
        body.stop_sending()


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


class _Patient:
    """A connection that waits as long for a body to be taken as for the answer to it, not as long as for a dial."""

    sock: socket.socket | None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        if self.sock is not None:
            self.sock.settimeout(READ_TIMEOUT_S)


class _HttpConnection(_Patient, urllib3.connection.HTTPConnection):
    pass


class _HttpsConnection(_Patient, urllib3.connection.HTTPSConnection):
    pass


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection
