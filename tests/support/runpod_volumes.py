"""Runpod's S3 gateway to network volumes: a proxy before a real S3 server that refuses what Runpod's does not take.

Scaled down: an object in one request has to be smaller than `limit_bytes` (Runpod's limit: 500 MB).
"""

import hashlib
import http.client
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LIMIT_BYTES = 8_000_000
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class VolumeGate:
    """A running gateway: `log` holds (method, path, query names); parts after `hold_after` of them wait for ever."""

    def __init__(self, upstream: str, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.upstream = upstream
        self.limit_bytes = limit_bytes
        self.log: list[tuple[str, str, tuple[str, ...]]] = []
        self.parts: Counter[tuple[str, str]] = Counter()
        self.refused: list[str] = []
        self.hold_after: int | None = None
        self.held = threading.Event()
        self.released = threading.Event()
        self.lose_answers_of: list[str] = []
        self.lists_uploads = True
        self.lock = threading.Lock()
        self.waiting = self.on_their_way = 0
        gate = self

        class Handler(_Handler):
            server_gate = gate

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def writes(self) -> list[tuple[str, str, tuple[str, ...]]]:
        return [entry for entry in self.log if entry[0] not in ("GET", "HEAD")]

    def __enter__(self) -> "VolumeGate":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def tell_if_held(self) -> None:
        """Say that parts wait, once those before them are stored: nothing is on its way that a kill could overtake."""
        if self.waiting and not self.on_their_way:
            self.held.set()

    def refusal(self, method: str, query: dict[str, list[str]], headers: dict[str, str], body: bytes) -> str | None:
        """The S3 error code that Runpod's gateway would answer, or None."""
        if any(name.lower().startswith("x-amz-") or name == "Signature" for name in query):
            return "PresignedNotSupported"
        if "authorization" not in headers:
            return "AccessDenied"
        if method == "POST" and "delete" in query:
            return "NotImplemented"
        if "uploads" in query and method == "GET" and not self.lists_uploads:
            return "NotImplemented"
        if method == "PUT" and len(body) >= self.limit_bytes:
            return "EntityTooLarge"
        if headers.get("x-amz-content-sha256") != hashlib.sha256(body).hexdigest():
            return "XAmzContentSHA256Mismatch"
        return None


class _Handler(BaseHTTPRequestHandler):
    server_gate: VolumeGate
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _handle(self) -> None:
        gate = self.server_gate
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        headers = {name.lower(): value for name, value in self.headers.items()}
        with gate.lock:
            gate.log.append((self.command, parts.path, tuple(sorted(query))))
            is_part = self.command == "PUT" and "partNumber" in query
            hold = is_part and gate.hold_after is not None and gate.parts.total() >= gate.hold_after
            if hold:
                gate.waiting += 1
            elif is_part:
                gate.parts[parts.path, query["partNumber"][0]] += 1
                gate.on_their_way += 1
            gate.tell_if_held()
        if hold:
            gate.released.wait()
            self.close_connection = True
            return
        code = gate.refusal(self.command, query, headers, body)
        if code is not None:
            gate.refused.append(code)
            status = 501 if code == "NotImplemented" else 400
            self._answer(status, {}, f"<Error><Code>{code}</Code><Message>not here</Message></Error>".encode())
            return
        status, answered, data = self._forward(body)
        if is_part:
            with gate.lock:
                gate.on_their_way -= 1
                gate.tell_if_held()
        for what in gate.lose_answers_of:
            if re.search(what, f"{self.command} {self.path}"):
                gate.lose_answers_of.remove(what)
                self.close_connection = True
                return
        self._answer(status, answered, data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(self.server_gate.upstream)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=120)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            headers["Content-Length"] = str(len(body))
            connection.request(self.command, self.path, body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            if self.command == "HEAD" and (length := answer.getheader("Content-Length")):
                kept["Content-Length"] = length
            return answer.status, kept, data
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
