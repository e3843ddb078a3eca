"""Inputs and results of jobs: compressed, sealed if they hold secrets, in a bucket of NATS up to half a megabyte."""

import asyncio
import secrets as random_texts
from typing import Protocol

import zstandard

from comfypin.queue.nats.buckets import Bucket
from comfypin.queue.nats.errors import BodyTooLarge
from comfypin.queue.nats.fleet_job import Body
from comfypin.queue.nats.sealing import Seal

LARGEST_BYTES = 512_000
"""NATS takes messages of one megabyte; what is larger goes by a claim check."""
# A body is decompressed into memory: a few kilobytes can claim any size.
_LARGEST_TEXT = 256 << 20


class Depot(Protocol):
    """Keeps what is too large for the queue. All of it blocks: it is meant for threads."""

    def put(self, key: str, data: bytes, upload: str | None) -> str:
        """Keep bytes and return their address. `upload` is where a server said that a worker may put them."""

    def get(self, address: str) -> bytes:
        """Return the bytes at an address of this depot."""

    def remove(self, address: str) -> None:
        """Remove what is at an address, if anything is."""


class Bodies:
    """The bodies of all jobs. Raises `JobSecretsRefused`, `BodyTooLarge`, `StorageError`, and what nats-py raises."""

    def __init__(self, bucket: Bucket, seal: Seal, depot: Depot | None = None) -> None:
        self._bucket = bucket
        self._seal = seal
        self._depot = depot

    async def put(self, job_id: str, body_text: str, *, secret: bool, upload: str | None = None) -> Body:
        """Keep a text of a job under a new key."""
        data = await asyncio.to_thread(self._pack, body_text, secret)
        # Two workers may run one job: neither may write over what the other's end points to.
        key = f"{job_id}.{random_texts.token_hex(6)}"
        stored_body = Body(key=key, size=len(body_text), sealed=secret)
        if len(data) <= LARGEST_BYTES:
            await self._bucket.put(key, data)
            return stored_body
        if self._depot is None:
            raise BodyTooLarge(size=len(data), most=LARGEST_BYTES)
        address = await asyncio.to_thread(self._depot.put, key, data, upload)
        return Body(key=key, size=len(body_text), sealed=secret, address=address)

    async def get(self, stored_body: Body) -> str | None:
        """Return a text; None if it is not kept any more."""
        if stored_body.address is not None:
            if self._depot is None:
                raise BodyTooLarge(size=stored_body.size, most=LARGEST_BYTES)
            data = await asyncio.to_thread(self._depot.get, stored_body.address)
        else:
            stored_entry = await self._bucket.get(stored_body.key)
            if stored_entry is None:
                return None
            data = stored_entry.data
        return await asyncio.to_thread(self._unpack, data, stored_body.sealed)

    async def remove(self, *bodies: Body | None) -> None:
        """Remove texts."""
        for stored_body in bodies:
            if stored_body is None:
                continue
            if stored_body.address is None:
                await self._bucket.drop([stored_body.key])
            elif self._depot is not None:
                await asyncio.to_thread(self._depot.remove, stored_body.address)

    async def keys(self) -> list[str]:
        """Return the keys of all texts in the queue itself."""
        return await self._bucket.keys()

    def _pack(self, body_text: str, secret: bool) -> bytes:  # noqa: FBT001 - positional for a thread
        # A lone surrogate, which JSON texts may hold, has no UTF-8.
        data = zstandard.compress(body_text.encode(errors="surrogatepass"))
        return self._seal.close(data) if secret else data

    def _unpack(self, data: bytes, sealed: bool) -> str:  # noqa: FBT001 - positional for a thread
        plain_bytes = self._seal.open(data) if sealed else data
        return zstandard.decompress(plain_bytes, max_output_size=_LARGEST_TEXT).decode(errors="surrogatepass")
