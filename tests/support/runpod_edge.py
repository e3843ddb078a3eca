"""Runpod's edge before the workers of a load-balancing endpoint: its key in Authorization, and worker affinity.

As https://docs.runpod.io/serverless/load-balancing/overview and .../worker-affinity describe it. Requests without an
affinity go round among the workers, so that a client that forgets it meets the wrong one at once.
"""

import http.server
import itertools
import threading
import urllib.error
import urllib.request

from tests.support.runpod_api import KEY


class RunpodEdge:
    """A running edge: `url`, and the `log` of (method, path, worker)."""

    def __init__(self, workers: dict[str, str]) -> None:
        self.workers = workers
        self.log: list[tuple[str, str, str]] = []
        self._turns = itertools.cycle(list(workers))
        edge = self

        class Handler(_Handler):
            server_state = edge

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "RunpodEdge":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def choose(self, affinity: str) -> str | None:
        """Return the worker for a request, or None if the one that it insists on is gone."""
        mode, _, worker = affinity.rpartition(" ")
        if worker in self.workers:
            return worker
        return None if mode.startswith("strict") else next(self._turns)


class _Handler(http.server.BaseHTTPRequestHandler):
    server_state: RunpodEdge
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: object) -> None:
        pass

    def _serve(self) -> None:
        edge = self.server_state
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return self._send(401, b'{"error": "unauthorized"}', "")
        worker = edge.choose(self.headers.get("X-Runpod-Worker-Id", ""))
        if worker is None:
            return self._send(404, b'{"reason": "affinity_worker_gone"}', "")
        edge.log.append((self.command, self.path, worker))
        passed = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        request = urllib.request.Request(
            edge.workers[worker] + self.path, data=body or None, method=self.command, headers=passed
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return self._send(answer.status, answer.read(), worker)
        except urllib.error.HTTPError as error:
            return self._send(error.code, error.read(), worker)
        except OSError:
            return self._send(502, b"bad gateway", worker)

    def _send(self, status: int, data: bytes, worker: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        if worker:
            self.send_header("X-Runpod-Worker-Id", worker)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _serve
