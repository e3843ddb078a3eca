"""Inputs and results of jobs: compressed, sealed if they hold secrets, in a bucket of NATS up to half a megabyte."""

import asyncio
import logging
import secrets as random_texts
from typing import Protocol

import zstandard

from comfypin.errors import StorageError
from comfypin.queue.nats.buckets import Bucket
from comfypin.queue.nats.errors import BodyOutOfReach, BodyTooLarge
from comfypin.queue.nats.fleet_job import Body
from comfypin.queue.nats.sealing import Seal
from comfypin.queue.nats.unpacking import unpack

log = logging.getLogger(__name__)

LARGEST_BYTES = 512_000
"""NATS takes messages of one megabyte; what is larger goes by a claim check."""
# Before a key: where its body is, if it is too large for NATS.
_ELSEWHERE = "at."
_LARGEST_TEXT = 256 << 20


class Depot(Protocol):
    """Keeps what is too large for the queue. What asks it over a network blocks: it is meant for threads."""

    def upload_of(self, job_id: str) -> str | None:
        """Return where a worker that has no depot of its own may put what a job makes."""

    def address_of(self, key: str, upload: str | None) -> str | None:
        """Return where a body of this key is kept; None if nowhere. `upload` is what the job's server said."""

    def put(self, address: str, data: bytes) -> None:
        """Keep bytes at an address."""

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
        body_bytes = await asyncio.to_thread(self._pack, body_text, secret)
        # Two workers may run one job: neither may write over what the other's end points to.
        key = f"{job_id}.{random_texts.token_hex(6)}"
        stored_body = Body(key=key, size=len(body_text), sealed=secret)
        if len(body_bytes) <= LARGEST_BYTES:
            await self._bucket.put(key, body_bytes)
            return stored_body
        address = None if self._depot is None else self._depot.address_of(key, upload)
        if self._depot is None or address is None:
            raise BodyTooLarge(size=len(body_bytes), most=LARGEST_BYTES)
        # Written down first: what a kill leaves behind is found by it.
        await self._bucket.put(f"{_ELSEWHERE}{key}", address.encode())
        await asyncio.to_thread(self._depot.put, address, body_bytes)
        return Body(key=key, size=len(body_text), sealed=secret, address=address)

    @property
    def depot(self) -> Depot | None:
        """Return what keeps bodies that are too large for NATS."""
        return self._depot

    def upload_of(self, job_id: str) -> str | None:
        """Return where a worker may put what a job makes, if that is not the same for all."""
        return None if self._depot is None else self._depot.upload_of(job_id)

    async def get(self, stored_body: Body) -> str | None:
        """Return a text; None if it is not kept any more."""
        if stored_body.address is not None:
            if self._depot is None:
                raise BodyTooLarge(size=stored_body.size, most=LARGEST_BYTES)
            body_bytes = await asyncio.to_thread(self._depot.get, stored_body.address)
        else:
            stored_entry = await self._bucket.get(stored_body.key)
            if stored_entry is None:
                return None
            body_bytes = stored_entry.data
        return await asyncio.to_thread(self._unpack, body_bytes, stored_body.sealed)

    async def remove(self, *bodies: Body | None) -> None:
        """Remove texts. What a depot does not remove now, the sweep does."""
        for stored_body in bodies:
            if stored_body is not None:
                await self._remove(stored_body.key, stored_body.address)

    async def keys_by_job(self) -> dict[str, set[str]]:
        """Return the keys of all bodies that are kept, by job."""
        keys_by_job: dict[str, set[str]] = {}
        for body_key in await self._bucket.keys():
            key = body_key.removeprefix(_ELSEWHERE)
            keys_by_job.setdefault(key.rpartition(".")[0], set()).add(key)
        return keys_by_job

    async def remove_if_old(self, key: str, *, before: float) -> bool:
        """Remove a body that was kept before a time, in seconds since 1970; return whether it was."""
        place = await self._bucket.get(f"{_ELSEWHERE}{key}")
        stored_value = place or await self._bucket.get(key)
        if stored_value is None or stored_value.at >= before:
            return False
        await self._remove(key, None if place is None else place.data.decode())
        return True

    async def _remove(self, key: str, address: str | None) -> None:
        if address is None:
            await self._bucket.drop([key])
            return
        if self._depot is None:
            return
        try:
            await asyncio.to_thread(self._depot.remove, address)
        except StorageError as exc:
            log.info("body left", extra={"action": "body_left", "key": key, "reason": exc.message})
            return
        await self._bucket.drop([f"{_ELSEWHERE}{key}"])

    async def keys(self) -> list[str]:
        """Return the keys of all texts in the queue itself."""
        return await self._bucket.keys()

    def _pack(self, body_text: str, secret: bool) -> bytes:  # noqa: FBT001 - positional for a thread
        # A lone surrogate, which JSON texts may hold, has no UTF-8.
        body_bytes = zstandard.compress(body_text.encode(errors="surrogatepass"))
        return self._seal.close(body_bytes) if secret else body_bytes

    def _unpack(self, body_bytes: bytes, sealed: bool) -> str:  # noqa: FBT001 - positional for a thread
        plain_bytes = self._seal.open(body_bytes) if sealed else body_bytes
        try:
            return unpack(plain_bytes, most=_LARGEST_TEXT).decode(errors="surrogatepass")
        except ValueError as exc:
            raise BodyOutOfReach(server="the fleet", reason=str(exc)) from exc
