"""Supervises an engine's process: start, readiness, death and its reason, restart with back-off, no orphans."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from yarl import URL

from comfypin.engine.command import ChildSpec, WorkFolder
from comfypin.engine.errors import EngineCrashed, EngineStartFailed, EngineUnreachable
from comfypin.engine.exit_reason import explain_exit, is_port_taken
from comfypin.engine.host import EngineAddress
from comfypin.engine.http_transport import EngineTimeouts, EngineTransport
from comfypin.engine.log_tail import EngineLog
from comfypin.errors import EngineError
from comfypin.retry import RetryPolicy

log = logging.getLogger(__name__)

# After the first restart, which is not waited for.
RESTARTS = RetryPolicy(retries=None, base_s=2.0, longest_s=30.0)
# An engine that ran this long did not crash because of how it was started: back-off begins anew.
_STEADY_S = 60.0
# Between our choice of a free port and ComfyUI's bind lie seconds of imports, so it can be lost.
_PORT_TRIES = 5
# Quick at first, for the embedded engine; slower later, for a ComfyUI that imports torch. 20 polls each.
_READY_POLL_S = (0.02, 0.05, 0.1, 0.2)
# Lines that go into an error message: a traceback's end, not a screen full.
_CRASH_TAIL = 20
# A dying process closes its sockets before it ends: wait, so that the crash is blamed and not the network.
_NOTICE_S = 1.0
# Started as a file, not as a module, so that it imports nothing of comfypin and stays small.
_GUARD = Path(__file__).with_name("process_guard.py")
# cgroup v2 only: with v1 the exit code alone must do.
_CGROUP_EVENTS = Path("/sys/fs/cgroup/memory.events")


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """Limits how long an engine may take, in seconds: to become ready, and to end after SIGTERM."""

    ready_s: float = 600.0
    grace_s: float = 5.0


class _EngineInstance:
    """Tracks one process of the engine, from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process, address: EngineAddress, lifeline: int) -> None:
        self.process = process
        self.address = address
        self.began_at = time.monotonic()
        self.ready = False
        self.stopping = False
        self.crash: asyncio.Future[EngineCrashed] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self.oom_kills_before = _oom_kills()
        self._lifeline = lifeline

    def close_lifeline(self) -> None:
        """Close the pipe that keeps the guard waiting."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


class ChildHost:
    """Runs an engine in a child process, started on demand and again after a crash; implements `EngineHost`."""

    def __init__(
        self, spec: ChildSpec, work_folder: WorkFolder, session: aiohttp.ClientSession, supervision: Supervision
    ) -> None:
        self.engine_log = EngineLog(work_folder.log_path)
        self._spec = spec
        self._work = work_folder
        self._session = session
        self._limits = supervision
        self._instance: _EngineInstance | None = None
        self._starting = asyncio.Lock()
        self._failures = 0
        self._not_before = 0.0
        self._watchers: set[asyncio.Task[None]] = set()

    async def address(self) -> EngineAddress:
        """Return the running engine's address; starts a dead engine again. Raises `EngineStartFailed`."""
        async with self._starting:
            if self._instance is not None and not self._instance.ended.is_set():
                return self._instance.address
            # Under the lock: whoever asks meanwhile waits for the same start.
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            try:
                self._instance = await self._start_instance()
            except EngineStartFailed:
                self._delay_restart()
                raise
            return self._instance.address

    @property
    def is_ready(self) -> bool:
        """Return whether a process of it runs and has answered."""
        return self._instance is not None and not self._instance.ended.is_set()

    def is_at_address(self, address: EngineAddress) -> bool:
        """Return whether its last process is, or was, at that address."""
        return self._instance is not None and self._instance.address == address

    async def wait_for_crash(self, address: EngineAddress) -> EngineCrashed:
        """Wait until the engine at that address ends, unless we end it."""
        instance = self._instance
        # Each start has another port, so another address means that the engine started anew since.
        if instance is None or instance.address != address:
            return EngineCrashed(reason="it was restarted", log_tail=self.engine_log.last_lines(_CRASH_TAIL))
        # Several prompts wait for this future: a cancelled one must not cancel it for all.
        return await asyncio.shield(instance.crash)

    def log_tail(self) -> tuple[str, ...]:
        """Return the last lines of its log."""
        return self.engine_log.last_lines(_CRASH_TAIL)

    async def explain_failure(self, address: EngineAddress, failure: EngineUnreachable) -> EngineError:
        """Return the crash if the process is dead or dies within a second; else the failure itself."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_NOTICE_S):
                return await self.wait_for_crash(address)
        return failure

    async def stop(self) -> None:
        """End the process and everything that it started; wait until they are gone."""
        async with self._starting:
            if self._instance is not None:
                await self._end_instance(self._instance)
        await asyncio.gather(*self._watchers, return_exceptions=True)

    # -- Start ----------------------------------------------------------------------------------------------------

    async def _start_instance(self) -> _EngineInstance:
        """Start a process and wait until it answers. Raises `EngineStartFailed`."""
        await asyncio.to_thread(self._work.create_folders, self._spec.models_dir, self._spec.fast_models_dir)
        # A start that lost its port is not a failure: try the next port.
        for _ in range(_PORT_TRIES):
            self.engine_log.clear_lines()
            # A free port may be taken before the engine binds it; then the next try gets another.
            instance = await self._launch_process(_free_port())
            try:
                ready = await self._wait_until_ready(instance)
            except BaseException:
                await self._end_instance(instance)
                raise
            if ready:
                instance.ready = True
                log.info("engine ready", extra={"action": "engine_ready", "url": str(instance.address.url)})
                return instance
            await self._end_instance(instance)
        raise EngineStartFailed(reason="another process took every free port before the engine could bind it")

    async def _launch_process(self, port: int) -> _EngineInstance:
        """Start the guard, which starts the engine, with its log in a pipe."""
        command = self._spec.command_line(port=port, work_folder=self._work)
        # If we are killed, the kernel closes our end of this pipe, and the guard ends the engine.
        lifeline, guard_end = os.pipe()
        log_end, output_end = os.pipe()
        # -I -S: neither the user's site-packages nor PYTHONPATH may break the guard.
        guard_command = [sys.executable, "-I", "-S", str(_GUARD)]
        guard_arguments = [str(os.getpid()), str(lifeline), str(self._limits.grace_s)]
        try:
            process = await asyncio.create_subprocess_exec(
                *guard_command,
                *guard_arguments,
                "--",
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output_end,
                stderr=output_end,
                cwd=self._spec.cwd,
                env=self._spec.environ,
                pass_fds=(lifeline,),
                # Ctrl-C in the terminal must reach comfypin alone, which then stops the engine in order.
                start_new_session=True,
            )
        except BaseException:
            os.close(guard_end)
            os.close(log_end)
            raise
        finally:
            # The guard has its own copies; ours would keep the pipes open after it has ended.
            os.close(lifeline)
            os.close(output_end)
        address = EngineAddress(url=URL(f"http://127.0.0.1:{port}"), folders=self._work.engine_folders)
        instance = _EngineInstance(process, address, guard_end)
        watcher = asyncio.get_running_loop().create_task(self._watch_instance(instance, log_end))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        return instance

    async def _wait_until_ready(self, instance: _EngineInstance) -> bool:
        """Return True when the engine answers, False if it lost its port. Raises `EngineStartFailed`."""
        timeouts = EngineTimeouts(connect_s=2.0, request_s=10.0)
        transport = EngineTransport(instance.address.url, self._session, timeouts)
        give_up_at = time.monotonic() + self._limits.ready_s
        # Ends by the deadline below; `attempt` only slows the polls.
        for attempt in range(sys.maxsize):
            if instance.ended.is_set():
                if is_port_taken(self.engine_log.last_lines()):
                    return False
                raise EngineStartFailed(
                    reason=self._explain_end(instance), log_tail=self.engine_log.last_lines(_CRASH_TAIL)
                )
            if time.monotonic() > give_up_at:
                raise EngineStartFailed(
                    reason=f"it did not answer within {self._limits.ready_s:g} s",
                    log_tail=self.engine_log.last_lines(_CRASH_TAIL),
                )
            with contextlib.suppress(EngineUnreachable):
                response = await transport.get_json("/system_stats")
                if response.status == 200 and isinstance(response.body, dict):
                    # Another process may have taken the port, and be a ComfyUI too.
                    return _is_ours(response.body, instance.address)
            pause_s = _READY_POLL_S[min(attempt // 20, len(_READY_POLL_S) - 1)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await instance.ended.wait()
        return False

    # -- Life and death -------------------------------------------------------------------------------------------

    async def _watch_instance(self, instance: _EngineInstance, log_end: int) -> None:
        """Read the log until the process ends; then record why, if nobody asked for the end."""
        reading = asyncio.get_running_loop().create_task(self.engine_log.follow_pipe(log_end))
        await instance.process.wait()
        # Its last lines are still in the pipe; who else may hold the other end must not keep us.
        await asyncio.wait({reading}, timeout=_NOTICE_S)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        instance.close_lifeline()
        instance.ended.set()
        if instance.ready and not instance.stopping:
            crash = EngineCrashed(reason=self._explain_end(instance), log_tail=self.engine_log.last_lines(_CRASH_TAIL))
            # One that ran for long has not failed to start: its next failures count from none.
            if time.monotonic() - instance.began_at > _STEADY_S:
                self._failures = 0
            self._delay_restart()
            instance.crash.set_result(crash)
            log.warning("engine died", extra={"action": "engine_died", "reason": crash.reason})

    def _explain_end(self, instance: _EngineInstance) -> str:
        tail = self.engine_log.last_lines(_CRASH_TAIL)
        code = instance.process.returncode if instance.process.returncode is not None else 1
        return explain_exit(code, tail, oom_killed=_oom_kills() > instance.oom_kills_before)

    def _delay_restart(self) -> None:
        delay_s = RESTARTS.delay_s(self._failures) if self._failures else None
        # Noted, not slept: whoever needs the engine next waits, and nobody who only watches it.
        self._not_before = time.monotonic() + (delay_s or 0.0)
        # The first restart is immediate: most crashes do not repeat.
        self._failures += 1

    async def _end_instance(self, instance: _EngineInstance) -> None:
        """End the process by SIGTERM, then SIGKILL, to the guard, which kills the rest when its pipe closes."""
        instance.stopping = True
        with contextlib.suppress(ProcessLookupError):
            instance.process.terminate()
        try:
            # The guard itself needs a moment to kill what the command left.
            async with asyncio.timeout(self._limits.grace_s + 3.0):
                await instance.ended.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                # The guard is stuck; once it is dead, the kernel kills the command by its parent-death signal.
                os.killpg(instance.process.pid, signal.SIGKILL)
            await instance.ended.wait()
        finally:
            instance.close_lifeline()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ours(system_stats: object, address: EngineAddress) -> bool:
    """Return whether our child answers: a ComfyUI reports its arguments, and ours has our port among them."""
    system = system_stats.get("system") if isinstance(system_stats, dict) else None
    argv = system.get("argv") if isinstance(system, dict) else None
    # An engine that hides its arguments gets the benefit of the doubt.
    return not isinstance(argv, list) or "--port" not in argv or str(address.url.port) in argv


def _oom_kills() -> int:
    """Return how often the kernel killed in this container for lack of memory; 0 if it does not say."""
    try:
        counters = dict(line.split() for line in _CGROUP_EVENTS.read_text().splitlines())
        return int(counters.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0
