"""Tells a job's webhook of its end: tried again, signed if there is a secret, private addresses only if allowed."""

import asyncio
import hashlib
import hmac
import logging
import socket
import time
from functools import partial

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from comfypin.addresses import HostInvalid, HostNotPublic, Resolver, is_public, resolve_public
from comfypin.http.proxies import Proxies, Proxy, ProxyInvalid
from comfypin.http.url import HttpUrl, UrlInvalid
from comfypin.retry import Retried, Retry, RetryPolicy, parse_retry_after

log = logging.getLogger(__name__)

SIGNATURE = "X-Comfypin-Signature"
TIMESTAMP = "X-Comfypin-Timestamp"
WEBHOOK_RETRIES = RetryPolicy(retries=2, base_s=5.0, longest_asked_s=300.0)
_TIMEOUT_S = 30.0


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and the HMAC of `TIMESTAMP.BODY`, as the receiver computes it too."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class _NotTold(Exception):
    """A try that may go better the next time."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Webhooks:
    """Posts the status of ended jobs to their webhooks."""

    def __init__(
        self,
        *,
        secret: str | None,
        allow_private: bool,
        retry_policy: RetryPolicy = WEBHOOK_RETRIES,
        resolver: Resolver | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        self._secret = secret
        self._allow_private = allow_private
        self._retry_policy = retry_policy
        self._resolver = resolver
        self._proxies = proxies or Proxies()

    async def tell(self, job_id: str, url: str, body: bytes) -> bool:
        """Post until it is answered with 200, three times at most; returns whether it was. Raises nothing."""

        def report(retried: Retried) -> None:
            _log_failure(job_id, str(retried.error))

        try:
            parsed = HttpUrl.parse(url)
            retry = Retry(policy=self._retry_policy, on=_NotTold, report=report)
            await retry.call_async(lambda: self._post(parsed, body))
        except (_NotTold, UrlInvalid, HostInvalid, HostNotPublic, ProxyInvalid) as exc:
            _log_failure(job_id, str(exc))
            return False
        return True

    async def _post(self, url: HttpUrl, body: bytes) -> None:
        timestamp = str(int(time.time()))
        headers = {"Content-Type": "application/json", TIMESTAMP: timestamp}
        if self._secret:
            headers[SIGNATURE] = signature(self._secret, timestamp, body)
        if url.authorization:
            headers["Authorization"] = url.authorization
        proxy = self._proxies.for_url(url)
        if proxy is not None and url.scheme == "http":
            headers.update(proxy.headers)  # there is no CONNECT that could hold them
        try:
            connector = await self._connector(url, proxy)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
                session.post(
                    URL(url.full_address, encoded=True),
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    proxy=proxy.url if proxy else None,
                    proxy_headers=proxy.headers if proxy else None,
                ) as response,
            ):
                if response.status != 200:
                    asked_s = parse_retry_after(response.headers.get("Retry-After"))
                    raise _NotTold(f"HTTP {response.status}", retry_after_s=asked_s)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise _NotTold(type(exc).__name__) from exc

    async def _connector(self, url: HttpUrl, proxy: Proxy | None) -> aiohttp.TCPConnector:
        """Return what connects to the addresses that were found public, and to no others."""
        if self._allow_private:
            return aiohttp.TCPConnector()
        checked = partial(resolve_public, url.host, url.port, resolver=self._resolver, within_s=_TIMEOUT_S)
        addresses = await asyncio.to_thread(checked)
        if proxy is not None:
            return aiohttp.TCPConnector()  # to the proxy, which the operator named
        # aiohttp asks no resolver for an address, so the socket has a check of its own, which nothing passes by.
        return aiohttp.TCPConnector(resolver=_Pinned(addresses), socket_factory=_public_socket)


class _Pinned(AbstractResolver):
    """Gives the addresses that were checked, whatever a name server says by now."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [_resolved(host, port, address) for address in self._addresses]

    async def close(self) -> None:
        """Nothing is held."""


def _resolved(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)


def _public_socket(address: "aiohttp.AddrInfoType") -> socket.socket:
    family, kind, protocol, _, place = address
    if not is_public(str(place[0])):
        raise OSError("not a public address")
    return socket.socket(family, kind, protocol)


def _log_failure(job_id: str, reason: str) -> None:
    log.warning("webhook not told", extra={"action": "webhook_failed", "job_id": job_id, "reason": reason})
