"""Sends the requests that botocore signed through urllib3, with the settings' proxy, certificates and addresses.

botocore's own HTTP session trusts only a file of certificates (not the system's, nor a folder), hides what a proxy
said, and cannot be held to the addresses that were checked. `before-send` is its public event for sending a request
otherwise: https://docs.aws.amazon.com/boto3/latest/guide/events.html
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3.exceptions import HTTPError

from comfypin.http.connections import PoolSettings, Route, RoutePools, SystemNetwork
from comfypin.http.deadline import Deadline, use_deadline
from comfypin.http.proxies import Proxies, Proxy
from comfypin.http.url import HttpUrl
from comfypin.storage.certificates import make_tls_context
from comfypin.storage.errors import ProviderError, StoreBusy, StoreTooSlow
from comfypin.storage.network_errors import PROXY_WANTS_LOGIN, StoreProxyFailed, explain_network_failure
from comfypin.storage.upload_body import TamperedBody, UploadBody

# A store that is there answers at once; the rest is for a lost packet or two.
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 300.0  # joining the parts of a large object takes some servers minutes
# For the check before the first job, which a user waits for.
HURRY_S = 30.0
# More than uploads and parts together ever use, so none waits for a connection.
CONNECTIONS = 32
# Large enough that calls cost nothing beside the copying.
_BLOCK_BYTES = 256 << 10
_MOST_ANSWER_BYTES = 8 << 20  # a listing of a thousand long keys is 2 MB


class S3Transport:
    """Handles botocore's `before-send`. Safe for threads. `store` is the name of the store in messages.

    If there are addresses to `connect_to`, it connects only to them, whatever DNS says by now. When the `deadline`
    passes or is cancelled, everything that waits ends.
    """

    def __init__(
        self,
        store_name: str,
        *,
        ca_bundle: str | None = None,
        proxies: Proxies | None = None,
        connect_to: tuple[str, ...] = (),
        deadline: Deadline | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._store = store_name
        self._proxies = proxies or Proxies()
        self._connect_to = connect_to
        self._deadline = deadline
        self._timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s)
        # A server may take as long to accept a body as to respond to it.
        settings = PoolSettings(most_idle=CONNECTIONS, block_bytes=_BLOCK_BYTES, send_timeout_s=READ_TIMEOUT_S)
        self._pools = RoutePools(SystemNetwork(), lambda: make_tls_context(ca_bundle), settings)

    @contextmanager
    def with_short_timeouts(self) -> Iterator[None]:
        """Use short timeouts inside the block."""
        usual_timeout = self._timeout
        self._timeout = urllib3.Timeout(connect=HURRY_S, read=HURRY_S)
        try:
            yield
        finally:
            self._timeout = usual_timeout

    def __call__(self, request: AWSPreparedRequest, **_more: object) -> AWSResponse:
        """Send a request and return the response. Raises `StorageError`."""
        proxy = self._proxies.for_address(request.url)
        with self._translate_failures(proxy), _mark_sending(request.body), use_deadline(self._deadline):
            raw_response = self._send_request(request, proxy)
            if raw_response.status == PROXY_WANTS_LOGIN and proxy is not None:
                raise StoreProxyFailed.from_status(proxy, raw_response.status)
            # botocore parses these itself, and expects them whole.
            if not request.stream_output or raw_response.status >= HTTPStatus.MULTIPLE_CHOICES:
                raw_response = self._read_whole(raw_response)
        return AWSResponse(request.url, raw_response.status, raw_response.headers, raw_response)

    def _send_request(self, request: AWSPreparedRequest, proxy: Proxy | None) -> urllib3.BaseHTTPResponse:
        headers = {header_name: _header_text(header_value) for header_name, header_value in request.headers.items()}
        # The signature covers the path and query exactly as they are written.
        url_parts = urlsplit(request.url)
        target = f"{url_parts.path or '/'}?{url_parts.query}" if url_parts.query else url_parts.path or "/"
        if proxy is not None and url_parts.scheme == "http":
            # Some proxies do not answer a second plain request on a connection.
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

    def _read_whole(self, raw_response: urllib3.BaseHTTPResponse) -> urllib3.HTTPResponse:
        body_bytes = bytearray()
        for chunk in raw_response.stream(_BLOCK_BYTES, decode_content=False):
            body_bytes += chunk
            if len(body_bytes) > _MOST_ANSWER_BYTES:
                raw_response.close()
                raise StoreBusy(store=self._store, status=raw_response.status, code="an endless response")
        return urllib3.HTTPResponse(
            io.BytesIO(body_bytes),
            headers=raw_response.headers,
            status=raw_response.status,
            preload_content=False,
            decode_content=False,
            enforce_content_length=False,  # that of a HEAD is the object's
        )

    @contextmanager
    def _translate_failures(self, proxy: Proxy | None) -> Iterator[None]:
        try:
            self._require_time()
            yield
        except (HTTPError, OSError) as exception:
            self._require_time()
            # The text of the original may quote a request; its kind is enough.
            raise explain_network_failure(exception, store_name=self._store, proxy=proxy) from ProviderError(
                type(exception).__name__
            )

    def _require_time(self) -> None:
        # No reason to try again, as a store that is slow this once would be.
        if self._deadline is not None and self._deadline.has_passed:
            raise StoreTooSlow(store=self._store)


@contextmanager
def _mark_sending(request_body: object) -> Iterator[None]:
    if not isinstance(request_body, UploadBody | TamperedBody):
        yield
        return
    request_body.start_sending()
    try:
        yield
    finally:
        request_body.stop_sending()


def _header_text(header_value: str | bytes) -> str:
    return header_value.decode("latin-1") if isinstance(header_value, bytes) else header_value
