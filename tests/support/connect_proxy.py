"""A company's HTTP proxy: CONNECT for TLS, whole addresses for plain http, a password if it wants one."""

import base64
import contextlib
import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

from tests.support.background import QuietHandler, QuietServer, serving
from tests.support.relay import relayed
from tests.support.tls import Certificate

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "proxy-authorization"}


class ConnectProxy:
    """`asked` lists what it was asked for, as `METHOD target`; `login` (user:password) lets in, `refusal` nobody."""

    def __init__(self, *, login: str | None = None, certificate: Certificate | None = None) -> None:
        self.asked: list[str] = []
        self.refusal: int | None = None
        self.leads_to: tuple[str, int] | None = None  # wherever a client wants to go
        self._login = f"Basic {base64.b64encode(login.encode()).decode()}" if login else None
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.proxy = self
        scheme = "http"
        if certificate is not None:
            scheme = "https"
            self.server.socket = certificate.of_server().wrap_socket(self.server.socket, server_side=True)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"{scheme}://{quote(login, safe=':') + '@' if login else ''}{self.host}"

    def refuses(self, shown: str | None) -> int | None:
        return 407 if self._login and shown != self._login else self.refusal


@contextmanager
def connect_proxy(*, login: str | None = None, certificate: Certificate | None = None) -> Iterator[ConnectProxy]:
    proxy = ConnectProxy(login=login, certificate=certificate)
    with serving(proxy.server):
        yield proxy


@contextmanager
def one_answer_a_connection() -> Iterator[tuple[str, list[object]]]:
    """A proxy like tinyproxy: it keeps plain connections open, and answers the first request of each alone."""
    met: list[object] = []

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.close_connection = False
            if self.client_address not in met:
                met.append(self.client_address)
                self.send_response_only(200)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"file")

    server = QuietServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}", met


class _Server(QuietServer):
    proxy: ConnectProxy


class _Handler(QuietHandler):
    server: _Server

    def _is_refused(self) -> bool:
        self.server.proxy.asked.append(f"{self.command} {self.path}")
        status = self.server.proxy.refuses(self.headers.get("Proxy-Authorization"))
        if status is not None:
            self.close_connection = True
            self._answer(status, {}, b"<html>The company's rules</html>")
        return status is not None

    def do_CONNECT(self) -> None:
        if self._is_refused():
            return
        host, _, port = self.path.rpartition(":")
        try:
            upstream = socket.create_connection(self.server.proxy.leads_to or (host, int(port)), timeout=10)
        except OSError:
            self._answer(502, {}, b"")
            return
        self.connection.sendall(b"HTTP/1.1 200 Connection established\r\nVia: company\r\n\r\n")
        self.close_connection = True
        relayed(self.connection, upstream)

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._is_refused():
            return
        address = urlsplit(self.path)
        with contextlib.closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)) as asking:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            headers["Content-Length"] = str(len(body))
            asking.request(self.command, self.path.removeprefix(f"http://{address.netloc}"), body=body, headers=headers)
            answer = asking.getresponse()
            data = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self._answer(answer.status, {**kept, **({"Content-Length": length} if length else {})}, data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
