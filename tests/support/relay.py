"""Bytes from one connection to another and back, until both have ended."""

import contextlib
import socket
import threading


def relayed(one: socket.socket, other: socket.socket) -> None:
    """Two directions, a thread for one of them; both are closed at the end."""

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=pass_on, args=(other, one), daemon=True)
    back.start()
    pass_on(one, other)
    back.join(10)
    one.close()
    other.close()
