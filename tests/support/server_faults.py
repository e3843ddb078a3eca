"""What can happen to a running server: disks fill, processes die, sockets are cut, clients are slow, buckets refuse."""

import contextlib
import ctypes
import http.client
import os
import random
import signal
import socket
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.fault_proxy import FalseAnswer, FaultProxy, Seen, no_faults
from tests.support.running import descendants
from tests.support.server import TOKEN, Server
from tests.support.small_disk import SmallDisk

HALF_HEAD = b"POST /run HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
HALF_BODY = (
    b"POST /run HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
    b'Content-Length: 1000\r\n\r\n{"input": '
)
_PIDFD_GETFD = 438  # the same number on every architecture
_ESTABLISHED = "01"
_ENGINE = "comfypin.engine.embedded"


class ServerFaults:
    """Each fault begins, lasts a moment and ends; it returns when (monotonic) nothing stood in the way any more."""

    def __init__(self, server: Server, disks: Mapping[str, SmallDisk], bucket: FaultProxy, dice: random.Random) -> None:
        self.server, self.disks, self.bucket, self.dice = server, disks, bucket, dice
        self.clients, self.longest_s = 600, 4.0
        self.stop_s: list[float] = []
        """How long the server took to end each time that it was asked to."""
        self.unanswered: Counter[str] = Counter()
        """Why /ping had no answer while there were slow clients."""

    def all(self) -> tuple[Callable[[], float], ...]:
        """Return every fault."""
        return (*self.without_restarts(), *self.restarts())

    def restarts(self) -> tuple[Callable[[], float], ...]:
        """Return the faults that end the server or its engine."""
        return (self.engine_killed, self.server_killed, self.server_stopped)

    def without_restarts(self) -> tuple[Callable[[], float], ...]:
        """Return the faults under which the server and its engine are to live on."""
        disks = (self.state_disk_full, self.output_disk_full, self.temp_disk_full)
        clients = (self.slow_clients, self.cut_clients, self.cut_engine_sockets, self.large_json)
        return (*disks, *clients, self.bucket_forbids, self.bucket_is_away, self.engine_hangs)

    def state_disk_full(self) -> float:
        return self._full(self.disks["state"])

    def output_disk_full(self) -> float:
        return self._full(self.disks["outputs"])

    def temp_disk_full(self) -> float:
        return self._full(self.disks["temp"])

    def server_killed(self) -> float:
        began_s = time.monotonic()
        self.server.kill()
        self.server.start(ready=False)
        return began_s

    def server_stopped(self) -> float:
        began_s = time.monotonic()
        code = self.server.stop()
        self.stop_s.append(time.monotonic() - began_s)
        assert code == 0, f"the server ended with {code} after SIGTERM"
        self.server.start(ready=False)
        return time.monotonic()

    def engine_killed(self) -> float:
        """Kill an engine, what guards it, or both; a spare engine may be the one."""
        began_s = time.monotonic()
        pids = descendants(self._pid())
        for pid in self.dice.choice([pids, pids[:1], pids[-1:]]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return began_s

    def engine_hangs(self) -> float:
        """Stop all engines for a moment, as a machine does that swaps."""
        engines = [pid for pid in descendants(self._pid()) if _ENGINE in _command(pid)]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in engines:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if number == signal.SIGSTOP:
                time.sleep(self.dice.uniform(0.5, self.longest_s))
        return time.monotonic()

    def slow_clients(self) -> float:
        sent = self.dice.choice([b"", HALF_HEAD, HALF_BODY])
        opened: list[socket.socket] = []
        try:
            for _ in range(self.clients):
                client = socket.create_connection(("127.0.0.1", self.server.port), 10)
                opened.append(client)
                with contextlib.suppress(OSError):  # the server may have dropped it by now
                    client.sendall(sent)
            answers = [self._pinged() for _ in range(5)]
            assert any(code in (200, 503) for code in answers), f"slow clients made it deaf: {answers}"
        finally:
            for client in opened:
                client.close()
        return time.monotonic()

    def cut_clients(self) -> float:
        """Cut what clients have open, in the middle of whatever it is, and send beginnings of requests."""
        for _ in range(5):
            cut_connections(self._pid(), lambda local, _remote: local == self.server.port)
            for _ in range(10):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.server.port), 5) as cut:
                    cut.sendall(self.dice.choice([HALF_HEAD, HALF_BODY, b"GET /health HTTP/1.1\r\n\r\n", b"\0" * 100]))
                    cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            time.sleep(self.dice.random() / 10)
        return time.monotonic()

    def cut_engine_sockets(self) -> float:
        """Cut the websocket and the requests between the server and its engine."""
        for _ in range(3):
            cut_connections(self._pid(), lambda local, _remote: local != self.server.port)
            time.sleep(self.dice.random() / 5)
        return time.monotonic()

    def large_json(self) -> float:
        body = b'{"input": [' + b"[]," * 5_000_000 + b"[]]}"
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert self.server.ask("POST", "/run", body)[0] in (413, 503)
        return time.monotonic()

    def bucket_forbids(self) -> float:
        return self._refused(_denied)

    def bucket_is_away(self) -> float:
        return self._refused(lambda _seen: self.dice.choice(["503", "500", "429", "drop", "drop-answer"]))

    def _refused(self, rule: Callable[[Seen], object]) -> float:
        self.bucket.rule = rule  # type: ignore[assignment]
        time.sleep(self.dice.uniform(0.5, self.longest_s))
        self.bucket.rule = no_faults
        return time.monotonic()

    def _full(self, disk: SmallDisk) -> float:
        until = time.monotonic() + self.dice.uniform(0.5, self.longest_s)
        while time.monotonic() < until:
            disk.fill()
            time.sleep(0.1)
        disk.free()
        return time.monotonic()

    def _pinged(self) -> object:
        """Ask for /ping; count what is no answer, which a busy machine may be to blame for."""
        time.sleep(0.2)
        try:
            with urllib.request.urlopen(f"{self.server.url}/ping", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError as error:
            self.unanswered[str(error)] += 1
            return error

    def _pid(self) -> int:
        assert self.server.process is not None
        return self.server.process.pid


def cut_connections(pid: int, is_cut: Callable[[int, int], bool]) -> int:
    """Shut another process's established TCP connections; `is_cut` is told the local and the remote port."""
    cut = 0
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            for descriptor, ports in _connections(pid).items():
                if is_cut(*ports) and (ours := _LIBC.syscall(_PIDFD_GETFD, process, descriptor, 0)) >= 0:
                    with socket.socket(fileno=ours) as connection, contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
                        cut += 1
        finally:
            os.close(process)
    return cut


_LIBC = ctypes.CDLL(None, use_errno=True)


def _connections(pid: int) -> dict[int, tuple[int, int]]:
    """Descriptor -> local and remote port of what is established."""
    ports = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, remote, state, *_, inode = line.split()[:10]
            if state == _ESTABLISHED:
                ports[f"socket:[{inode}]"] = (int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16))
    found = {}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if (link := str(descriptor.readlink())) in ports:
                found[int(descriptor.name)] = ports[link]
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _denied(_seen: Seen) -> FalseAnswer:
    body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    return FalseAnswer(403, body, {"Content-Type": "application/xml"}, is_done=False)
