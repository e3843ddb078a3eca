"""Carries the requests that botocore signed, through urllib3: by the proxy, certificates and addresses of the settings.

botocore's own HTTP session trusts only a file of certificates of its own (not the system's, nor a folder), hides what a
proxy said, and cannot be held to the addresses that were checked. `before-send` is its public event for sending a
request otherwise: https://docs.aws.amazon.com/boto3/latest/guide/events.html
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3.exceptions import HTTPError

from comfypin.http.connections import Pools, PoolSettings, Route, SystemNetwork
from comfypin.http.deadline import Deadline, under
from comfypin.http.proxies import Proxies, Proxy
from comfypin.http.url import HttpUrl
from comfypin.storage.certificates import trusting
from comfypin.storage.errors import ProviderSaid, StoreBusy, StoreTooSlow
from comfypin.storage.network_errors import PROXY_WANTS_LOGIN, ProxyFailed, explained
from comfypin.storage.upload_body import OtherWhenSent, UploadBody

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 300.0  # joining the parts of a large object takes some servers minutes
HURRY_S = 30.0
CONNECTIONS = 32
_BLOCK_BYTES = 256 << 10
_MOST_ANSWER_BYTES = 8 << 20  # a listing of a thousand long keys is 2 MB


class Transport:
    """A handler of `before-send`. Safe for threads. `store` is what it is connected to, in words.

    If there are addresses to `connect_to`, only they are, whatever a name server says of the host by now. When the
    `deadline` passes or is cancelled, whatever waits ends.
    """

    def __init__(
        self,
        store: str,
        *,
        ca_bundle: str | None = None,
        proxies: Proxies | None = None,
        connect_to: tuple[str, ...] = (),
        deadline: Deadline | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._store = store
        self._proxies = proxies or Proxies()
        self._connect_to = connect_to
        self._deadline = deadline
        self._timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s)
        # A body may take as long to be accepted as the answer to it.
        settings = PoolSettings(most_idle=CONNECTIONS, block_bytes=_BLOCK_BYTES, send_timeout_s=READ_TIMEOUT_S)
        self._pools = Pools(SystemNetwork(), lambda: trusting(ca_bundle), settings)

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
        proxy = self._proxies.for_address(request.url)
        with self._failures_named(proxy), _sending(request.body), under(self._deadline):
            raw = self._send(request, proxy)
            if raw.status == PROXY_WANTS_LOGIN and proxy is not None:
                raise ProxyFailed.of_status(proxy, raw.status)
            if not request.stream_output or raw.status >= HTTPStatus.MULTIPLE_CHOICES:
                raw = self._read_whole(raw)
        return AWSResponse(request.url, raw.status, raw.headers, raw)

    def _send(self, request: AWSPreparedRequest, proxy: Proxy | None) -> urllib3.BaseHTTPResponse:
        headers = {name: _text(value) for name, value in request.headers.items()}
        # What is asked for stays as it was signed, to the letter.
        parts = urlsplit(request.url)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        if proxy is not None and parts.scheme == "http":
            target, headers["Connection"] = request.url, "close"
        route = Route(HttpUrl.parse(request.url), () if proxy else self._connect_to, proxy)
        return self._pools.for_route(route).urlopen(
            request.method,
            target,
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

    @contextmanager
    def _failures_named(self, proxy: Proxy | None) -> Iterator[None]:
        try:
            self._require_time()
            yield
        except (HTTPError, OSError) as exc:
            self._require_time()
            # The text of the original may quote a request; its kind is enough.
            raise explained(exc, store=self._store, proxy=proxy) from ProviderSaid(type(exc).__name__)

    def _require_time(self) -> None:
        # No reason to try again, as a store that is slow this once would be.
        if self._deadline is not None and self._deadline.has_passed:
            raise StoreTooSlow(store=self._store)


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
