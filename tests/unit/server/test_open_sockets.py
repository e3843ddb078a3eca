"""The sockets that a server listens on."""

import socket

from comfypin.server.lifecycle import open_sockets


def test_connections_send_at_once_what_they_have() -> None:
    (listening,) = open_sockets("127.0.0.1", [0])
    with listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_named_twice_is_opened_once() -> None:
    (listening,) = open_sockets("127.0.0.1", [0, 0])
    listening.close()
