"""Tells one queue from another: an id that a queue keeps for as long as it lives, whatever address leads to it."""

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfypin.queue.nats.buckets import Bucket

_KEY = "queue-id"


async def read_queue_id(bucket: "Bucket") -> str:
    """Return the queue's id, made now if it has none. Raises what nats-py raises."""
    stored_entry = await bucket.get(_KEY)
    if stored_entry is None:
        await bucket.create(_KEY, secrets.token_hex(8).encode())
        # Read, not believed: another one may have been faster.
        stored_entry = await bucket.get(_KEY)
    return "" if stored_entry is None else stored_entry.data.decode()
