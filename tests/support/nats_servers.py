"""NATS itself: one server, or three as a cluster, on loopback, which can be killed and started again."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.networks import Cable
from tests.support.nginx import free_port

BINARY = Path(sys.executable).with_name("nats-server")


class NatsServer:
    """One server of NATS; `start` may be called again after `kill`, on the same files and ports."""

    def __init__(self, folder: Path, name: str = "one", *, more: str = "", host: str = "127.0.0.1") -> None:
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self.name = name
        self.host = host
        self.port = free_port()
        self.monitor_port = free_port()
        self.address = f"nats://{host}:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.prefix: Sequence[str] = ()
        self.configure(more)

    def configure(self, more: str) -> None:
        """Write its configuration, as we ship it, and what a test adds."""
        (self.folder / "nats.conf").write_text(
            f'server_name: {self.name}\nlisten: "{self.host}:{self.port}"\nhttp: "{self.host}:{self.monitor_port}"\n'
            f'jetstream {{ store_dir: "{self.folder}/store", sync_interval: always }}\n{more}\n'
        )

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, str(BINARY), "-c", str(self.folder / "nats.conf")], stdout=log, stderr=subprocess.STDOUT
            )

    def wait_until_ready(self, within_s: float = 30) -> None:
        """Wait until it answers, and its streams have leaders."""
        deadline = time.monotonic() + within_s
        while not self._is_healthy():
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.05)

    def _is_healthy(self) -> bool:
        address = f"http://{self.host}:{self.monitor_port}/healthz"
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def monitor(self, page: str) -> Any:
        """What its monitor tells: `varz`, `jsz?streams=1`, ..."""
        with urllib.request.urlopen(f"http://{self.host}:{self.monitor_port}/{page}", timeout=5) as answer:
            return json.load(answer)

    def leads(self, stream: str) -> bool:
        """Whether it is the leader of a stream."""
        told = self.monitor("jsz?accounts=1&streams=1")
        streams = [one for account in told.get("account_details", ()) for one in account.get("stream_detail", ())]
        leaders = [one["cluster"].get("leader") for one in streams if one["name"] == stream]
        return leaders == [self.name]

    def kill(self) -> None:
        """As the kernel does: SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def nats_server(folder: Path, *, more: str = "") -> Iterator[NatsServer]:
    """One server, ready."""
    server = NatsServer(folder / "nats", more=more)
    server.start()
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def nats_cluster(folder: Path, *, nodes: int = 3, cables: Sequence[Cable] = ()) -> Iterator[list[NatsServer]]:
    """Servers that keep three copies of everything, ready; each at the end of a cable, if there are any."""
    hosts = [cable.host for cable in cables] or ["127.0.0.1"] * nodes
    servers = [NatsServer(folder / "nats", f"node{number}", host=host) for number, host in enumerate(hosts)]
    routes = [f"{host}:{free_port()}" for host in hosts]
    listed = ", ".join(f'"nats://{route}"' for route in routes)
    for number, (server, route) in enumerate(zip(servers, routes, strict=True)):
        server.prefix = cables[number].prefix if cables else ()
        server.configure(f'cluster {{ name: test, listen: "{route}", routes: [{listed}] }}')
        server.start()
    try:
        for server in servers:
            server.wait_until_ready()
        yield servers
    finally:
        for server in servers:
            server.kill()


def is_listening(port: int) -> bool:
    """Whether somebody answers on a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
