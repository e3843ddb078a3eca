"""A lock's packages from a server on this machine, with the speed and the distance of a link that one chooses.

    python -m bench.mirror FOLDER [--link MB_PER_S:MS]

prints the port that it serves the folder's files on. The rate is that of all connections together; the latency is
waited twice where a connection begins (as for TLS), and once before each answer.
"""

import argparse
import os
import re
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote, unquote

from comfypin.env.package_selection import package_file_name
from comfypin.lock.model import Lock
from comfypin.tools.download import download_file

_CHUNK_BYTES = 256 << 10


@dataclass(frozen=True)
class Link:
    """What lies between us and a server: MB/s (0: as fast as it goes) and ms."""

    rate: float = 0
    latency_ms: float = 0

    @classmethod
    def parse(cls, text: str) -> "Link":
        """`100:10` is 100 MB/s at a distance of 10 ms."""
        rate, _, latency = text.partition(":")
        return cls(float(rate), float(latency or 0))

    def __str__(self) -> str:
        return f"{self.rate:g} MB/s, {self.latency_ms:g} ms" if self.rate else "no limit"


class _Meter:
    """Lets bytes pass at the rate of the link, whoever sends them."""

    def __init__(self, bytes_per_s: float) -> None:
        self._rate = bytes_per_s
        self._free_at = 0.0
        self._lock = threading.Lock()

    def wait(self, count: int) -> None:
        if not self._rate:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + count / self._rate
            free_at = self._free_at
        time.sleep(max(0.0, free_at - time.monotonic()))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, link: Link) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.latency_s, self.meter = folder, link.latency_ms / 1000, _Meter(link.rate * 1e6)

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients go when they have what they want."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        time.sleep(2 * self.server.latency_s)

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        time.sleep(self.server.latency_s)
        path = self.server.folder / unquote(self.path).rpartition("/")[2]
        if not path.is_file():
            return self.send_error(404)
        size = path.stat().st_size
        start, end = self._part(size)
        partial = (start, end) != (0, size)
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self.wfile.flush()
        return self._send(path, start, end) if self.command == "GET" else None

    def _part(self, size: int) -> tuple[int, int]:
        """The part of the file that is asked for, as the real registry's servers give it."""
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return 0, size
        first, last = asked.groups()
        if not first:
            return max(0, size - int(last)), size
        return int(first), min(size, int(last) + 1) if last else size

    def _send(self, path: Path, start: int, end: int) -> None:
        with path.open("rb") as file:
            while start < end:
                count = min(_CHUNK_BYTES, end - start)
                self.server.meter.wait(count)
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, count)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def gather(lock: Lock, folder: Path) -> None:
    """Bring the files of all packages of a lock into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pins = {package_file_name(pin): pin for pin in lock.python.packages if pin.url}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: download_file(str(pins[name].url), folder / str(name), pins[name].sha256), pins))


@contextmanager
def mirrored(lock: Lock, folder: Path, link: Link) -> Iterator[Lock]:
    """The lock with the URLs of a server of that folder, which serves as long as this lasts."""
    command = [sys.executable, "-m", "bench.mirror", str(folder), "--link", f"{link.rate}:{link.latency_ms}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = f"http://127.0.0.1:{int(server.stdout.readline())}"
            packages = tuple(
                replace(pin, url=f"{address}/{quote(str(package_file_name(pin)))}") if pin.url else pin
                for pin in lock.python.packages
            )
            yield replace(lock, python=replace(lock.python, packages=packages))
        finally:
            server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--link", type=Link.parse, default=Link())
    arguments = parser.parse_args()
    with _Server(arguments.folder, arguments.link) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
