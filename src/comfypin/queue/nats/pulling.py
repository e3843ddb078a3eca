"""Takes messages from JetStream consumers: one, if one is there now, or a batch of what comes.

nats-py's `fetch` leaves requests behind at the server, and what they catch stays unread for half a minute. Here all
responses to a reader arrive in one inbox, so whatever comes late is simply read next.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.js.client import JetStreamContext

# NATS answers in milliseconds; more is a connection that is gone.
_ANSWER_WITHIN_S = 2.0
_NO_RESPONDERS = "503"
# One answer of the server, instead of a round trip for each message.
_BATCH = 512
# What comes in a batch waits in the server already, so silence for this long is the end.
_SILENCE_S = 2.0
# If whoever reads is killed, its consumer goes by itself.
_CONSUMER_KEPT_S = 30.0


class MessagePuller:
    """One reader's inbox."""

    def __init__(self, client: "Client", inbox: str, subscription: "Subscription") -> None:
        self._client = client
        self._inbox = inbox
        self._subscription = subscription

    async def take_one(self, stream: str, consumer: str) -> "Msg | None":
        """Return a message if one waits; it may be one that an earlier call asked for.

        Raises `TimeoutError`, and `NoRespondersError` if the consumer is gone or has no leader now: who took that for
        an empty line would pass by urgent jobs.
        """
        await self._ask(stream, consumer, {"batch": 1, "no_wait": True})
        message = await self._subscription.next_msg(timeout=_ANSWER_WITHIN_S)
        _require_consumer(message)
        return None if is_status(message) else message

    async def take_batch(self, stream: str, consumer: str, *, most: int, wait_s: float) -> "list[Msg]":
        """Return what waits, or what comes first within `wait_s`; an empty list if nothing does.

        Raises `NatsTimeout` if the server does not even say that there is none.
        """
        # NATS counts in nanoseconds.
        await self._ask(stream, consumer, {"batch": most, "expires": int(wait_s * 1e9)})
        taken = [await self._subscription.next_msg(timeout=wait_s + _ANSWER_WITHIN_S)]
        if is_status(taken[0]):
            return []
        # Only what is in the inbox already; the rest of the batch is read by the next call.
        while self._subscription.pending_msgs and len(taken) < most:
            taken.append(await self._subscription.next_msg(timeout=_ANSWER_WITHIN_S))
        return [message for message in taken if not is_status(message)]

    async def rest(self) -> "list[Msg]":
        """Return what has come and was not read."""
        leftover: list[Msg] = []
        while self._subscription.pending_msgs:
            try:
                message = await self._subscription.next_msg(timeout=0.1)
            except NatsTimeout:
                break
            if not is_status(message):
                leftover.append(message)
        return leftover

    async def _ask(self, stream: str, consumer: str, request: dict[str, object]) -> None:
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        await self._client.publish(subject, json.dumps(request).encode(), reply=self._inbox)


def _require_consumer(message: "Msg") -> None:
    if message.headers and message.headers.get("Status") == _NO_RESPONDERS:
        raise NoRespondersError


def is_status(message: "Msg") -> bool:
    """Return whether a message is the server's status for a request: nothing there, expired, no such consumer."""
    return bool(message.header and "Status" in message.header)


@asynccontextmanager
async def open_puller(client: "Client") -> AsyncIterator[MessagePuller]:
    """Yield a reader."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    try:
        yield MessagePuller(client, inbox, subscription)
    finally:
        await subscription.unsubscribe()


async def read_at_once(
    client: "Client", stream: "JetStreamContext", stream_name: str, config: ConsumerConfig
) -> "list[Msg]":
    """Return what a stream holds of what `config` asks for, by a consumer of the moment; values of removed keys not.

    Asking for each key of a bucket would take a round trip a key. Raises what nats-py raises.
    """
    consumer = await stream.add_consumer(
        stream_name,
        config.evolve(ack_policy=AckPolicy.NONE, inactive_threshold=_CONSUMER_KEPT_S, mem_storage=True, num_replicas=1),
    )
    messages: list[Msg] = []
    pending_count = consumer.num_pending or 0
    async with open_puller(client) as puller:
        while pending_count > 0:
            batch = await puller.take_batch(stream_name, consumer.name, most=_BATCH, wait_s=_SILENCE_S)
            if not batch:
                break
            pending_count -= len(batch)
            messages += [message for message in batch if not (message.header and "KV-Operation" in message.header)]
    await stream.delete_consumer(stream_name, consumer.name)
    return messages
