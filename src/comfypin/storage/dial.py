"""How a connection to a server is made: straight or through a proxy, under TLS or not."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from comfypin.errors import StorageError
from comfypin.errors.storage import CertificatesUnusable, StoreUnreachable
from comfypin.storage.network_errors import reason_of
from comfypin.storage.proxy import Proxy, ProxyFailed

_CONNECT_TIMEOUT_S = 10.0
PATIENCE_S = 300.0  # joining the parts of a large object takes some servers minutes
_MOST_HEAD_BYTES = 64 * 1024


class Dial:
    """Makes connections to one server, straight ones to `connect_to` where that is given. Safe for threads."""

    def __init__(
        self,
        endpoint: str,
        *,
        ca_bundle: str | None = None,
        proxy: Proxy | None = None,
        connect_to: tuple[str, ...] = (),
    ) -> None:
        address = urlsplit(endpoint)
        self.endpoint = endpoint
        self.proxy = proxy
        self.is_encrypted = address.scheme == "https"
        self._place = (str(address.hostname), address.port or (443 if self.is_encrypted else 80))
        self._ca_bundle = ca_bundle
        self._connect_to = connect_to
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def __call__(self) -> socket.socket:
        """A connection, whose time limit is set. Raises `OSError`."""
        made = self._straight() if self.proxy is None else self._to_proxy(self.proxy)
        try:
            if self.is_encrypted:
                made = self._under_tls(made)
            limit_time(made, PATIENCE_S)
            return made
        except BaseException:
            made.close()
            raise

    def _straight(self) -> socket.socket:
        host, port = self._place
        *others, last = self._connect_to or (host,)
        for address in others:
            with contextlib.suppress(OSError):
                return _dialled((address, port))
        return _dialled((last, port))

    def _to_proxy(self, proxy: Proxy) -> socket.socket:
        """A connection to the proxy, which has made way to the server where that speaks TLS."""
        with _named(proxy):
            made = _dialled((proxy.host, proxy.port))
            try:
                if proxy.is_encrypted:
                    made = self._context().wrap_socket(made, server_hostname=proxy.host)
                if self.is_encrypted:
                    _make_way(made, proxy, self._place)
                return made
            except BaseException:
                made.close()
                raise

    def _under_tls(self, made: socket.socket) -> socket.socket:
        context, host = self._context(), self._place[0]
        if isinstance(made, ssl.SSLSocket):  # the proxy's own TLS is around that of the server
            from urllib3.util.ssltransport import SSLTransport

            return cast("socket.socket", SSLTransport(made, context, server_hostname=host))
        return context.wrap_socket(made, server_hostname=host)

    def _context(self) -> ssl.SSLContext:
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


def _dialled(place: tuple[str, int]) -> socket.socket:
    made = socket.create_connection(place, timeout=_CONNECT_TIMEOUT_S)
    with contextlib.suppress(OSError):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def limit_time(made: socket.socket, seconds: float) -> None:
    """Have a connection fail where nothing moves for so long."""
    if type(made) is not socket.socket:
        made.settimeout(seconds)
        return
    # The kernel's own time limits: with Python's, every call is preceded by another one that waits.
    made.settimeout(None)
    for limit in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        made.setsockopt(socket.SOL_SOCKET, limit, struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6)))


def _make_way(made: socket.socket, proxy: Proxy, place: tuple[str, int]) -> None:
    """Have a proxy connect to a place; what is sent afterwards goes there. Raises `ProxyFailed`, `OSError`."""
    host = f"[{place[0]}]" if ":" in place[0] else place[0]
    target = f"{host}:{place[1]}"
    headers = {"Host": target, **proxy.headers}
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    # A proxy asks the server's name and waits for it: that takes longer than to be reached itself.
    made.settimeout(3 * _CONNECT_TIMEOUT_S)
    made.sendall("\r\n".join(lines).encode())
    came = b""
    while b"\r\n\r\n" not in came:
        more = made.recv(4096)
        if not more or len(came) > _MOST_HEAD_BYTES:
            raise ProxyFailed.unreachable(proxy, reason="it gave no answer of a proxy")
        came += more
    version, _, status = came[:12].decode("latin-1").partition(" ")
    if not version.startswith("HTTP/1.") or not status.isdecimal():
        raise ProxyFailed.unreachable(proxy, reason="it gave no answer of a proxy")
    if not 200 <= int(status) < 300:
        raise ProxyFailed.of_status(proxy, int(status))


@contextmanager
def _named(proxy: Proxy) -> Iterator[None]:
    """Make the proxy's failures of what goes wrong with it."""
    try:
        yield
    except ProxyFailed:
        raise
    except OSError as exc:
        raise ProxyFailed.unreachable(proxy, reason=reason_of(exc)) from exc


def unreached(exc: OSError, *, store: str) -> StorageError:
    """The error that a failed request is, in words without anything of the request."""
    if isinstance(exc, ProxyFailed):
        return exc.error(store)
    return StoreUnreachable(store=store, reason=reason_of(exc))
