"""Opens the queue of a server, here or in a fleet, and what a worker of a fleet needs."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.digest import JsonValue
    from comfypin.engine.interface import Engine
    from comfypin.jobs.input_files import ReadAsset
    from comfypin.jobs.interface import Handle
    from comfypin.jobs.previews import PreviewSink
    from comfypin.lock.model import Lock
    from comfypin.models.job_models import JobModels
    from comfypin.queue.interface import RunnableQueue, SharedKeys
    from comfypin.queue.job_runner import QueueLimits
    from comfypin.queue.nats.fleet import Fleet
    from comfypin.queue.nats.server_depot import ServerBodies
    from comfypin.queue.nats.worker import OpenRelease
    from comfypin.queue.sqlite import JobStore
    from comfypin.queue.steady_clock import Clock
    from comfypin.queue.webhook import Webhooks
    from comfypin.settings.environment import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenQueue:
    """A server's queue, and the file in which other packages keep their own data.

    In a fleet `engine` knows the release's nodes, `keys` are the idempotency keys of all servers, and `read_fleet`
    returns the workers with what waits for them, or raises `JobsNotStored`. `bodies` is what this server keeps for the
    others; `use_assets` takes what reads assets that jobs name.
    """

    queue: "RunnableQueue"
    store: "JobStore"
    engine: "Engine | None" = None
    keys: "SharedKeys | None" = None
    read_fleet: "Callable[[], Awaitable[Mapping[str, JsonValue]]] | None" = None
    bodies: "ServerBodies | None" = None
    use_assets: "Callable[[ReadAsset], None]" = lambda _read_asset: None


@asynccontextmanager
async def open_local_queue(
    state_folder: Path,
    limits: "QueueLimits",
    webhooks: "Webhooks",
    *,
    release_name: str,
    worker_id: str,
    clock: "Clock",
) -> AsyncIterator[OpenQueue]:
    """Yield the queue in a file of the state folder. Raises `JobsUnusable`."""
    from comfypin.queue.local_queue import LocalJobQueue
    from comfypin.queue.sqlite import JobStore

    store = JobStore(state_folder / "jobs.sqlite")
    try:
        queue = LocalJobQueue(store, webhooks, limits, worker_id=worker_id, clock=clock, release=release_name)
        yield OpenQueue(queue=queue, store=store)
    finally:
        store.close()


@asynccontextmanager
async def open_fleet_queue(
    address: str,
    state_folder: Path,
    limits: "QueueLimits",
    webhooks: "Webhooks",
    *,
    lock: "Lock",
    settings: "Settings",
    clock: "Clock",
    body_url: str | None = None,
) -> AsyncIterator[OpenQueue]:
    """Yield the queue of a fleet. `body_url` is where others reach this server, if it keeps large inputs and results.

    Raises `QueueAddressInvalid`, `QueueUnreachable`, `QueueLoginRefused`, `QueueUnfit`, `JobsUnusable`."""
    from comfypin.lock.codec import release_identity
    from comfypin.queue.nats.connection import parse_queue_address
    from comfypin.queue.nats.failures import as_storage_failure
    from comfypin.queue.nats.fleet import open_fleet
    from comfypin.queue.nats.nats_queue import NatsJobQueue
    from comfypin.queue.nats.overview import read_overview
    from comfypin.queue.nats.releases import FleetEngine
    from comfypin.queue.nats.server_depot import ServerBodies
    from comfypin.queue.nats.shared_keys import FleetKeys
    from comfypin.queue.sqlite import JobStore
    from comfypin.wiring.stores import open_server_depot

    identity = release_identity(lock)
    release = release_key(identity.digest)
    store = JobStore(state_folder / "fleet.sqlite")
    try:
        servers = parse_queue_address(address)
        depot = open_server_depot(settings, state_folder, body_url)
        async with open_fleet(servers, settings.fleet, client_name="comfypin serve", depot=depot) as fleet:
            queue = NatsJobQueue(
                fleet,
                store,
                limits,
                release=release,
                release_name=identity.name,
                clock=clock,
                webhooks=webhooks,
            )
            engine = FleetEngine(fleet.releases, release, identity.name, lambda: queue.release)

            async def read_fleet() -> "Mapping[str, JsonValue]":
                with as_storage_failure():
                    return (await read_overview(fleet, now=clock(), with_dead=False)).to_json()

            yield OpenQueue(
                queue=queue,
                store=store,
                engine=engine,
                keys=FleetKeys(fleet.keys),
                read_fleet=read_fleet,
                bodies=depot if isinstance(depot, ServerBodies) else None,
                use_assets=queue.use_assets,
            )
    finally:
        store.close()


def release_key(digest: object) -> str:
    """Return the short name of a release in a fleet: the beginning of its lock's digest."""
    from comfypin.queue.nats.names import RELEASE_LETTERS

    return str(digest).rpartition(":")[2][:RELEASE_LETTERS]


def require_fleet_extra(command: str) -> None:
    """Raise `UsageError` if the libraries of a fleet are not installed."""
    from comfypin.installation import extra_command

    try:
        import nacl  # noqa: F401
        import nats  # noqa: F401
    except ImportError as exc:
        raise UsageError(f"{command} --queue needs its extra: {extra_command('fleet')}") from exc


def make_release_opener(
    locks: "Mapping[str, Lock]",
    settings: "Settings",
    *,
    fleet: "Fleet",
    previews: "PreviewSink",
    private_inputs: bool,
    keep_temp: bool,
    open_models: "Callable[[Lock, Settings], JobModels | None]",
) -> "OpenRelease":
    """Return a function that opens a release for a worker: its env, its warm engine, and what runs its jobs."""
    import asyncio
    import logging

    from comfypin.jobs.handler import Handler
    from comfypin.jobs.warmup import warm_engine
    from comfypin.lock.carried import carry_lock
    from comfypin.lock.codec import release_identity, render_lock
    from comfypin.queue.nats.releases import ReleaseRecord, announce_release
    from comfypin.wiring.engines import choose_engine, open_engine
    from comfypin.wiring.envs import ensure_env
    from comfypin.wiring.read_ahead import ModelReadAhead
    from comfypin.wiring.release_claim import name_release
    from comfypin.wiring.service import open_service, open_sinks
    from comfypin.wiring.starting import leave_out_api_nodes

    log = logging.getLogger(__name__)
    sink_for = open_sinks(settings, private_buckets=private_inputs)

    @asynccontextmanager
    async def open_release(release: str) -> "AsyncIterator[Handle]":
        lock = locks[release]
        choice = choose_engine(lock.engine, settings, keep_temp=keep_temp)
        read_ahead = ModelReadAhead(lock, settings)
        await asyncio.to_thread(read_ahead.read_warmup)
        choice = await asyncio.to_thread(ensure_env, lock, choice, report=log.info)
        claimed = await asyncio.to_thread(name_release, lock, choice)
        choice = leave_out_api_nodes(lock, choice, automatic=False)
        models = await asyncio.to_thread(open_models, lock, choice.settings)
        async with open_engine(choice) as engine:
            service = open_service(
                lock,
                engine,
                sink_for,
                settings=settings,
                private_inputs=private_inputs,
                models=models,
                left_out_classes=choice.left_out_classes,
                read_ahead=read_ahead.read_workflow,
                release=claimed,
            )
            handler = Handler(service, previews=previews)
            await warm_engine(handler, service)
            identity = release_identity(lock)
            release_record = ReleaseRecord(
                name=identity.name, digest=str(identity.digest), catalogue=await engine.catalogue()
            )
            await announce_release(fleet.releases, release, release_record, carry_lock(render_lock(lock)))
            try:
                yield handler
            finally:
                read_ahead.stop()

    return open_release
