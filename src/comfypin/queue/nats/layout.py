"""Makes the streams and buckets of a fleet, or finds them as another member made them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from nats.errors import Error
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from comfypin.queue.nats import names
from comfypin.queue.nats.errors import QueueUnfit
from comfypin.queue.nats.failures import UNCLEAR, reason_of_failure

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js.client import JetStreamContext

    from comfypin.queue.nats.names import Lane

ACK_WAIT_S = 30.0
"""A worker that says nothing for so long is taken for dead, and its job runs elsewhere."""
# Three of them fit into the time after which a silent worker is taken for dead.
HEARTBEAT_S = 10.0
MOST_DELIVERIES = 25
"""More than the runs of a job that ended with their workers: jobs that are handed back count here too."""
# Three heartbeats: one may be lost.
WORKER_GONE_S = 30.0
# A server that died leaves its chores to another within so long.
LEASE_S = 10.0
# Comfy API v2 says 24 hours.
KEY_KEPT_S = 86_400.0
_COPIES_IN_CLUSTER = 3
# A cluster that starts chooses its leaders within seconds.
_READY_WITHIN_S = 30.0
_TRY_AGAIN_S = 0.5
_NOT_MADE_REASON = (
    "no server has made it yet, and this login may not: start comfypin serve --queue first, with the servers' login"
)


class _NotMade(NatsTimeout):
    """Nobody has made the streams yet, and this login may not."""


async def ensure_layout(client: "Client", stream: "JetStreamContext") -> None:
    """Make what is missing. Raises `QueueUnfit` if the server keeps no streams, or keeps other ones by these names."""
    # Three copies outlive any one server.
    copies = _COPIES_IN_CLUSTER if client._server_info.get("cluster") else 1
    for config in _configs(copies):
        await _ensure_stream(client, stream, config)
    await _ensure_consumer(client, stream, names.DEAD_STREAM, _dead_consumer())


async def ensure_lane(stream: "JetStreamContext", lane: "Lane") -> None:
    """Make the consumer of a lane, unless it is there: before its first ticket, so that scalers find it."""
    await stream.add_consumer(names.JOBS_STREAM, _lane_consumer(lane))


def _configs(copies: int) -> list[StreamConfig]:
    return [
        StreamConfig(
            name=names.JOBS_STREAM,
            subjects=[names.JOB_SUBJECTS],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_msgs_per_subject=1,
            # A run of a job has one subject, so that it can have one ticket only: a second one is refused.
            discard_new_per_subject=True,
            num_replicas=copies,
        ),
        # Advisories are told once, to whoever listens: kept here, so that a dead letter is never missed.
        StreamConfig(
            name=names.DEAD_STREAM,
            subjects=[names.DEAD_SUBJECTS],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            num_replicas=copies,
        ),
        _bucket(names.RECORDS, copies),
        _bucket(names.BODIES, copies),
        _bucket(names.RELEASES, copies),
        _bucket(names.KEYS, copies, kept_s=KEY_KEPT_S),
        _bucket(names.WORKERS, copies, kept_s=WORKER_GONE_S, storage=StorageType.MEMORY),
        _bucket(names.LEASES, copies, kept_s=LEASE_S, storage=StorageType.MEMORY),
        _bucket(names.CONTROL, copies),
    ]


def _bucket(
    bucket_name: str, copies: int, *, kept_s: float = 0, storage: StorageType = StorageType.FILE
) -> StreamConfig:
    """Describe a bucket. What is written anew each few seconds is kept in memory: a thousand workers write a hundred
    records a second, and each would be a write to the disk."""
    return StreamConfig(
        name=f"KV_{bucket_name}",
        subjects=[f"$KV.{bucket_name}.>"],
        storage=storage,
        max_msgs_per_subject=1,
        max_age=kept_s,
        discard=DiscardPolicy.NEW,
        deny_delete=True,
        allow_rollup_hdrs=True,
        allow_msg_ttl=True,
        # Direct reads may come from a copy that is behind; a record is read in order to change it.
        allow_direct=False,
        num_replicas=copies,
    )


def _lane_consumer(lane: "Lane") -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=lane.consumer,
        filter_subject=lane.subjects,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_deliver=MOST_DELIVERIES,
        # Each worker holds one; by default a thousand would be the most of all.
        max_ack_pending=-1,
    )


def _dead_consumer() -> ConsumerConfig:
    return ConsumerConfig(durable_name="servers", ack_policy=AckPolicy.EXPLICIT, ack_wait=ACK_WAIT_S)


async def _ensure_stream(client: "Client", stream: "JetStreamContext", config: StreamConfig) -> None:
    async def make() -> None:
        try:
            await stream.stream_info(config.name or "")
        except NotFoundError as exc:
            if exc.err_code == 10039:  # JetStream is not enabled for the account
                raise
            try:
                await stream.add_stream(config)
            except NatsTimeout as timeout:
                # NATS does not answer what a login may not do; it did answer that there is no such stream.
                raise _NotMade from timeout

    await _once_ready(client, make)


async def _ensure_consumer(
    client: "Client", stream: "JetStreamContext", consumer_name: str, config: ConsumerConfig
) -> None:
    async def make() -> None:
        await stream.add_consumer(consumer_name, config)

    await _once_ready(client, make)


async def _once_ready(client: "Client", make: Callable[[], Awaitable[None]]) -> None:
    """Do it as soon as the servers have chosen a leader. Raises `QueueUnfit` for what they refuse."""
    deadline_s = time.monotonic() + _READY_WITHIN_S
    while True:
        try:
            return await make()
        except (Error, TimeoutError) as exc:
            # Members that start together make the same streams; and a cluster needs a moment to find its leader.
            is_transient = isinstance(exc, UNCLEAR) or (isinstance(exc, APIError) and (exc.code or 0) >= 500)
            if not is_transient or time.monotonic() > deadline_s:
                servers = str(client.connected_url.netloc.rpartition("@")[2]) if client.connected_url else "?"
                reason = _NOT_MADE_REASON if isinstance(exc, _NotMade) else reason_of_failure(exc)
                raise QueueUnfit(servers=servers, reason=reason) from exc
        await asyncio.sleep(_TRY_AGAIN_S)
