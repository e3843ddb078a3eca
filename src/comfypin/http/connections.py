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

_CONNECT_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How many idle connections a pool keeps, how large the pieces of a body are, how long a server may take to accept
    one of them (None: as long as a connection may take).
    """

    most_idle: int = 64
    block_bytes: int = 16 << 10
    send_timeout_s: float | None = None


class Network(HostResolver, Protocol):
    """How names become addresses, and sockets connections; tests bring their own."""

    def connect(self, unconnected: socket.socket, address: str, port: int) -> None:
        """Connect a socket, whose timeout is set, to an address. Raises `OSError`."""


class SystemNetwork(SystemResolver):
    """The resolver and the network of this machine."""

    def connect(self, unconnected: socket.socket, address: str, port: int) -> None:
        unconnected.connect((address, port))


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: the address, the IP addresses that were checked, or the proxy that asks instead."""

    url: HttpUrl
    addresses: tuple[str, ...] = ()
    proxy: Proxy | None = None


class _Checked(HTTPConnection):
    """A connection to one of the addresses that were checked, or to a proxy, under the deadline of its thread."""

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
            # urllib3 gives a body no longer than it gives the connection to be made.
            self.sock.settimeout(self._send_timeout_s)

    def request(self, *arguments: Any, **options: Any) -> None:
        if self.sock is not None:
            put_under_deadline(self.sock)  # the deadline of the request before was another one
        super().request(*arguments, **options)

    def _new_conn(self) -> socket.socket:
        """Connect; urllib3 and those who build on it replace this method to say how."""
        if not self._addresses:
            return _bounded(super()._new_conn())
        problem: OSError | None = None
        for address in self._addresses:
            try:
                connected = self._connected(address)
            except OSError as error:
                problem = error
                continue
            sys.audit("http.client.connect", self, self.host, self.port)
            return connected
        if isinstance(problem, TimeoutError):
            raise ConnectTimeoutError(self, "no answer in time") from problem
        raise NewConnectionError(self, str(problem.strerror if problem else "no address")) from problem

    def _connected(self, address: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = BoundedSocket(family, socket.SOCK_STREAM)
        try:
            timeout_s = self.timeout if isinstance(self.timeout, int | float) else _CONNECT_TIMEOUT_S
            deadline = current_deadline.get()
            made.settimeout(timeout_s if deadline is None else deadline.bound_s(timeout_s))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            put_under_deadline(made)
            self._network.connect(made, address, self.port)
            made.settimeout(timeout_s)
        except BaseException:
            made.close()
            raise
        return made


class _CheckedTls(_Checked, HTTPSConnection):
    """The same under TLS."""


def _bounded(connected: socket.socket) -> socket.socket:
    timeout_s = connected.gettimeout()
    bounded = BoundedSocket(connected.family, connected.type, connected.proto, fileno=connected.detach())
    bounded.settimeout(timeout_s)
    put_under_deadline(bounded)
    return bounded


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Checked


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _CheckedTls


class Pools:
    """One pool for each route; threads share them."""

    def __init__(
        self, network: Network, tls: Callable[[], ssl.SSLContext], settings: PoolSettings | None = None
    ) -> None:
        self._network = network
        self._make_tls = tls
        self._settings = settings or PoolSettings()
        self._tls: ssl.SSLContext | None = None
        self._direct: dict[tuple[object, ...], urllib3.HTTPConnectionPool] = {}
        self._proxies: dict[Proxy, urllib3.ProxyManager] = {}
        self._lock = threading.Lock()

    def for_route(self, route: Route) -> urllib3.HTTPConnectionPool:
        """Return the pool of a route; by a proxy without TLS, a new one, of which nothing is kept.

        Such a connection must not be used again, whether the proxy closes it in time or not: tinyproxy does not answer
        a second plain request on a connection, and keeps it open.
        """
        with self._lock:
            if route.proxy is not None and route.url.scheme == "http":
                manager = self._new_manager(route.proxy)
                return manager.connection_from_host(route.url.host, route.url.port, "http")
            if route.proxy is not None:
                return self._manager(route.proxy).connection_from_host(route.url.host, route.url.port, route.url.scheme)
            key = (*route.url.origin, route.addresses)
            if key not in self._direct:
                self._direct[key] = self._pool(route)
            return self._direct[key]

    def _pool(self, route: Route) -> urllib3.HTTPConnectionPool:
        options = {"addresses": route.addresses, **self._of_connections(), **self._of_pools()}
        if route.url.scheme == "https":
            return _TlsPool(route.url.host, route.url.port, ssl_context=self._context(), **options)
        return _Pool(route.url.host, route.url.port, **options)

    def _manager(self, proxy: Proxy) -> urllib3.ProxyManager:
        if proxy not in self._proxies:
            self._proxies[proxy] = self._new_manager(proxy)
        return self._proxies[proxy]

    def _new_manager(self, proxy: Proxy) -> urllib3.ProxyManager:
        manager = urllib3.ProxyManager(
            proxy.url,
            proxy_headers=proxy.headers,
            ssl_context=self._context(),
            proxy_ssl_context=self._context(),
            **self._of_pools(),
        )
        # Of its own options a manager makes the keys of its pools, and takes none that it does not know.
        made = self._of_connections()
        classes: dict[str, Any] = {"http": partial(_Pool, **made), "https": partial(_TlsPool, **made)}
        manager.pool_classes_by_scheme = classes
        return manager

    def _of_pools(self) -> dict[str, Any]:
        return {"maxsize": self._settings.most_idle, "blocksize": self._settings.block_bytes}

    def _of_connections(self) -> dict[str, Any]:
        return {"network": self._network, "send_timeout_s": self._settings.send_timeout_s}

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = self._make_tls()
        return self._tls

    def close(self) -> None:
        """Close the connections that are idle."""
        with self._lock:
            for pool in self._direct.values():
                pool.close()
            for manager in self._proxies.values():
                manager.clear()
            self._direct.clear()
            self._proxies.clear()
