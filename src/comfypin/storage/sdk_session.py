"""The HTTP session for Google's and Azure's client libraries, which would otherwise make their own.

Theirs reads proxies from the process's environment, trusts certifi's certificates and sends a body in one piece. This
one uses the proxies and certificates of the settings, and sends pieces small enough to be paced and stopped.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from comfypin.http.proxies import Proxies, Proxy
from comfypin.storage.certificates import make_tls_context
from comfypin.storage.network_errors import PROXY_WANTS_LOGIN, StoreProxyFailed

Pace = Callable[[int], None]

# urllib3 gives each piece of a body this long to get into the kernel's buffers, too.
CONNECT_TIMEOUT_S = 20.0
# Some stores answer the end of a large upload only after they have joined its parts.
READ_TIMEOUT_S = 300.0
# More than uploads ever run at once, so none waits for a connection.
_CONNECTIONS = 32
# Small enough for an even pace, large enough to cost few calls.
_PIECE_BYTES = 512 << 10


class ThreadUpload:
    """What a thread sends at present: its pace, and how many bytes the pace has not been told about."""

    def __init__(self, pace: Pace | None, size_bytes: int) -> None:
        self.pace = pace
        self.size_bytes = size_bytes


class _ThreadState(threading.local):
    upload: ThreadUpload | None = None


_THREAD_STATE = _ThreadState()


@contextmanager
def paced_sending(pace: Pace | None, size_bytes: int) -> Iterator[None]:
    """Call the pace for the payload's bytes that this thread sends inside the block, over any number of requests.

    A request's body may hold more than the payload (a multipart envelope); at most `size_bytes` of each body count.
    """
    _THREAD_STATE.upload = ThreadUpload(pace, size_bytes)
    try:
        yield
    finally:
        _THREAD_STATE.upload = None


class SettingsAdapter(HTTPAdapter):
    """Connects through the settings' proxies, with their certificates. Only `origin`, if given, sees a token."""

    def __init__(self, proxies: Proxies, *, ca_bundle: str | None = None, origin: str | None = None) -> None:
        self._proxies = proxies
        self._origin = origin
        self._tls = make_tls_context(ca_bundle)
        self._met: dict[str, Proxy] = {}
        self._connecting = threading.Lock()
        super().__init__(pool_maxsize=_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pool of direct connections."""
        super().init_poolmanager(*args, **options, ssl_context=self._tls, blocksize=_PIECE_BYTES)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Make the pool of a proxy's connections; its certificate is checked like the server's."""
        tls_options = {"ssl_context": self._tls, "proxy_ssl_context": self._tls}
        return super().proxy_manager_for(proxy, **options, **tls_options, blocksize=_PIECE_BYTES)

    def get_connection_with_tls_context(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> Any:
        """Return the pool of a request; through a proxy without TLS, always a new one.

        tinyproxy answers only the first plain request of a connection, and keeps it open.
        """
        # No other thread may take a pool between the clearing and the asking.
        with self._connecting:
            if str(request.url).startswith("http:"):
                self.proxy_manager.clear()
            return super().get_connection_with_tls_context(request, *args, **options)

    def cert_verify(self, *args: Any, **options: Any) -> None:
        """Leave the context as it is: it checks certificates, and knows which to trust."""

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """Return the headers that only a proxy sees."""
        return self._met[proxy].headers

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send a request. Raises `requests.RequestException`, `StoreProxyFailed`, and what the pace raises."""
        request_url = str(request.url)
        if self._origin is not None and not request_url.startswith(f"{self._origin}/"):
            # An upload session may be anywhere; tokens are for the service's own address.
            request.headers.pop("Authorization", None)
            if self._origin.startswith("https:") and not request_url.startswith("https:"):
                raise requests.exceptions.InvalidURL("less safe than the service's own address")
        proxy = self._proxies.for_address(request_url)
        options["proxies"] = {}
        if proxy is not None:
            self._met[proxy.url] = proxy
            options["proxies"] = {urlsplit(request_url).scheme: proxy.url}
            if request_url.startswith("http:"):
                request.headers["Connection"] = "close"
        if isinstance(request.body, bytes):
            request.body = _PacedBody(request.body, _THREAD_STATE.upload if _carries_payload(request) else None)  # type: ignore[assignment]
        response = super().send(request, *args, **options)
        if proxy is not None and response.status_code == PROXY_WANTS_LOGIN:
            raise StoreProxyFailed.from_status(proxy, PROXY_WANTS_LOGIN)
        return response


class _PacedBody:
    """Gives urllib3 a body's bytes in pieces, and calls the pace for each."""

    def __init__(self, body_bytes: bytes, upload: ThreadUpload | None) -> None:
        self._data = memoryview(body_bytes)
        self._untold_bytes = min(upload.size_bytes, len(body_bytes)) if upload else 0
        self._pace = upload.pace if upload else None

    def __len__(self) -> int:
        return len(self._data)

    def read(self, size: int = -1) -> memoryview:
        piece = self._data[: size if size >= 0 else None]
        paced_bytes = min(len(piece), self._untold_bytes)
        if paced_bytes and self._pace is not None:
            self._pace(paced_bytes)
        self._untold_bytes -= paced_bytes
        self._data = self._data[len(piece) :]
        return piece


def make_session(
    proxies: Proxies,
    *,
    ca_bundle: str | None = None,
    origin: str | None = None,
    session: requests.Session | None = None,
) -> requests.Session:
    """Return a session (the one that is given, else a new one) that connects as the settings say."""
    made_session = session or requests.Session()
    # Otherwise proxies, certificates and .netrc of the process's environment would be used.
    made_session.trust_env = False
    made_session.mount("https://", adapter := SettingsAdapter(proxies, ca_bundle=ca_bundle, origin=origin))
    made_session.mount("http://", adapter)
    return made_session


def _carries_payload(request: requests.PreparedRequest) -> bool:
    content_type: str | bytes = request.headers.get("content-type", "")
    content_type_text = content_type.decode("latin-1") if isinstance(content_type, bytes) else content_type
    return request.method == "PUT" or content_type_text.startswith("multipart/")
