"""Which addresses may be dialled: names are resolved once, checked, and connected to by that very address."""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# IPv6 addresses that stand for the IPv4 one in their last 32 bits: RFC 6052 (NAT64), RFC 2765 (SIIT), and the
# IPv4-compatible ones of RFC 4291, 2.5.5.1.
_DRESSED = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96")))
# Not on the public internet, although Python's list does not say so: a network's own NAT64, site-local, documentation.
_PRIVATE = tuple(map(ipaddress.ip_network, ("64:ff9b:1::/48", "fec0::/10", "3fff::/20")))


class Dialler(Protocol):
    """How names become addresses and addresses become sockets; tests bring their own."""

    def resolve(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host, best first. Raises `OSError`."""

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        """A connected TCP socket. Raises `OSError`."""


class SystemDialler:
    """The machine's own resolver and network."""

    def resolve(self, host: str, port: int) -> Sequence[str]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        connected = socket.create_connection((address, port), timeout=timeout_s)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected


def true_address(text: str) -> IpAddress:
    """The address that packets go to: an IPv4 address in IPv6 clothes is undressed."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        # `::` and `::1` are themselves.
        if int(address) > 1 and any(address in network for network in _DRESSED):
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(text: str) -> bool:
    """Whether an address is on the public internet."""
    address = true_address(text)
    return address.is_global and not address.is_multicast and not any(address in network for network in _PRIVATE)


def is_link_local(text: str) -> bool:
    """Whether it is an address like 169.254.169.254, where clouds serve credentials."""
    return true_address(text).is_link_local


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a connection goes: the scheme, the host as it is named, its port, and its checked addresses."""

    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]

    @property
    def wholly_public(self) -> bool:
        return all(is_public(address) for address in self.addresses)

    @property
    def partly_public(self) -> bool:
        return any(is_public(address) for address in self.addresses)


class Names:
    """Host names, resolved once for the life of a pull, so that a name cannot point elsewhere after the check."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        self._known: dict[tuple[str, int], tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """The addresses of a host. Raises `OSError` where it has none."""
        with self._lock:
            known = self._known.get((host, port))
        if known is None:
            known = tuple(self._dialler.resolve(host, port))
            if not known:
                raise OSError(f"{host} has no address")
            with self._lock:
                known = self._known.setdefault((host, port), known)
        return known


class _Connection(http.client.HTTPConnection):
    """An HTTP connection over a socket that was dialled to a checked address."""

    def __init__(self, place: Place, dialler: Dialler, timeout_s: float, context: ssl.SSLContext | None) -> None:
        super().__init__(place.host, place.port, timeout=timeout_s)
        self._place = place
        self._dialler = dialler
        self._timeout_s = timeout_s
        self._context = context

    def connect(self) -> None:
        problem: OSError | None = None
        for address in self._place.addresses:
            try:
                dialled = self._dialler.connect(address, self._place.port, min(self._timeout_s, 15))
            except OSError as error:
                problem = error
                continue
            dialled.settimeout(self._timeout_s)
            if self._context is not None:
                dialled = self._context.wrap_socket(dialled, server_hostname=self._place.host)
            self.sock = dialled
            return
        raise problem or OSError(f"{self._place.host} has no address")


class Connections:
    """Open connections by place, to be used again. Threads take one and give it back."""

    def __init__(self, dialler: Dialler, *, timeout_s: float) -> None:
        self._dialler = dialler
        self._timeout_s = timeout_s
        self._idle: dict[Place, list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None

    def take(self, place: Place) -> tuple[http.client.HTTPConnection, bool]:
        """A connection, and whether it was used before (then the server may have closed it meanwhile)."""
        with self._lock:
            idle = self._idle.get(place)
            if idle:
                return idle.pop(), True
            if place.scheme == "https" and self._tls is None:
                self._tls = ssl.create_default_context()
        context = self._tls if place.scheme == "https" else None
        return _Connection(place, self._dialler, self._timeout_s, context), False

    def give_back(self, place: Place, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose answer was read to its end."""
        with self._lock:
            self._idle.setdefault(place, []).append(connection)

    def close(self) -> None:
        """Close every idle connection."""
        with self._lock:
            idle = [connection for group in self._idle.values() for connection in group]
            self._idle.clear()
        for connection in idle:
            with contextlib.suppress(OSError):
                connection.close()
