"""The first process of a container: it starts services, hands signals on, reaps every orphan, and ends in time."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from comfypin.image.container_command import Service

RESTART_AFTER_S = 2.0
_STOPPING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})
_HANDED_ON = frozenset({signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH})
NOT_FOUND, NOT_EXECUTABLE = 127, 126


@dataclass
class Init:
    """Runs the services until a main one ends or a signal asks for it; its exit code is that of the main one."""

    services: Sequence[Service]
    environ: Mapping[str, str]
    grace_s: float
    tell: Callable[[str], None]
    _running: dict[int, Service] = field(default_factory=dict)
    _due: list[tuple[float, Service]] = field(default_factory=list)
    _code: int | None = None
    _asked_by: int | None = None
    _deadline_s: float | None = None

    def run(self) -> int:
        """Run to the end and return the exit code."""
        heeded = {signal.SIGCHLD, *_STOPPING, *_HANDED_ON}
        signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
        self._due = [(0.0, service) for service in self.services]
        while True:
            self._start_due()
            if self._code is not None or self._asked_by is not None:
                self._stop_all()
                if not self._running:
                    return self._exit_code()
            caught = signal.sigtimedwait(heeded, self._patience_s())
            if caught is not None and caught.si_signo != signal.SIGCHLD:
                self._heed(caught.si_signo)
            self._reap()

    def _start_due(self) -> None:
        if self._code is not None or self._asked_by is not None:
            self._due.clear()
            return
        now_s = time.monotonic()
        ready = [(at, service) for at, service in self._due if at <= now_s and _answers(service.waits_for)]
        for item in ready:
            self._due.remove(item)
            self._start(item[1])

    def _start(self, service: Service) -> None:
        try:
            process = subprocess.Popen(
                service.argv,
                env=dict(self.environ),
                start_new_session=not _has_terminal(),
                preexec_fn=_unblock,  # noqa: PLW1509 - this process has one thread
            )
        except OSError as error:
            self.tell(f"{service.argv[0]} cannot be started: {error.strerror}.")
            self._code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            return
        # It is waited for here, together with every orphan; Popen must not do so too when it is collected.
        process.returncode = 0
        self._running[process.pid] = service

    def _heed(self, number: int) -> None:
        if number in _STOPPING and self._asked_by is None:
            self._asked_by = number
        self._send(signal.Signals(number))

    def _stop_all(self) -> None:
        now_s = time.monotonic()
        if self._deadline_s is None:
            self._deadline_s = now_s + self.grace_s
            if self._asked_by is None:
                self._send(signal.SIGTERM)
        elif now_s >= self._deadline_s:
            self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        for pid in list(self._running):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            service = self._running.pop(pid, None)
            if service is not None:
                self._ended(service, os.waitstatus_to_exitcode(status))

    def _ended(self, service: Service, code: int) -> None:
        if service.main:
            self._code = self._code if self._code is not None else (128 - code if code < 0 else code)
        elif self._code is None and self._asked_by is None:
            self.tell(f"{service.name} ended with {code}; it is started again.")
            self._due.append((time.monotonic() + RESTART_AFTER_S, service))

    def _patience_s(self) -> float:
        if self._deadline_s is not None:
            return min(1.0, max(0.01, self._deadline_s - time.monotonic()))
        return 0.25 if self._due else 3600.0

    def _exit_code(self) -> int:
        if self._code is not None:
            return self._code
        return 128 + (self._asked_by or 0)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _has_terminal() -> bool:
    """A shell on a terminal needs to stay in the terminal's session."""
    return sys.stdin is not None and sys.stdin.isatty()


def _answers(port: int | None) -> bool:
    if port is None:
        return True
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
