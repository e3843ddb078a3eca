"""Serve jobs over HTTP: Runpod's endpoint API on this machine, and every workflow of the release as an endpoint.

Jobs are written to disk before they are accepted, so they survive restarts. On a pod the server listens on all
addresses and requires a token (COMFYPIN_TOKEN, else one that is made and printed at the first start). Outputs go to the
destination of OUTPUT_MODE, else to the configured bucket, else into --output-dir, which is served at /outputs/.
"""

import argparse
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import open_job_models, read_release
from comfypin.cli.serve_access import (
    Addresses,
    choose_ports,
    choose_token,
    find_public_url,
    local_url,
    print_sign_in_link,
    read_root_path,
)
from comfypin.cli.serve_flags import add_serve_flags
from comfypin.cli.serve_folders import ensure_output_folder, ensure_state_folder, lease_state
from comfypin.errors import UsageError
from comfypin.process_memory import give_back_large_blocks
from comfypin.settings.environment import Settings

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from fastapi import FastAPI

    from comfypin.engine.interface import Engine
    from comfypin.jobs.handler import JobService
    from comfypin.lock.model import Lock, Release
    from comfypin.outputs.interface import OutputSink
    from comfypin.queue.job_runner import QueueLimits
    from comfypin.queue.steady_clock import Clock
    from comfypin.server.comfy_api.api import ComfyApi
    from comfypin.server.comfy_api.output_assets import OutputAssets
    from comfypin.server.lifecycle import OpenService
    from comfypin.server.server_state import Site
    from comfypin.server.sessions import Sessions
    from comfypin.server.thumbnails import Thumbnails
    from comfypin.wiring import EngineChoice
    from comfypin.wiring.queues import OpenQueue

log = logging.getLogger(__name__)

_WITHOUT_LOCK = (
    "Without a lock: --engine-url URL takes a ComfyUI that runs, --comfy-home DIR starts one of your own, and --lock "
    "demo is the built-in engine, which has no models."
)

EXAMPLES = """examples:
  comfypin serve --lock demo                         the API and its page at http://127.0.0.1:8000
  comfypin serve --engine-url http://127.0.0.1:8188  jobs for a ComfyUI that runs already; results say "unpinned"
  comfypin serve --lock mine --comfy-home ~/ComfyUI  a ComfyUI of your own, compared with the lock
  curl -d '{"input": {"workflow": {}}}' -H 'Content-Type: application/json' http://127.0.0.1:8000/runsync"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_serve_flags(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    import asyncio

    from comfypin.cli import console

    _require_extra()
    # Collectors of logs parse JSON; a person at a terminal reads lines.
    console.configure_service_logging(as_json=arguments.json or not sys.stderr.isatty(), verbose=arguments.verbose)
    settings: Settings = arguments.settings.with_flags(comfy_home=arguments.comfy_home, comfy_python=arguments.python)
    lock = _read_lock(arguments, settings)
    give_back_large_blocks()
    asyncio.run(_run_server(arguments, lock, settings))
    return 0


def _read_lock(arguments: argparse.Namespace, settings: Settings) -> "Lock | None":
    """Return the lock, or None if the user named none and has a ComfyUI of their own. Raises `LockError`."""
    from comfypin.lock.errors import LockNotNamed

    try:
        return read_release(arguments.lock, settings)
    except LockNotNamed as error:
        # The servers and workers of a fleet find each other by their release.
        if arguments.queue or settings.fleet.queue:
            raise
        if arguments.engine_url is None and arguments.comfy_home is None:
            raise LockNotNamed(releases=error.releases, _instead=_WITHOUT_LOCK) from None
    engine_place = "--comfy-home" if arguments.engine_url is None else "--engine-url"
    log.warning(
        "unpinned: no lock says what the ComfyUI at %s runs",
        engine_place,
        extra={"action": "unpinned", "engine_url": arguments.engine_url, "comfy_home": arguments.comfy_home},
    )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    """The lock, the engine that runs its jobs (None: workers elsewhere do), and the release that results may claim."""

    lock: "Lock | None"
    engine: "EngineChoice | None"
    release: "Release"

    @property
    def engine_kind(self) -> str:
        """Return the engine's kind, as /system tells it."""
        if self.engine is not None:
            return self.engine.kind
        return "remote" if self.lock is None else self.lock.engine.kind

    @property
    def engine_url(self) -> str | None:
        """Return the address of an engine that is somebody else's to start."""
        return self.engine.spec.url if self.engine is not None and self.engine.kind == "remote" else None


async def _choose_served(arguments: argparse.Namespace, lock: "Lock | None", settings: Settings) -> _Served:
    import asyncio

    from comfypin import wiring
    from comfypin.lock.codec import release_identity
    from comfypin.lock.model import EngineSpec

    if arguments.queue or settings.fleet.queue:
        # A lane of the queue; each worker says what made its results.
        return _Served(lock=lock, engine=None, release=release_identity(lock))
    choice = wiring.choose_engine(
        EngineSpec() if lock is None else lock.engine,
        settings,
        # A home that is named is to be used: the lock's own engine would leave it aside without a word.
        kind="comfyui" if arguments.comfy_home is not None and arguments.engine_url is None else None,
        engine_url=arguments.engine_url,
        keep_temp=arguments.keep_temp,
        url_home=arguments.comfy_home,
    )
    return _Served(lock=lock, engine=choice, release=await asyncio.to_thread(wiring.name_release, lock, choice))


async def _run_server(arguments: argparse.Namespace, lock: "Lock | None", settings: Settings) -> None:
    from comfypin.queue.steady_clock import steady_clock
    from comfypin.server.connections import ConnectionLimits
    from comfypin.server.lifecycle import HostingOptions, host_server, open_sockets
    from comfypin.server.sessions import Sessions

    server_settings = settings.server
    address = arguments.host or ("0.0.0.0" if server_settings.pod_id else "127.0.0.1")  # noqa: S104 - pods are behind a proxy
    state_folder = ensure_state_folder(arguments.state_dir or settings.state_dir / "serve")
    prefix = read_root_path(arguments.root_path)
    token, is_first_start = choose_token(arguments, server_settings, state_folder, address)
    sessions = None if token is None else Sessions(state_folder / "sessions.json", token=token)
    # A fleet's servers run in containers, whose working folder takes no files.
    default_outputs = state_folder / "outputs" if arguments.queue or settings.fleet.queue else Path("outputs")
    outputs = ensure_output_folder(arguments.output_dir or default_outputs)
    sockets = open_sockets(address, choose_ports(arguments, server_settings))
    # With --port 0 the system chose it.
    bound_port = sockets[0].getsockname()[1]
    public_url = find_public_url(server_settings, bound_port)
    base_url = public_url or f"{local_url(address, bound_port)}{prefix}"
    # One clock for jobs and assets, whose times are compared.
    clock = steady_clock()
    with lease_state(state_folder):
        served = await _choose_served(arguments, lock, settings)
        async with _open_queue(arguments, served, settings, state_folder, clock=clock) as open_queue:
            parts = _assemble(
                *(arguments, served, settings, open_queue),
                outputs=outputs,
                state_folder=state_folder,
                access=(token, sessions),
                addresses=Addresses(public_url=public_url, base_url=base_url, prefix=prefix),
                clock=clock,
            )
            log.info("listening", extra={"action": "listening", "address": f"http://{address}:{bound_port}"})
            if sessions is not None:
                print_sign_in_link(sessions, base_url, is_first_start=is_first_start)
            hosting = HostingOptions(
                sockets=sockets,
                grace_s=arguments.grace,
                connections=ConnectionLimits.for_total(arguments.connections),
                sync=(outputs, arguments.sync) if arguments.sync else None,
            )
            await host_server(parts.app, parts.site, open_queue.queue, parts.open_service, hosting)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What `_assemble` has put together."""

    app: "FastAPI"
    site: "Site"
    open_service: "OpenService"


def _open_queue(
    arguments: argparse.Namespace, served: _Served, settings: Settings, state_folder: Path, *, clock: "Clock"
) -> "AbstractAsyncContextManager[OpenQueue]":
    """Open the queue of this machine, or that of a fleet."""
    from comfypin import wiring
    from comfypin.queue.webhook import Webhooks

    limits = _make_queue_limits(arguments)
    webhooks = Webhooks(
        secret=settings.server.webhook_secret,
        allow_private=arguments.allow_private_inputs,
        proxies=wiring.http_proxies(settings),
    )
    queue_address = arguments.queue or settings.fleet.queue
    if queue_address is None:
        worker_id = settings.server.pod_id or "local"
        return wiring.open_local_queue(
            state_folder, limits, webhooks, release_name=served.release.name, worker_id=worker_id, clock=clock
        )
    assert served.lock is not None  # `_read_lock` lets no fleet's server do without
    wiring.require_fleet_extra("comfypin serve")
    return wiring.open_fleet_queue(
        queue_address,
        state_folder,
        limits,
        webhooks,
        lock=served.lock,
        settings=settings,
        clock=clock,
        body_url=_read_body_url(arguments.body_url) or settings.server.body_url,
    )


def _assemble(
    arguments: argparse.Namespace,
    served: _Served,
    settings: Settings,
    open_queue: "OpenQueue",
    *,
    outputs: Path,
    state_folder: Path,
    access: "tuple[str | None, Sessions | None]",
    addresses: Addresses,
    clock: "Clock",
) -> _Parts:
    """Put the application together over a queue."""
    from comfypin import wiring
    from comfypin.server.app import make_app
    from comfypin.server.auth import AccessRules
    from comfypin.server.body_routes import body_routes
    from comfypin.server.comfy_api.output_assets import OutputAssets
    from comfypin.server.comfy_api.uploads import MULTIPART_BYTES
    from comfypin.server.output_folder import ServedOutputFolder
    from comfypin.server.server_state import Site

    queue, token_and_sessions = open_queue.queue, access
    site = Site(queue, outputs, release=served.release, allows_private_webhooks=arguments.allow_private_inputs)
    comfy_api = _make_comfy_api(arguments, site, open_queue, state_folder, public_url=addresses.public_url, clock=clock)
    open_queue.use_assets(comfy_api.assets.read)
    rules = AccessRules(
        token=token_and_sessions[0],
        max_body_bytes=arguments.max_body_mb * 1_000_000,
        max_upload_bytes=comfy_api.limits.upload_bytes + MULTIPART_BYTES,
        sessions=token_and_sessions[1],
    )
    page = wiring.open_page(
        site,
        open_queue.store,
        comfy_api.assets,
        bucket=comfy_api.bucket,
        lock=served.lock,
        settings=settings,
        state_folder=state_folder,
        engine_kind=served.engine_kind,
        engine_url=served.engine_url,
        sync_destination=arguments.sync,
        prefix=addresses.prefix,
        clock=clock,
        read_fleet=open_queue.read_fleet,
        private_addresses=arguments.allow_private_inputs,
    )
    folder = ServedOutputFolder(outputs, base_url=addresses.base_url)
    output_assets = OutputAssets(
        comfy_api.assets, comfy_api.records, queue.events, base_url=addresses.base_url, find_live=queue.find_live
    )
    site.wrap_handle = lambda handle: comfy_api.secrets.wrap_handle(output_assets.wrap_handle(handle))
    if open_queue.engine is None:
        open_service = _make_service_opener(
            *(arguments, served, settings, folder),
            output_assets=output_assets,
            thumbnails=page.gallery.thumbnails,
        )
    else:
        open_service = _make_fleet_service_opener(arguments, served.lock, open_queue.engine)
    bodies = () if open_queue.bodies is None else (body_routes(open_queue.bodies),)
    return _Parts(app=make_app(site, rules, comfy_api, page, bodies), site=site, open_service=open_service)


def _make_comfy_api(
    arguments: argparse.Namespace,
    site: "Site",
    open_queue: "OpenQueue",
    state_folder: Path,
    *,
    public_url: str | None,
    clock: "Clock",
) -> "ComfyApi":
    from comfypin import wiring
    from comfypin.server.comfy_api.api import ApiLimits, ComfyApi
    from comfypin.server.comfy_api.assets import Assets
    from comfypin.server.comfy_api.idempotency import IdempotencyKeys
    from comfypin.server.comfy_api.lent_keys import LentKeys, SealedKeys
    from comfypin.server.comfy_api.output_assets import ForeignOutputs
    from comfypin.server.comfy_api.records import Records

    queue = open_queue.queue
    records = Records(open_queue.store)
    keep_s = arguments.keep_hours * 3600.0
    assets = Assets(
        records,
        state_folder / "assets",
        keep_s=keep_s,
        clock=clock,
        keep_bytes=arguments.keep_mb * 1_000_000,
        on_job_removed=lambda job_id: queue.events.publish("removed", job_id),
    )
    bucket = wiring.own_bucket(arguments.settings)
    return ComfyApi(
        site=site,
        queue=queue,
        records=records,
        assets=assets,
        secrets=LentKeys(records, find_live=queue.find_live) if open_queue.keys is None else SealedKeys(),
        foreign=ForeignOutputs(assets, site.outputs, records=records, bucket=bucket),
        bucket=bucket,
        keys=IdempotencyKeys(records, clock=clock, shared=open_queue.keys),
        limits=ApiLimits(upload_bytes=arguments.max_asset_mb * 1_000_000, keep_s=keep_s),
        clock=clock,
        public_url=public_url,
    )


def _make_service_opener(
    arguments: argparse.Namespace,
    served: _Served,
    settings: Settings,
    folder: "OutputSink",
    *,
    output_assets: "OutputAssets",
    thumbnails: "Thumbnails",
) -> "OpenService":
    @asynccontextmanager
    async def open_service() -> "AsyncIterator[JobService]":
        import asyncio

        from comfypin import wiring
        from comfypin.jobs.start_times import StartTimes

        start_times = StartTimes()
        lock, choice = served.lock, served.engine
        assert choice is not None  # without an engine here, workers run the jobs
        # Of a server elsewhere nobody knows what it loads, or from where.
        read_ahead = None if lock is None or arguments.engine_url else wiring.ModelReadAhead(lock, settings)
        if read_ahead is not None:
            await asyncio.to_thread(read_ahead.read_warmup)
        allows_private = arguments.allow_private_inputs
        # Opening a bucket blocks, and the API must respond meanwhile.
        sink_for = await asyncio.to_thread(
            wiring.open_sinks, settings, folder_sink=folder, private_buckets=allows_private
        )
        sink_for = output_assets.wrap_opener(thumbnails.wrap_opener(sink_for, folder), folder)
        if lock is not None:
            with start_times.measure("env"):
                choice = await asyncio.to_thread(wiring.ensure_env, lock, choice, report=log.info)
            choice = wiring.leave_out_api_nodes(lock, choice, automatic=False)
        models = await asyncio.to_thread(open_job_models, arguments, lock, choice.settings)
        async with contextlib.AsyncExitStack() as opening:
            if read_ahead is not None:
                opening.callback(read_ahead.stop)
            with start_times.measure("engine"):
                engine = await opening.enter_async_context(wiring.open_engine(choice))
            yield wiring.open_service(
                lock,
                engine,
                sink_for,
                settings=settings,
                private_inputs=allows_private,
                read_asset=output_assets.assets.read,
                models=models,
                start_times=start_times,
                left_out_classes=choice.left_out_classes,
                read_ahead=None if read_ahead is None else read_ahead.read_workflow,
                release=served.release,
                # The embedded engine imitates a ComfyUI, and is none.
                read_engine_version=None if choice.kind == "embedded" else engine.comfyui_version,
            )

    return open_service


def _make_fleet_service_opener(arguments: argparse.Namespace, lock: "Lock | None", engine: "Engine") -> "OpenService":
    """Return what opens the service of a server on which no job runs: it knows the release's workflows and nodes."""

    @asynccontextmanager
    async def open_service() -> "AsyncIterator[JobService]":
        from comfypin import wiring

        def open_no_sink(*_wish: object) -> "OutputSink":
            raise AssertionError("jobs run on workers")

        yield wiring.open_service(lock, engine, open_no_sink, settings=arguments.settings)

    return open_service


def _make_queue_limits(arguments: argparse.Namespace) -> "QueueLimits":
    from comfypin.queue.job_runner import QueueLimits

    return QueueLimits(
        max_waiting=arguments.max_waiting,
        max_running=arguments.concurrency,
        keep_s=arguments.keep_hours * 3600.0,
        keep_bytes=arguments.keep_mb * 1_000_000,
    )


def _read_body_url(named: str | None) -> str | None:
    if named is not None and not named.startswith(("http://", "https://")):
        raise UsageError(f"--body-url {named!r} is not an address such as http://10.0.0.5:8000.")
    return named


def _require_extra() -> None:
    """Raise `UsageError` if the extra is not installed."""
    try:
        import blake3  # noqa: F401
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as exc:
        from comfypin.installation import extra_command

        raise UsageError(f"comfypin serve needs its extra: {extra_command('serve')}") from exc
