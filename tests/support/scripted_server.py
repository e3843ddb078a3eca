"""An HTTP server that gives one answer to everything: what a store says when it refuses."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def answering(status: int, body: str = "", headers: Mapping[str, str] | None = None) -> Iterator[str]:
    def always(handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        return status, body

    with answering_by(always, headers) as url:
        yield url


@contextmanager
def answering_by(
    decide: Callable[[BaseHTTPRequestHandler], tuple[int, str] | tuple[int, str, Mapping[str, str]]],
    headers: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """An HTTP server that answers what `decide`, which reads the request's body, says: status, body, maybe headers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self) -> None:
            status, body, *more = decide(self)
            data = body.encode()
            self.send_response(status)
            for name, value in {**(headers or {}), **(more[0] if more else {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
