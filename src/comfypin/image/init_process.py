"""The first process of a container: starts services, forwards signals, reaps every orphan, and ends in time."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from comfypin.image.container_command import ContainerService

# A service that dies at once must not use a core for restarts.
RESTART_AFTER_S = 2.0
_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})
_FORWARDED_SIGNALS = frozenset({signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH})
# As shells do: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html
NOT_FOUND, NOT_EXECUTABLE = 127, 126


@dataclass
class InitProcess:
    """Runs the services until a main one ends or a signal stops them; exits with the code of the main one."""

    services: Sequence[ContainerService]
    environ: Mapping[str, str]
    grace_s: float
    report: Callable[[str], None]
    _running_services: dict[int, ContainerService] = field(default_factory=dict)
    _due_services: list[tuple[float, ContainerService]] = field(default_factory=list)
    _main_exit_code: int | None = None
    _stop_signal: int | None = None
    _deadline_s: float | None = None

    def run_services(self) -> int:
        """Run to the end and return the exit code."""
        handled_signals = {signal.SIGCHLD, *_STOP_SIGNALS, *_FORWARDED_SIGNALS}
        # Signals are blocked and waited for: one that a handler took between a check and the wait would be missed.
        signal.pthread_sigmask(signal.SIG_BLOCK, handled_signals)
        self._due_services = [(0.0, service) for service in self.services]
        while True:
            self._start_due()
            if self._main_exit_code is not None or self._stop_signal is not None:
                self._stop_all()
                if not self._running_services:
                    return self._exit_code()
            caught_signal = signal.sigtimedwait(handled_signals, self._wait_timeout_s())
            if caught_signal is not None and caught_signal.si_signo != signal.SIGCHLD:
                self._handle_signal(caught_signal.si_signo)
            self._reap_children()

    def _start_due(self) -> None:
        if self._main_exit_code is not None or self._stop_signal is not None:
            self._due_services.clear()
            return
        now_s = time.monotonic()
        ready_services = [
            (due_at_s, service)
            for due_at_s, service in self._due_services
            if due_at_s <= now_s and _takes_connections(service.waits_for)
        ]
        for due_service in ready_services:
            self._due_services.remove(due_service)
            self._start_service(due_service[1])

    def _start_service(self, service: ContainerService) -> None:
        try:
            service_process = subprocess.Popen(
                service.argv,
                env=dict(self.environ),
                # A session of its own, so that Ctrl-C in a terminal reaches a service only through us.
                start_new_session=not _has_terminal(),
                preexec_fn=_unblock_signals,  # noqa: PLW1509 - this process has one thread
            )
        except OSError as error:
            self.report(f"{service.argv[0]} cannot be started: {error.strerror}.")
            self._main_exit_code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            return
        # We reap it together with every orphan, so Popen must not wait for it too when it is garbage-collected.
        service_process.returncode = 0
        self._running_services[service_process.pid] = service

    def _handle_signal(self, signal_number: int) -> None:
        if signal_number in _STOP_SIGNALS and self._stop_signal is None:
            self._stop_signal = signal_number
        self._send_signal(signal.Signals(signal_number))

    def _stop_all(self) -> None:
        now_s = time.monotonic()
        if self._deadline_s is None:
            self._deadline_s = now_s + self.grace_s
            if self._stop_signal is None:
                self._send_signal(signal.SIGTERM)
        elif now_s >= self._deadline_s:
            self._send_signal(signal.SIGKILL)

    def _send_signal(self, signal_number: signal.Signals) -> None:
        for process_id in list(self._running_services):
            try:
                os.kill(process_id, signal_number)
            except ProcessLookupError:
                continue

    def _reap_children(self) -> None:
        while True:
            try:
                # Any child: the kernel gives us the orphans of all services too.
                process_id, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process_id == 0:
                return
            service = self._running_services.pop(process_id, None)
            if service is not None:
                self._note_exit(service, os.waitstatus_to_exitcode(wait_status))

    def _note_exit(self, service: ContainerService, exit_code: int) -> None:
        if service.main:
            self._main_exit_code = (
                self._main_exit_code
                if self._main_exit_code is not None
                else (128 - exit_code if exit_code < 0 else exit_code)
            )
        elif self._main_exit_code is None and self._stop_signal is None:
            self.report(f"{service.name} exited with code {exit_code}; it will be started again.")
            self._due_services.append((time.monotonic() + RESTART_AFTER_S, service))

    def _wait_timeout_s(self) -> float:
        if self._deadline_s is not None:
            # Wake up for the deadline, and once a second to kill what ignored SIGTERM.
            return min(1.0, max(0.01, self._deadline_s - time.monotonic()))
        # A port that a service waits for is polled.
        return 0.25 if self._due_services else 3600.0

    def _exit_code(self) -> int:
        if self._main_exit_code is not None:
            return self._main_exit_code
        return 128 + (self._stop_signal or 0)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _has_terminal() -> bool:
    """Return whether we have a terminal: a shell on it must stay in its session."""
    return sys.stdin is not None and sys.stdin.isatty()


def _takes_connections(port_number: int | None) -> bool:
    if port_number is None:
        return True
    with socket.socket() as probe_socket:
        probe_socket.settimeout(0.2)
        return probe_socket.connect_ex(("127.0.0.1", port_number)) == 0
