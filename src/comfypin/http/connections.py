"""Connection pools of urllib3 whose connections go to checked addresses and keep to a deadline."""

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from comfypin.addresses import HostResolver, SystemResolver
from comfypin.http.deadline import current_deadline
from comfypin.http.proxies import Proxy
from comfypin.http.sockets import BoundedSocket, put_under_deadline
from comfypin.http.url import HttpUrl

# A host that is there answers within a second; the rest is for a lost packet or two.
_CONNECT_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How many idle connections a pool keeps, how large the pieces of a body are, and the timeout for sending one piece
    (None: the connect timeout).
    """

    most_idle: int = 64
    block_bytes: int = 16 << 10
    send_timeout_s: float | None = None


class Network(HostResolver, Protocol):
    """Resolves names and connects sockets; tests bring their own."""

    def connect(self, unconnected: socket.socket, address: str, port: int) -> None:
        """Connect a socket, whose timeout is set, to an address. Raises `OSError`."""


class SystemNetwork(SystemResolver):
    """Uses the resolver and the network of this machine."""

    def connect(self, unconnected: socket.socket, address: str, port: int) -> None:
        unconnected.connect((address, port))


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: the URL, the IP addresses that were checked, or the proxy that connects instead."""

    url: HttpUrl
    addresses: tuple[str, ...] = ()
    proxy: Proxy | None = None


class _CheckedConnection(HTTPConnection):
    """Connects to one of the addresses that were checked, or to a proxy, under the deadline of its thread."""

    def __init__(
        self,
        *arguments: Any,
        addresses: Sequence[str] = (),
        network: Network | None = None,
        send_timeout_s: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._addresses = addresses
        self._network = network or SystemNetwork()
        self._send_timeout_s = send_timeout_s

    def connect(self) -> None:
        super().connect()
        put_under_deadline(self.sock)
        if self._send_timeout_s is not None and self.sock is not None:
            # urllib3 applies the connect timeout to sending the body too.
            self.sock.settimeout(self._send_timeout_s)

    def request(self, *arguments: Any, **options: Any) -> None:
        if self.sock is not None:
            put_under_deadline(self.sock)  # the previous request had another deadline
        super().request(*arguments, **options)

    def _new_conn(self) -> socket.socket:
        """Connect. urllib3 expects subclasses to override this method."""
        if not self._addresses:
            return _to_bounded_socket(super()._new_conn())
        last_error: OSError | None = None
        for address in self._addresses:
            try:
                connected_socket = self._connect_to(address)
            except OSError as error:
                last_error = error
                continue
            # urllib3's own method reports the connection to audit hooks too.
            sys.audit("http.client.connect", self, self.host, self.port)
            return connected_socket
        if isinstance(last_error, TimeoutError):
            raise ConnectTimeoutError(self, "no answer in time") from last_error
        raise NewConnectionError(self, str(last_error.strerror if last_error else "no address")) from last_error

    def _connect_to(self, address: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        bounded_socket = BoundedSocket(family, socket.SOCK_STREAM)
        try:
            timeout_s = self.timeout if isinstance(self.timeout, int | float) else _CONNECT_TIMEOUT_S
            deadline = current_deadline.get()
            bounded_socket.settimeout(timeout_s if deadline is None else deadline.bound_s(timeout_s))
            # As urllib3 does: small requests must not wait for an acknowledgement.
            bounded_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            put_under_deadline(bounded_socket)
            # To the address that was checked: asking DNS again could give another one.
            self._network.connect(bounded_socket, address, self.port)
            bounded_socket.settimeout(timeout_s)
        except BaseException:
            bounded_socket.close()
            raise
        return bounded_socket


class _CheckedTlsConnection(_CheckedConnection, HTTPSConnection):
    """Connects to a checked address under TLS."""


def _to_bounded_socket(connected_socket: socket.socket) -> socket.socket:
    timeout_s = connected_socket.gettimeout()
    bounded_socket = BoundedSocket(
        connected_socket.family, connected_socket.type, connected_socket.proto, fileno=connected_socket.detach()
    )
    bounded_socket.settimeout(timeout_s)
    put_under_deadline(bounded_socket)
    return bounded_socket


class _CheckedPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _CheckedConnection


class _CheckedTlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _CheckedTlsConnection


class RoutePools:
    """Keeps one pool for each route; threads share them."""

    def __init__(
        self, network: Network, make_tls: Callable[[], ssl.SSLContext], settings: PoolSettings | None = None
    ) -> None:
        self._network = network
        self._make_tls = make_tls
        self._settings = settings or PoolSettings()
        self._tls: ssl.SSLContext | None = None
        self._direct: dict[tuple[object, ...], urllib3.HTTPConnectionPool] = {}
        self._proxies: dict[Proxy, urllib3.ProxyManager] = {}
        self._lock = threading.Lock()

    def for_route(self, route: Route) -> urllib3.HTTPConnectionPool:
        """Return the pool of a route; through a proxy without TLS, always a new one that is not kept.

        Such a connection must not be reused, whether the proxy closes it in time or not: tinyproxy does not respond to
        a second plain request on a connection, and keeps it open.
        """
        with self._lock:
            if route.proxy is not None and route.url.scheme == "http":
                proxy_manager = self._make_proxy_manager(route.proxy)
                return proxy_manager.connection_from_host(route.url.host, route.url.port, "http")
            if route.proxy is not None:
                return self._proxy_manager(route.proxy).connection_from_host(
                    route.url.host, route.url.port, route.url.scheme
                )
            # Another set of checked addresses must not reuse a connection to the old ones.
            pool_key = (*route.url.origin, route.addresses)
            if pool_key not in self._direct:
                self._direct[pool_key] = self._make_pool(route)
            return self._direct[pool_key]

    def _make_pool(self, route: Route) -> urllib3.HTTPConnectionPool:
        connection_options = {"addresses": route.addresses, **self._connection_options(), **self._pool_options()}
        if route.url.scheme == "https":
            return _CheckedTlsPool(
                route.url.host, route.url.port, ssl_context=self._tls_context(), **connection_options
            )
        return _CheckedPool(route.url.host, route.url.port, **connection_options)

    def _proxy_manager(self, proxy: Proxy) -> urllib3.ProxyManager:
        if proxy not in self._proxies:
            self._proxies[proxy] = self._make_proxy_manager(proxy)
        return self._proxies[proxy]

    def _make_proxy_manager(self, proxy: Proxy) -> urllib3.ProxyManager:
        proxy_manager = urllib3.ProxyManager(
            proxy.url,
            proxy_headers=proxy.headers,
            ssl_context=self._tls_context(),
            proxy_ssl_context=self._tls_context(),
            **self._pool_options(),
        )
        # A manager makes its pools' keys from its options and refuses those that it does not know.
        connection_options = self._connection_options()
        pool_classes: dict[str, Any] = {
            "http": partial(_CheckedPool, **connection_options),
            "https": partial(_CheckedTlsPool, **connection_options),
        }
        proxy_manager.pool_classes_by_scheme = pool_classes
        return proxy_manager

    def _pool_options(self) -> dict[str, Any]:
        return {"maxsize": self._settings.most_idle, "blocksize": self._settings.block_bytes}

    def _connection_options(self) -> dict[str, Any]:
        return {"network": self._network, "send_timeout_s": self._settings.send_timeout_s}

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = self._make_tls()
        return self._tls

    def close(self) -> None:
        """Close the connections that are idle."""
        with self._lock:
            for pool in self._direct.values():
                pool.close()
            for proxy_manager in self._proxies.values():
                proxy_manager.clear()
            self._direct.clear()
            self._proxies.clear()
