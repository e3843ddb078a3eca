"""What all members of a fleet share: one connection, and the streams and buckets behind it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfypin.queue.nats import names
from comfypin.queue.nats.bodies import Bodies, Depot
from comfypin.queue.nats.buckets import Bucket
from comfypin.queue.nats.connection import open_connection
from comfypin.queue.nats.job_states import JobStates
from comfypin.queue.nats.layout import ensure_layout
from comfypin.queue.nats.sealing import Seal
from comfypin.queue.nats.tickets import Tickets
from comfypin.settings.fleet import FleetSettings

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js.client import JetStreamContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A member's connection and what it reaches."""

    client: "Client"
    stream: "JetStreamContext"
    states: JobStates
    bodies: Bodies
    tickets: Tickets
    seal: Seal
    workers: Bucket
    releases: Bucket
    keys: Bucket
    leases: Bucket
    control: Bucket


@asynccontextmanager
async def open_fleet(
    servers: tuple[str, ...], settings: FleetSettings, *, client_name: str, depot: Depot | None = None
) -> AsyncIterator[Fleet]:
    """Yield the fleet of a queue, made now if it is new.

    Raises `QueueUnreachable`, `QueueLoginRefused`, `QueueUnfit`, `FleetKeyInvalid`."""
    seal = Seal(settings.seal)
    async with open_connection(servers, settings, client_name=client_name) as client:
        stream = client.jetstream(timeout=5)
        await ensure_layout(client, stream)
        yield Fleet(
            client=client,
            stream=stream,
            states=JobStates(Bucket(stream, names.RECORDS)),
            bodies=Bodies(Bucket(stream, names.BODIES), seal, depot),
            tickets=Tickets(client, stream),
            seal=seal,
            workers=Bucket(stream, names.WORKERS),
            releases=Bucket(stream, names.RELEASES),
            keys=Bucket(stream, names.KEYS),
            leases=Bucket(stream, names.LEASES),
            control=Bucket(stream, names.CONTROL),
        )
