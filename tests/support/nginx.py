"""A real nginx on loopback, serving one folder, with the limits and faults that a test asks for."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CONFIG = """
daemon off;
pid {work}/pid;
error_log {work}/error.log;
worker_processes {workers};
{user}
events {{ worker_connections 512; }}
http {{
  log_format requests '$status $request_uri "$http_range" $body_bytes_sent "$http_authorization"';
  access_log {work}/access.log requests;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  sendfile on; keepalive_requests 100000; default_type application/octet-stream;
  {http}
  server {{
    listen 127.0.0.1:{port} {tls} backlog=512;
    root {root};
    {server}
  }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nginx:
    """A running server: its address, and what it was asked."""

    url: str
    work: Path

    def requests(self) -> list[tuple[int, str, str, int, str]]:
        """Status, path, Range header (`-` without), bytes sent and Authorization header of every finished request."""
        found = []
        for line in (self.work / "access.log").read_text().splitlines():
            head, asked, rest, token, _ = line.split('"')
            status, path = head.split()
            found.append((int(status), path, asked, int(rest), token))
        return found


@contextmanager
def nginx(
    root: Path, work: Path, *, server: str = "", http: str = "", workers: int = 1, tls: bool = False
) -> Iterator[Nginx]:
    """Serve `root` on a free port; `server` and `http` are directives for those blocks."""
    work.mkdir(parents=True, exist_ok=True)
    port = free_port()
    # nginx started by root serves as nobody, who may not read a test's folder.
    user = "user root;" if work.owner() == "root" else ""
    config = work / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            work=work,
            root=root,
            port=port,
            server=server,
            http=http,
            workers=workers,
            user=user,
            tls="ssl" if tls else "",
        )
    )
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with subprocess.Popen(
        [program, "-e", str(work / "error.log"), "-c", str(config), "-p", str(work)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _await(port, work, process)
            yield Nginx(url=f"http://127.0.0.1:{port}", work=work)
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(port: int, work: Path, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(400):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError((work / "error.log").read_text())
