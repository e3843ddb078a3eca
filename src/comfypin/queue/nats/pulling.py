"""Takes messages from JetStream consumers: one, if one is there now, or a batch of what comes.

nats-py's `fetch` leaves requests behind at the server, and what they catch stays unread for half a minute. Here all
responses to a reader arrive in one inbox, so whatever comes late is simply read next. Each request has a subject of its
own there: a late "there is nothing" must not be taken for the response to the next request, or each response after it
would be read one request too late, for ever.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
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

    def __init__(self, client: "Client", inbox_subject: str) -> None:
        self._client = client
        self.inbox_subject = inbox_subject
        self._request_count = 0
        self._inbox: deque[Msg] = deque()
        self._arrived = asyncio.Event()
        # Of batches: what was asked for and has not come.
        self._due = 0

    async def note_arrival(self, message: "Msg") -> None:
        """Put a message into the inbox."""
        self._inbox.append(message)
        self._arrived.set()

    async def take_one(self, stream: str, consumer: str) -> "Msg | None":
        """Return a message if one waits; it may be one that an earlier call asked for.

        Raises `NatsTimeout`, and `NoRespondersError` if the consumer is gone or has no leader now: who took that for
        an empty line would pass by urgent jobs.
        """
        late = await self.rest()
        if late:
            self._inbox.extend(late[1:])
            return late[0]
        if not self._client.is_connected:
            # nats-py would keep the request until the connection is back, one for each time that somebody looked.
            raise NatsTimeout
        subject = await self._ask(stream, consumer, {"batch": 1, "no_wait": True})
        while True:
            await self._await_arrival(_ANSWER_WITHIN_S)
            message = self._inbox.popleft()
            if not is_status(message):
                return message
            if message.subject == subject:
                _require_consumer(message)
                return None

    async def take_batch(self, stream: str, consumer: str, *, most: int, wait_s: float) -> "list[Msg]":
        """Return what waits, or what comes first within `wait_s`; an empty list if nothing does.

        Raises `NatsTimeout` if the server does not even say that there is none.
        """
        # Asked for while there is still something to read; a server refuses more than 512 requests of one reader.
        if self._due < most:
            self._due += most
            # NATS counts in nanoseconds.
            await self._ask(stream, consumer, {"batch": most, "expires": int(wait_s * 1e9)})
        await self._await_arrival(wait_s + _ANSWER_WITHIN_S)
        if is_status(self._inbox[0]):
            self._inbox.popleft()
            self._due = 0
            return []
        # Only what is in the inbox already; the rest of the batch is read by the next call.
        taken: list[Msg] = []
        while self._inbox and len(taken) < most and not is_status(self._inbox[0]):
            taken.append(self._inbox.popleft())
        self._due -= len(taken)
        return taken

    async def rest(self) -> "list[Msg]":
        """Return what has come and was not read."""
        leftover = [message for message in self._inbox if not is_status(message)]
        self._inbox.clear()
        return leftover

    async def _await_arrival(self, within_s: float) -> None:
        """Wait until there is a message. Raises `NatsTimeout`."""
        while not self._inbox:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), within_s)
            except TimeoutError:
                self._due = 0
                raise NatsTimeout from None

    async def _ask(self, stream: str, consumer: str, request: dict[str, object]) -> str:
        """Ask the server; return the subject of the inbox to which it responds."""
        self._request_count += 1
        response_subject = f"{self.inbox_subject}.{self._request_count}"
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        await self._client.publish(subject, json.dumps(request).encode(), reply=response_subject)
        return response_subject


def _require_consumer(message: "Msg") -> None:
    if message.headers and message.headers.get("Status") == _NO_RESPONDERS:
        raise NoRespondersError


def is_status(message: "Msg") -> bool:
    """Return whether a message is the server's status for a request: nothing there, expired, no such consumer."""
    return bool(message.header and "Status" in message.header)


@asynccontextmanager
async def open_puller(client: "Client") -> AsyncIterator[MessagePuller]:
    """Yield a reader."""
    puller = MessagePuller(client, client.new_inbox())
    # nats-py's `next_msg` makes two tasks for each message: half of the time in which a server reads its history.
    subscription = await client.subscribe(f"{puller.inbox_subject}.*", cb=puller.note_arrival)
    try:
        yield puller
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
