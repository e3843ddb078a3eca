"""Sockets that keep to a deadline, plain and under TLS."""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from comfypin.http.deadline import Deadline, current_deadline

T = TypeVar("T")

# Stands for "no timeout" in comparisons.
_LONGEST_S = 1e6


class _BoundedReads:
    """Waits for bytes no longer than the deadline allows.

    Only receiving is bounded here: `sendall`, the TLS handshake and a TLS read end by the socket's timeout as a whole,
    however many pieces they come in (https://docs.python.org/3/library/socket.html#socket.socket.sendall).
    """

    deadline: Deadline | None = None

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        receive: Callable[..., int] = super().recv_into  # type: ignore[misc]
        if self.deadline is None or not self.deadline.is_set:
            return receive(*arguments, **options)
        return _receive_bounded(self, self.deadline, lambda: receive(*arguments, **options))  # type: ignore[arg-type]

    def recv(self, *arguments: Any, **options: Any) -> bytes:
        receive: Callable[..., bytes] = super().recv  # type: ignore[misc]
        if self.deadline is None or not self.deadline.is_set:
            return receive(*arguments, **options)
        return _receive_bounded(self, self.deadline, lambda: receive(*arguments, **options))  # type: ignore[arg-type]


class BoundedSocket(_BoundedReads, socket.socket):
    """Waits under a deadline, over TCP."""


class BoundedTlsSocket(_BoundedReads, ssl.SSLSocket):
    """Waits under a deadline, over TLS."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the library's own signature
        put_under_deadline(self)
        super().do_handshake(block)


def put_under_deadline(connected_socket: object) -> None:
    """Have a socket keep to the deadline of this thread, whichever it kept to before."""
    if isinstance(connected_socket, BoundedSocket | BoundedTlsSocket):
        connected_socket.deadline = current_deadline.get()
        if connected_socket.deadline is not None:
            connected_socket.deadline.watch_socket(connected_socket)
    elif isinstance(inner_socket := getattr(connected_socket, "socket", None), socket.socket):
        put_under_deadline(inner_socket)  # TLS to the server within TLS to a proxy


def _receive_bounded(connected_socket: socket.socket, deadline: Deadline, receive: Callable[[], T]) -> T:
    socket_timeout_s = connected_socket.gettimeout()
    remaining_s = deadline.bound_s(_LONGEST_S if socket_timeout_s is None else socket_timeout_s)
    if remaining_s == socket_timeout_s:
        return receive()
    connected_socket.settimeout(remaining_s)
    try:
        return receive()
    finally:
        connected_socket.settimeout(socket_timeout_s)


def tls_context(authorities: tuple[Path, ...] = ()) -> ssl.SSLContext:
    """Return the TLS settings: the machine's authorities (SSL_CERT_FILE, SSL_CERT_DIR), and more of them if named."""
    tls_context = ssl.create_default_context()
    tls_context.set_alpn_protocols(["http/1.1"])
    for authority_path in authorities:
        tls_context.load_verify_locations(authority_path)
    tls_context.sslsocket_class = BoundedTlsSocket
    return tls_context
