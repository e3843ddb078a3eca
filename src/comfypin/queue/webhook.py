"""Posts a job's end to its webhook: retried, signed if there is a secret, to private addresses only if allowed."""

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

from comfypin.addresses import HostInvalid, HostNotPublic, HostResolver, is_public, resolve_public
from comfypin.http.proxies import Proxies, Proxy, ProxyInvalid
from comfypin.http.url import HttpUrl, UrlInvalid
from comfypin.retry import Retried, Retry, RetryPolicy, parse_retry_after

log = logging.getLogger(__name__)

SIGNATURE_HEADER = "X-Comfypin-Signature"
TIMESTAMP_HEADER = "X-Comfypin-Timestamp"
WEBHOOK_RETRIES = RetryPolicy(retries=2, base_s=5.0, longest_asked_s=300.0)
# Runpod gives receivers 30 s too; who needs longer should answer first and work then.
_TIMEOUT_S = 30.0


def sign_body(webhook_secret: str, timestamp: str, status_body: bytes) -> str:
    """Return `sha256=` and the HMAC of `TIMESTAMP.BODY`, as the receiver computes it too."""
    # The time is signed too, so that a recorded request cannot be sent again later.
    return (
        "sha256="
        + hmac.new(webhook_secret.encode(), timestamp.encode() + b"." + status_body, hashlib.sha256).hexdigest()
    )


class _PostFailed(Exception):
    """One try failed, and another may succeed."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


_FAILURES = (_PostFailed, UrlInvalid, HostInvalid, HostNotPublic, ProxyInvalid)


class Webhooks:
    """Posts the status of ended jobs to their webhooks."""

    def __init__(
        self,
        *,
        secret: str | None,
        allow_private: bool,
        retry_policy: RetryPolicy = WEBHOOK_RETRIES,
        resolver: HostResolver | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        self._secret = secret
        self._allow_private = allow_private
        self._retry_policy = retry_policy
        self._resolver = resolver
        self._proxies = proxies or Proxies()

    async def post_status(self, job_id: str, webhook_url: str, status_body: bytes) -> str | None:
        """Post until the webhook answers 200 or the retries are used up; return why it failed, or None."""

        def report(retried: Retried) -> None:
            _log_failure(job_id, str(retried.error))

        try:
            parsed = HttpUrl.parse(webhook_url)
            retry = Retry(policy=self._retry_policy, on=_PostFailed, report=report)
            await retry.call_async(lambda: self._post_once(parsed, status_body))
        except _FAILURES as exc:
            _log_failure(job_id, str(exc))
            return str(exc)
        return None

    async def post_once(self, webhook_url: str, status_body: bytes) -> str | None:
        """Post without a retry; return why it failed, or None."""
        try:
            await self._post_once(HttpUrl.parse(webhook_url), status_body)
        except _FAILURES as exc:
            return str(exc)
        return None

    async def _post_once(self, webhook_url: HttpUrl, status_body: bytes) -> None:
        timestamp = str(int(time.time()))
        headers = {"Content-Type": "application/json", TIMESTAMP_HEADER: timestamp}
        if self._secret:
            headers[SIGNATURE_HEADER] = sign_body(self._secret, timestamp, status_body)
        if webhook_url.authorization:
            headers["Authorization"] = webhook_url.authorization
        proxy_server = self._proxies.for_url(webhook_url)
        if proxy_server is not None and webhook_url.scheme == "http":
            headers.update(proxy_server.headers)  # there is no CONNECT that could hold them
        try:
            connector = await self._make_connector(webhook_url, proxy_server)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
                session.post(
                    # encoded: the address is used exactly as the user wrote it.
                    URL(webhook_url.full_address, encoded=True),
                    data=status_body,
                    headers=headers,
                    # A redirect could lead to a private address that nobody checked.
                    allow_redirects=False,
                    proxy=proxy_server.url if proxy_server else None,
                    proxy_headers=proxy_server.headers if proxy_server else None,
                ) as response,
            ):
                if response.status != 200:
                    retry_after_s = parse_retry_after(response.headers.get("Retry-After"))
                    raise _PostFailed(f"HTTP {response.status}", retry_after_s=retry_after_s)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise _PostFailed(type(exc).__name__) from exc

    async def _make_connector(self, webhook_url: HttpUrl, proxy_server: Proxy | None) -> aiohttp.TCPConnector:
        """Return a connector that connects only to addresses that were found public."""
        if self._allow_private:
            return aiohttp.TCPConnector()
        resolve_checked = partial(
            resolve_public, webhook_url.host, webhook_url.port, resolver=self._resolver, within_s=_TIMEOUT_S
        )
        addresses = await asyncio.to_thread(resolve_checked)
        if proxy_server is not None:
            return aiohttp.TCPConnector()  # to the proxy, which the operator named
        # aiohttp asks no resolver if the host is an IP address, so each socket checks its address too.
        return aiohttp.TCPConnector(resolver=_PinnedResolver(addresses), socket_factory=_public_socket)


class _PinnedResolver(AbstractResolver):
    """Gives the addresses that were checked, whatever a name server says by now."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host_name: str, port_number: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [_resolve_result(host_name, port_number, ip_address) for ip_address in self._addresses]

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""


def _resolve_result(host_name: str, port_number: int, ip_address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in ip_address else socket.AF_INET
    return ResolveResult(
        hostname=host_name, host=ip_address, port=port_number, family=family, proto=0, flags=socket.AI_NUMERICHOST
    )


def _public_socket(address_info: "aiohttp.AddrInfoType") -> socket.socket:
    family, socket_type, protocol, _, socket_address = address_info
    if not is_public(str(socket_address[0])):
        raise OSError("not a public address")
    return socket.socket(family, socket_type, protocol)


def _log_failure(job_id: str, failure_reason: str) -> None:
    log.warning("webhook not posted", extra={"action": "webhook_failed", "job_id": job_id, "reason": failure_reason})
