"""Keeps an engine available: restarts a dead one at once, and lets a standby take its place meanwhile.

Of the time from a `kill -9` to the next prompt, nearly all is ComfyUI's own start: 11 s of processor time for its
imports (torch, torch._dynamo, transformers), 22 s on a busy machine with two cores; we notice the death within 0.3 s.
We cannot shorten that from outside; a standby has finished it before it is needed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp

from comfypin.engine.cleanup import PromptCleanup
from comfypin.engine.client import HttpEngine
from comfypin.engine.command import ChildSpec, WorkFolder
from comfypin.engine.errors import EngineCrashed, EngineStartFailed, EngineUnreachable
from comfypin.engine.host import EngineAddress
from comfypin.engine.http_transport import EngineTimeouts
from comfypin.engine.process import ChildHost, Supervision
from comfypin.errors import EngineError


class StandbyHost:
    """Runs child processes, the first in use and the others standing by; implements `EngineHost`."""

    def __init__(self, hosts: Sequence[ChildHost]) -> None:
        self._hosts = list(hosts)
        self._starts: dict[ChildHost, asyncio.Task[EngineAddress]] = {}
        self._watchers: dict[EngineAddress, asyncio.Task[None]] = {}

    async def address(self) -> EngineAddress:
        """Return the address of the engine in use; if it is dead, the standby takes its place.

        Raises `EngineStartFailed`.
        """
        if not self._hosts[0].is_ready:
            await self._promote_standby()
        # All callers share one start, so a caller that gives up must not end it.
        address = await asyncio.shield(self._start_host(self._hosts[0]))
        # The standbys start only now, so that they take no processor time from the engine that is waited for.
        for child_host in self._hosts[1:]:
            self._start_host(child_host)
        return address

    async def wait_for_crash(self, address: EngineAddress) -> EngineCrashed:
        """Wait until the engine at that address ends, unless we end it."""
        return await self._find_host(address).wait_for_crash(address)

    def log_tail(self) -> tuple[str, ...]:
        """Return the last lines of the log of the engine in use."""
        return self._hosts[0].log_tail()

    async def explain_failure(self, address: EngineAddress, failure: EngineUnreachable) -> EngineError:
        """Return the crash, if that engine is dead or dies within a second; else the failure itself."""
        return await self._find_host(address).explain_failure(address, failure)

    async def stop(self) -> None:
        """End all engines, including those that are still starting."""
        tasks = [*self._watchers.values(), *self._starts.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(child_host.stop() for child_host in self._hosts))

    def _find_host(self, address: EngineAddress) -> ChildHost:
        return next((child_host for child_host in self._hosts if child_host.is_at_address(address)), self._hosts[0])

    async def _promote_standby(self) -> None:
        """Move to the front a standby that is ready, or will be sooner than a new engine."""
        starting = [host for host in self._hosts[1:] if host in self._starts and not self._starts[host].done()]
        ready = [host for host in self._hosts[1:] if host.is_ready]
        # A standby that fails to start is skipped: the next one may succeed.
        for child_host in (*ready, *starting):
            with contextlib.suppress(EngineStartFailed):
                await asyncio.shield(self._start_host(child_host))
                self._hosts.remove(child_host)
                self._hosts.insert(0, child_host)
                return

    def _start_host(self, child_host: ChildHost) -> asyncio.Task[EngineAddress]:
        task = self._starts.get(child_host)
        if task is None or task.done():
            task = self._starts[child_host] = asyncio.get_running_loop().create_task(child_host.address())
            # Each start is watched, so that a standby that dies while it waits is started again too.
            task.add_done_callback(lambda done: self._watch_started(child_host, done))
        return task

    def _watch_started(self, child_host: ChildHost, done: asyncio.Task[EngineAddress]) -> None:
        # Asking for the exception keeps asyncio quiet: whoever waits for the engine gets it, the next one retries.
        if done.cancelled() or done.exception() is not None or done.result() in self._watchers:
            return
        address = done.result()
        watcher = asyncio.get_running_loop().create_task(self._restart_after(child_host, address))
        self._watchers[address] = watcher
        watcher.add_done_callback(lambda _: self._watchers.pop(address, None))

    async def _restart_after(self, child_host: ChildHost, address: EngineAddress) -> None:
        await child_host.wait_for_crash(address)
        self._start_host(child_host)


@contextlib.asynccontextmanager
async def open_child(
    spec: ChildSpec,
    work: Path,
    *,
    limits: Supervision | None = None,
    timeouts: EngineTimeouts | None = None,
    keep_temp: bool = False,
    standby: bool = False,
) -> AsyncIterator[HttpEngine]:
    """Run an engine as a child process, ready; it and all it started are gone when the block ends.

    `work` belongs to this engine alone; its log is `work/engine.log`. With `keep_temp`, files that prompts leave there
    stay. With `standby`, a second process waits to take its place. Raises `EngineStartFailed`.
    """
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        # Each process needs its own folders and log.
        folders = [WorkFolder(work.absolute()), *([WorkFolder(work.absolute() / "standby")] if standby else [])]
        child_host = StandbyHost([ChildHost(spec, folder, session, limits or Supervision()) for folder in folders])
        # A child that dies is noticed at once; one that does not answer may be loading a large model from a slow disk.
        engine = HttpEngine(
            child_host, session, timeouts or EngineTimeouts(unreachable_s=600.0), cleanup=PromptCleanup(keep=keep_temp)
        )
        try:
            await child_host.address()
            yield engine
        finally:
            await engine.close()
            await child_host.stop()
