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
from comfypin.engine.exit_reason import explain_exit, port_was_taken
from comfypin.engine.host import Address
from comfypin.engine.http_transport import Patience, Transport
from comfypin.engine.log_tail import Journal
from comfypin.errors import EngineError
from comfypin.retry import RetryPolicy

log = logging.getLogger(__name__)

# After the first restart, which is not waited for.
RESTARTS = RetryPolicy(retries=None, base_s=2.0, longest_s=30.0)
_STEADY_S = 60.0
_PORT_TRIES = 5
_READY_POLL_S = (0.02, 0.05, 0.1, 0.2)
_CRASH_TAIL = 20
_NOTICE_S = 1.0
_GUARD = Path(__file__).with_name("process_guard.py")
_CGROUP_EVENTS = Path("/sys/fs/cgroup/memory.events")


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """How long an engine may take, in seconds: to become ready, and to end after SIGTERM."""

    ready_s: float = 600.0
    grace_s: float = 5.0


class _Life:
    """One process of the engine, from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process, address: Address, lifeline: int) -> None:
        self.process = process
        self.address = address
        self.began_at = time.monotonic()
        self.ready = False
        self.stopping = False
        self.crash: asyncio.Future[EngineCrashed] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self.oom_kills_before = _oom_kills()
        self._lifeline = lifeline

    def release(self) -> None:
        """Let go of the pipe that keeps the guard waiting."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


class ChildHost:
    """An engine in a child process; implements `EngineHost`. Started when it is needed, and again after a crash."""

    def __init__(self, spec: ChildSpec, work: WorkFolder, session: aiohttp.ClientSession, limits: Supervision) -> None:
        self.journal = Journal(work.log)
        self._spec = spec
        self._work = work
        self._session = session
        self._limits = limits
        self._life: _Life | None = None
        self._starting = asyncio.Lock()
        self._failures = 0
        self._not_before = 0.0
        self._watchers: set[asyncio.Task[None]] = set()

    async def address(self) -> Address:
        """The running engine's address; a dead engine is started again. Raises `EngineStartFailed`."""
        async with self._starting:
            if self._life is not None and not self._life.ended.is_set():
                return self._life.address
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            try:
                self._life = await self._start()
            except EngineStartFailed:
                self._hold_back()
                raise
            return self._life.address

    @property
    def is_ready(self) -> bool:
        """Whether a process of it runs and has answered."""
        return self._life is not None and not self._life.ended.is_set()

    def lives_at(self, address: Address) -> bool:
        """Whether its last process is, or was, at that address."""
        return self._life is not None and self._life.address == address

    async def died(self, address: Address) -> EngineCrashed:
        """Wait for the end of that life, unless it was asked to end."""
        life = self._life
        if life is None or life.address != address:
            return EngineCrashed(reason="it was started again", log_tail=self.journal.tail(_CRASH_TAIL))
        return await asyncio.shield(life.crash)

    def log_tail(self) -> tuple[str, ...]:
        """The last lines of its log."""
        return self.journal.tail(_CRASH_TAIL)

    async def explain(self, address: Address, failure: EngineUnreachable) -> EngineError:
        """The crash, where the process is dead or dies within a second; else the failure itself."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_NOTICE_S):
                return await self.died(address)
        return failure

    async def stop(self) -> None:
        """End the process and everything that it started; waits until they are gone."""
        async with self._starting:
            if self._life is not None:
                await self._end(self._life)
        await asyncio.gather(*self._watchers, return_exceptions=True)

    # -- Start ----------------------------------------------------------------------------------------------------

    async def _start(self) -> _Life:
        await asyncio.to_thread(self._work.prepare, self._spec.models_dir, self._spec.fast_models_dir)
        for _ in range(_PORT_TRIES):
            self.journal.clear()
            life = await self._launch(_free_port())
            try:
                ready = await self._ready(life)
            except BaseException:
                await self._end(life)
                raise
            if ready:
                life.ready = True
                log.info("engine ready", extra={"action": "engine_ready", "url": str(life.address.url)})
                return life
            await self._end(life)
        raise EngineStartFailed(reason="every free port was taken by somebody else before the engine could bind it")

    async def _launch(self, port: int) -> _Life:
        command = self._spec.command(port=port, work=self._work)
        lifeline, ours = os.pipe()
        log_end, child_end = os.pipe()
        guard = [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), str(lifeline), str(self._limits.grace_s)]
        try:
            process = await asyncio.create_subprocess_exec(
                *guard,
                "--",
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=child_end,
                stderr=child_end,
                cwd=self._spec.cwd,
                env=self._spec.environ,
                pass_fds=(lifeline,),
                start_new_session=True,
            )
        except BaseException:
            os.close(ours)
            os.close(log_end)
            raise
        finally:
            os.close(lifeline)
            os.close(child_end)
        address = Address(url=URL(f"http://127.0.0.1:{port}"), folders=self._work.folders)
        life = _Life(process, address, ours)
        watcher = asyncio.get_running_loop().create_task(self._attend(life, log_end))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        return life

    async def _ready(self, life: _Life) -> bool:
        """True when the engine answers; False when it lost its port. Raises `EngineStartFailed`."""
        patience = Patience(connect_s=2.0, request_s=10.0)
        transport = Transport(life.address.url, self._session, patience)
        give_up_at = time.monotonic() + self._limits.ready_s
        for number in range(sys.maxsize):
            if life.ended.is_set():
                if port_was_taken(self.journal.tail()):
                    return False
                raise EngineStartFailed(reason=self._reason(life), log_tail=self.journal.tail(_CRASH_TAIL))
            if time.monotonic() > give_up_at:
                raise EngineStartFailed(
                    reason=f"it did not answer within {self._limits.ready_s:g} s",
                    log_tail=self.journal.tail(_CRASH_TAIL),
                )
            with contextlib.suppress(EngineUnreachable):
                answer = await transport.get("/system_stats")
                if answer.status == 200 and isinstance(answer.body, dict):
                    return _is_ours(answer.body, life.address)
            pause_s = _READY_POLL_S[min(number // 20, len(_READY_POLL_S) - 1)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await life.ended.wait()
        return False

    # -- Life and death -------------------------------------------------------------------------------------------

    async def _attend(self, life: _Life, log_end: int) -> None:
        """Read the log and wait for the end; then say why it ended, if nobody asked for it."""
        reading = asyncio.get_running_loop().create_task(self.journal.follow(log_end))
        await life.process.wait()
        # Its last lines are still in the pipe; who else may hold the other end must not keep us.
        await asyncio.wait({reading}, timeout=_NOTICE_S)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        life.release()
        life.ended.set()
        if life.ready and not life.stopping:
            crash = EngineCrashed(reason=self._reason(life), log_tail=self.journal.tail(_CRASH_TAIL))
            if time.monotonic() - life.began_at > _STEADY_S:
                self._failures = 0
            self._hold_back()
            life.crash.set_result(crash)
            log.warning("engine died", extra={"action": "engine_died", "reason": crash.reason})

    def _reason(self, life: _Life) -> str:
        tail = self.journal.tail(_CRASH_TAIL)
        code = life.process.returncode if life.process.returncode is not None else 1
        return explain_exit(code, tail, oom_killed=_oom_kills() > life.oom_kills_before)

    def _hold_back(self) -> None:
        delay_s = RESTARTS.delay_s(self._failures) if self._failures else None
        self._not_before = time.monotonic() + (delay_s or 0.0)
        self._failures += 1

    async def _end(self, life: _Life) -> None:
        """SIGTERM, then SIGKILL, to the guard; whatever happens to us meanwhile, the guard sees the pipe close."""
        life.stopping = True
        with contextlib.suppress(ProcessLookupError):
            life.process.terminate()
        try:
            async with asyncio.timeout(self._limits.grace_s + 3.0):
                await life.ended.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(life.process.pid, signal.SIGKILL)
            await life.ended.wait()
        finally:
            life.release()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ours(stats: object, address: Address) -> bool:
    """Whether it is our child that answers: a ComfyUI says its arguments, and ours has our port among them."""
    system = stats.get("system") if isinstance(stats, dict) else None
    argv = system.get("argv") if isinstance(system, dict) else None
    return not isinstance(argv, list) or "--port" not in argv or str(address.url.port) in argv


def _oom_kills() -> int:
    """How often the kernel killed in this container for want of memory; 0 where it does not say."""
    try:
        counters = dict(line.split() for line in _CGROUP_EVENTS.read_text().splitlines())
        return int(counters.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0
