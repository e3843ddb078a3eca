"""A list of hostile requests, sent to one `comfypin serve`: each is refused, none reaches where it must not.

What they are, and what is right for each, is in tests/support/hostile.
"""

import json
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.background import QuietHandler, QuietServer, serving
from tests.support.hostile.every import EVERY
from tests.support.hostile.in_jobs import AWAY, REDIRECTS
from tests.support.hostile.request import Hostile
from tests.support.hostile.sending import Answer, Sender
from tests.support.server import TOKEN, Server
from tests.support.server import serving as server_process

LEAST, LEAST_OF_A_KIND = 300, 15
_AT_ONCE = 4


class Trap:
    """A listener at every address of this machine, which no request may reach."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
        self.port = int(self._listening.getsockname()[1])
        self.reached: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                try:
                    self.reached.append(connection.recv(200))
                except OSError:
                    self.reached.append(b"")


class Redirecting(QuietServer):
    """A proxy that stands for the internet: it redirects to where it was told."""

    def __init__(self, trap_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _RedirectingHandler)
        self.trap_port = trap_port
        self.asked: list[str] = []


class _RedirectingHandler(QuietHandler):
    server: Redirecting

    def _redirect(self) -> None:
        self.server.asked.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.rpartition("/")[2]
        status = int(path[-3:]) if path[-3:].isdigit() else 302
        location = REDIRECTS.get(path, "/").replace("@TRAP@", str(self.server.trap_port))
        self.close_connection = True
        self.wfile.write(f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())

    do_GET = do_POST = do_PUT = do_HEAD = do_CONNECT = _redirect


@dataclass(frozen=True)
class Sent:
    """All requests of the list with their answers, and what else was seen meanwhile."""

    answers: dict[Hostile, Answer]
    pings: list[int | None]
    trap: Trap
    proxy: Redirecting
    server: Server


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    home = tmp_path_factory.mktemp("hostile")
    trap = Trap()
    proxy = Redirecting(trap.port)
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    # The operator's own credentials are not looked for at a cloud's metadata service, where there is none.
    environ = {"AWS_EC2_METADATA_DISABLED": "true", "GOOGLE_APPLICATION_CREDENTIALS": str(home / "none")}
    environ |= {"no_proxy": "", "NO_PROXY": ""}
    environ |= dict.fromkeys(names, f"http://127.0.0.1:{proxy.server_port}")
    with serving(proxy), server_process(home, "--max-body-mb", "8", environ=environ) as server:
        (server.outputs / "link-out").symlink_to("../state")
        (server.outputs / "link-to-passwd").symlink_to("/etc/passwd")
        marks = {b"@PORT@": server.port, b"@TRAP@": trap.port, b"@TOKEN@": TOKEN}
        sender = Sender(server.port, {mark: str(value).encode() for mark, value in marks.items()})
        pings = []

        def send(hostile: Hostile) -> Answer:
            answer = sender.send(hostile)
            pings.append(server.ping())
            return answer

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = dict(zip(EVERY, pool.map(send, EVERY), strict=True))
        yield Sent(answers, pings, trap, proxy, server)
    trap.close()


def test_the_list_is_long_and_no_kind_is_short() -> None:
    counts = Counter(hostile.kind for hostile in EVERY)
    print(f"{len(EVERY)} hostile requests:", ", ".join(f"{kind} {count}" for kind, count in counts.most_common()))
    assert len(EVERY) >= LEAST
    assert min(counts.values()) >= LEAST_OF_A_KIND
    assert len(set(EVERY)) == len(EVERY)


@pytest.mark.parametrize("kind", sorted({hostile.kind for hostile in EVERY}))
def test_each_request_has_an_outcome_that_is_right(sent: Sent, kind: str) -> None:
    wrong = [
        (str(hostile), sorted(answer.outcomes), answer.data[:300])
        for hostile, answer in sent.answers.items()
        if hostile.kind == kind and not any(map(hostile.allows, answer.outcomes))
    ]
    assert wrong == []


def test_no_answer_is_a_failure_of_the_server(sent: Sent) -> None:
    assert [str(hostile) for hostile, answer in sent.answers.items() if any(o[0] == "5" for o in answer.outcomes)] == []


def test_no_answer_tells_a_secret_or_a_file_of_the_machine(sent: Sent) -> None:
    secrets = (b"root:x:0:0", TOKEN.encode(), b"Traceback", b"site-packages", os.fsencode(sent.server.home / "state"))
    assert [str(hostile) for hostile, answer in sent.answers.items() if any(s in answer.data for s in secrets)] == []


def test_ping_answers_all_the_while(sent: Sent) -> None:
    assert Counter(sent.pings) == {200: len(EVERY)}


def test_nothing_reaches_a_listener_of_this_machine(sent: Sent) -> None:
    assert sent.trap.reached == []
    assert [asked for asked in sent.proxy.asked if not asked.startswith(AWAY)] == []
    assert len(sent.proxy.asked) >= len(REDIRECTS), "the redirects were followed as far as they may"


def test_the_log_has_no_traceback_and_no_secret(sent: Sent) -> None:
    log = sent.server.log.read_text()
    assert "Traceback" not in log
    assert "internal error" not in log
    assert TOKEN not in log
    broken = [line for line in log.splitlines() if "job_broken" in line]
    assert broken == []
    for line in log.splitlines():
        json.loads(line)


def test_nothing_is_written_outside_the_servers_folders(sent: Sent) -> None:
    home = sent.server.home
    assert {path.name for path in home.iterdir()} <= {"log", "outputs", "state", ".cache", ".local"}
    assert [path for path in Path("/tmp").glob("hostile-*") if path.is_file()] == []
    outside = [path for path in home.rglob("*hostile*") if not path.is_relative_to(sent.server.outputs)]
    assert outside == []


def test_the_server_still_runs_jobs(sent: Sent) -> None:
    assert sent.server.post("/runsync", {"input": {"workflow": {}}})["status"] == "COMPLETED"
