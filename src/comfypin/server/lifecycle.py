"""Runs a server from its first socket to its last job: it answers at once, and runs jobs when the engine is warm."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from comfypin.jobs.handler import Handler, JobService
from comfypin.jobs.warmup import warm_engine
from comfypin.queue.interface import QueueWorker
from comfypin.retry import Failures, RetryPolicy
from comfypin.server.connections import ConnectionLimits, Connections, LimitedProtocol
from comfypin.server.errors import PortUnusable
from comfypin.server.server_state import Site

log = logging.getLogger(__name__)

OpenService = Callable[[], AbstractAsyncContextManager[JobService]]
"""Opens the engine and what its jobs share; may take minutes."""

# Jobs have ended by then; only followers are left, and they come back by themselves.
_CLOSE_WITHIN_S = 3
_SYNC_RESTARTS = RetryPolicy(retries=None, base_s=5.0, longest_s=60.0)
# What has run for five minutes was healthy; its next end is a new trouble.
_SYNC_STEADY_S = 300.0
# A burst of clients waits in the kernel instead of being refused while one request is parsed.
_BACKLOG = 2048
# asyncio accepts as many as its backlog before it looks at any of them: that many descriptors beyond the limit.
_ACCEPTED_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class HostingOptions:
    """Options for hosting: sockets, their limits, the grace of running jobs, where outputs are synced to."""

    sockets: Sequence[socket.socket]
    grace_s: float
    connections: ConnectionLimits
    sync: tuple[Path, str] | None = None


async def host_server(
    application: FastAPI, site: Site, queue: QueueWorker, open_service: OpenService, hosting_options: HostingOptions
) -> None:
    """Serve until SIGTERM or SIGINT. Raises the error that kept the engine from starting."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    connections = Connections(hosting_options.connections)
    logging.getLogger("uvicorn.error").addFilter(connections.log_once)
    # asyncio logs a traceback for each connection that the kernel refuses: a flood would fill the log.
    loop.set_exception_handler(connections.log_once.accept_failed)
    server = _Server(_uvicorn_config(application, connections))
    await queue.recover_jobs()
    serve_task = asyncio.create_task(server.serve(sockets=list(hosting_options.sockets)))
    run_task = asyncio.create_task(_run_jobs(site, queue, open_service))
    stop_task = asyncio.create_task(stop.wait())
    sweep_task = asyncio.create_task(connections.sweep_forever())
    sync_task = asyncio.create_task(_keep_syncing(*hosting_options.sync)) if hosting_options.sync else None
    try:
        await asyncio.wait({serve_task, run_task, stop_task}, return_when=asyncio.FIRST_COMPLETED)
        # First tell load balancers, then end the jobs, then the connections that wait for them.
        site.announce_stop()
        await queue.stop_jobs(hosting_options.grace_s)
        # After the jobs, so that clients that wait for one still get its result.
        server.should_exit = True
        await serve_task
    finally:
        for task in (run_task, stop_task, sweep_task, sync_task):
            if task is not None:
                task.cancel()
        run_results = await asyncio.gather(run_task, return_exceptions=True)
        await asyncio.gather(stop_task, sweep_task, *([sync_task] if sync_task else []), return_exceptions=True)
    if isinstance(run_results[0], Exception):
        raise run_results[0]


def _uvicorn_config(application: FastAPI, connections: Connections) -> uvicorn.Config:
    protocol: Any = partial(LimitedProtocol, connections=connections)
    return uvicorn.Config(
        application,
        http=protocol,
        ws="none",
        # The command has set up logging already.
        log_config=None,
        access_log=False,
        backlog=_ACCEPTED_AT_ONCE,
        timeout_graceful_shutdown=_CLOSE_WITHIN_S,
    )


async def _run_jobs(site: Site, queue: QueueWorker, open_service: OpenService) -> None:
    """Open the engine, warm it, run jobs until cancelled."""
    async with open_service() as service:
        handler = Handler(service, previews=queue.previews)
        # The engines of a fleet are warmed where they are.
        if queue.runs_here:
            with service.start_times.measure("warm_up"):
                await warm_engine(handler, service)
            start_s = service.start_times.end()
            handler.report_start(lambda: start_s)
            queue.note_start(start_s)
        site.open_for_jobs(service, handler)
        log.info("server ready", extra={"action": "server_ready", "release": site.release.name})
        await queue.run_jobs(site.wrap_handle(handler))


async def _keep_syncing(folder: Path, destination: str) -> None:
    """Run `comfypin sync` on the outputs, and start it again if it ends; what it owes is on the disk."""
    command = [sys.executable, "-m", "comfypin.cli.main", "sync", str(folder), destination]
    failures = Failures(_SYNC_RESTARTS)
    while True:
        began_at = time.monotonic()
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
        try:
            code = await process.wait()
        finally:
            # It must not outlive the server.
            if process.returncode is None:
                process.terminate()
                await process.wait()
        if time.monotonic() - began_at > _SYNC_STEADY_S:
            failures.begin_new_row()
        delay_s = failures.count_failure() or 0.0
        log.error("sync ended", extra={"action": "sync_ended", "exit_code": code, "again_in_s": round(delay_s, 1)})
        await asyncio.sleep(delay_s)


def open_sockets(host_name: str, ports: Sequence[int]) -> list[socket.socket]:
    """Return a listening socket for each port. Raises `PortUnusable`."""
    sockets: list[socket.socket] = []
    # The port for health checks may be the same as the other one.
    for port in dict.fromkeys(ports):
        try:
            family = socket.AF_INET6 if ":" in host_name else socket.AF_INET
            listening_socket = socket.create_server((host_name, port), family=family, backlog=_BACKLOG)
        except (OSError, OverflowError) as error:
            for open_socket in sockets:
                open_socket.close()
            raise PortUnusable(
                address=f"{host_name}:{port}", reason=getattr(error, "strerror", None) or str(error)
            ) from error
        # Connections inherit it. asyncio sets it only for sockets that name TCP as their protocol, which these do not:
        # each answer's body would wait 40 ms for the client's kernel to acknowledge its head.
        listening_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The engine is a child process: it must not keep the port open after us.
        listening_socket.set_inheritable(False)
        sockets.append(listening_socket)
    return sockets


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: jobs end before connections do. The kernel keeps its longer backlog."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_BACKLOG)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
