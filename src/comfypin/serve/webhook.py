"""Tells a job's webhook of its end: three tries, signed where there is a secret, private addresses only if allowed."""

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import socket
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from comfypin.models.network import is_public

log = logging.getLogger(__name__)

SIGNATURE = "X-Comfypin-Signature"
TIMESTAMP = "X-Comfypin-Timestamp"
_TRIES = 3


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and the HMAC of `TIMESTAMP.BODY`, as the receiver computes it too."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class Webhooks:
    """Posts the status of ended jobs to their webhooks."""

    def __init__(self, *, secret: str | None, allow_private: bool, pause_s: Sequence[float] = (1.0, 10.0)) -> None:
        self._secret = secret
        self._allow_private = allow_private
        self._pause_s = pause_s

    async def tell(self, job_id: str, url: str, body: bytes) -> bool:
        """Post until it is answered with 200, three times at most; returns whether it was. Raises nothing."""
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(self._pause_s[attempt - 1])
            try:
                status = await self._post(url, body)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as exc:
                reason = type(exc).__name__
            else:
                if status == 200:
                    return True
                reason = f"HTTP {status}"
            log.warning("webhook not told", extra={"action": "webhook_failed", "job_id": job_id, "reason": reason})
        return False

    async def _post(self, url: str, body: bytes) -> int:
        if not self._allow_private:
            _refuse_private_literal(url)
        timestamp = str(int(time.time()))
        headers = {"Content-Type": "application/json", TIMESTAMP: timestamp}
        if self._secret:
            headers[SIGNATURE] = signature(self._secret, timestamp, body)
        resolver = None if self._allow_private else _PublicOnly()
        connector = aiohttp.TCPConnector(resolver=resolver)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            return answer.status


class _PublicOnly(AbstractResolver):
    """Resolves names once, for the connection that is made, and refuses private addresses."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        inner = aiohttp.ThreadedResolver()
        found = await inner.resolve(host, port, family)
        if not all(is_public(one["host"]) for one in found):
            raise OSError("the webhook's name leads to a private address")
        return found

    async def close(self) -> None:
        """Nothing is held."""


def _refuse_private_literal(url: str) -> None:
    host = urlsplit(url).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    if not is_public(host):
        raise OSError("the webhook is a private address")
