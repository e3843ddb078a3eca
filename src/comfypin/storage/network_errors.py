"""Explains why a server could not be reached, in words that hold nothing of the request."""

import re

from urllib3.exceptions import ProxyError

from comfypin.errors import StorageError
from comfypin.http.failure_causes import explain_causes, iterate_causes
from comfypin.http.proxies import Proxy
from comfypin.storage.errors import ProxyRefused, StoreUnreachable

PROXY_WANTS_LOGIN = 407
_TUNNEL_STATUS = re.compile(r"Tunnel connection failed: (\d{3})")


class StoreProxyFailed(OSError):
    """Raised if a proxy cannot be reached, or lets a request not through; transient failures may be retried."""

    def __init__(self, proxy: Proxy, *, reason: str, passes: bool, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.proxy = proxy
        self.reason = reason
        self.passes = passes
        self.remedy = remedy or f"check {proxy.variable}, or name the store's host in NO_PROXY"

    @classmethod
    def from_silence(cls, proxy: Proxy, *, reason: str = "the connection broke") -> "StoreProxyFailed":
        """Return the failure of a proxy that does not respond, or not as a proxy does."""
        return cls(proxy, reason=f"the proxy {proxy.url}: {reason}", passes=True)

    @classmethod
    def from_status(cls, proxy: Proxy, http_status: int) -> "StoreProxyFailed":
        """Return the failure of a proxy that refused to connect, by its status."""
        if http_status == PROXY_WANTS_LOGIN:
            login_problem = (
                "does not accept its user and password" if proxy.authorization else "wants a user and password"
            )
            remedy = f"add them to {proxy.variable}: http://USER:PASSWORD@HOST:PORT, special characters as %XX"
            return cls(proxy, reason=f"it {login_problem}", passes=False, remedy=remedy)
        # A gateway that has no way to the server now may have one soon; other refusals are its rules.
        is_transient = http_status >= 500 or http_status in {408, 429}
        if is_transient:
            return cls(proxy, reason=f"the proxy {proxy.url} has no way to it (HTTP {http_status})", passes=True)
        remedy = "have the store's host allowed there, or name it in NO_PROXY if it can be reached without"
        return cls(proxy, reason=f"HTTP {http_status}", passes=False, remedy=remedy)

    def to_storage_error(self, store_name: str) -> StorageError:
        """Return the error for the user."""
        if self.passes:
            return StoreUnreachable(store=store_name, reason=self.reason, remedy=self.remedy)
        return ProxyRefused(
            proxy=self.proxy.url, variable=self.proxy.variable, store=store_name, reason=self.reason, remedy=self.remedy
        )


def explain_network_failure(exception: BaseException, *, store_name: str, proxy: Proxy | None = None) -> StorageError:
    """Return the error for a failed request; its message holds nothing of the request."""
    causes = list(iterate_causes(exception))
    # Our own failures are wrapped by the libraries, and say most.
    for cause in causes:
        if isinstance(cause, StoreProxyFailed):
            return cause.to_storage_error(store_name)
    if proxy is not None:
        tunnel_status = next((matched for cause in causes if (matched := _TUNNEL_STATUS.search(str(cause)))), None)
        if tunnel_status is not None:
            return StoreProxyFailed.from_status(proxy, int(tunnel_status[1])).to_storage_error(store_name)
        if any(isinstance(cause, ProxyError) for cause in causes):
            return StoreProxyFailed.from_silence(proxy, reason=_failure_reason(causes)).to_storage_error(store_name)
    return StoreUnreachable(store=store_name, reason=_failure_reason(causes))


def _failure_reason(causes: list[BaseException]) -> str:
    explained = explain_causes(causes)
    return explained.reason if explained is not None else "the connection broke"


def is_web_page(response_text: str) -> bool:
    """Return whether a body is a web page."""
    return response_text.lstrip()[:15].lower().startswith(("<html", "<!doctype html"))
