"""Why a server could not be spoken to, in words that hold nothing of the request."""

import re
import socket
import ssl
from collections.abc import Iterator

from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)

from comfypin.errors import StorageError
from comfypin.http.proxies import Proxy
from comfypin.storage.errors import ProxyRefused, StoreUnreachable

PROXY_WANTS_LOGIN = 407
_TUNNEL_STATUS = re.compile(r"Tunnel connection failed: (\d{3})")


class ProxyFailed(OSError):
    """A proxy that cannot be spoken to, or lets a request not through. What passes may be tried again."""

    def __init__(self, proxy: Proxy, *, reason: str, passes: bool, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.proxy = proxy
        self.reason = reason
        self.passes = passes
        self.remedy = remedy or f"check {proxy.variable}, or name the store's host in NO_PROXY"

    @classmethod
    def unreachable(cls, proxy: Proxy, *, reason: str = "the connection broke") -> "ProxyFailed":
        """Nothing of a proxy answers, or nothing that one would say."""
        return cls(proxy, reason=f"the proxy {proxy.url}: {reason}", passes=True)

    @classmethod
    def of_status(cls, proxy: Proxy, status: int) -> "ProxyFailed":
        """What a proxy answers that opens no way."""
        if status == PROXY_WANTS_LOGIN:
            wants = "does not accept its user and password" if proxy.authorization else "wants a user and password"
            remedy = f"write them into {proxy.variable}: http://USER:PASSWORD@HOST:PORT, special characters as %XX"
            return cls(proxy, reason=f"it {wants}", passes=False, remedy=remedy)
        passes = status >= 500 or status in {408, 429}
        if passes:
            return cls(proxy, reason=f"the proxy {proxy.url} has no way to it (HTTP {status})", passes=True)
        remedy = "have the store's host allowed there, or name it in NO_PROXY if it can be reached without"
        return cls(proxy, reason=f"HTTP {status}", passes=False, remedy=remedy)

    def error(self, store: str) -> StorageError:
        """The error that says so."""
        if self.passes:
            return StoreUnreachable(store=store, reason=self.reason, remedy=self.remedy)
        return ProxyRefused(
            proxy=self.proxy.url, variable=self.proxy.variable, store=store, reason=self.reason, remedy=self.remedy
        )


def explained(exc: BaseException, *, store: str, proxy: Proxy | None = None) -> StorageError:
    """The error that a failed request is, in words without anything of the request."""
    causes = list(_causes(exc))
    for cause in causes:
        if isinstance(cause, ProxyFailed):
            return cause.error(store)
    if proxy is not None:
        told = next((found for cause in causes if (found := _TUNNEL_STATUS.search(str(cause)))), None)
        if told is not None:
            return ProxyFailed.of_status(proxy, int(told[1])).error(store)
        if any(isinstance(cause, ProxyError) for cause in causes):
            return ProxyFailed.unreachable(proxy, reason=_reason(causes)).error(store)
    return StoreUnreachable(store=store, reason=_reason(causes))


def _reason(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, NameResolutionError):
            return "its name is not known"
        # A refused connection is a "timeout" to urllib3, too.
        if isinstance(cause, ConnectTimeoutError | ReadTimeoutError) and not isinstance(cause, NewConnectionError):
            return "it did not answer in time"
    systems = [cause for cause in causes if isinstance(cause, OSError) and not isinstance(cause, HTTPError)]
    return reason_of(systems[-1]) if systems else "the connection broke"


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    """An exception of urllib3 and what it is made of, the innermost last."""
    if exc is None:
        return
    yield exc
    inner = [part for part in exc.args if isinstance(part, BaseException)]
    inner += [part for part in (getattr(exc, "original_error", None), exc.__cause__) if part is not None]
    for part in dict.fromkeys(inner):
        yield from _causes(part)


def reason_of(exc: OSError) -> str:
    """Why a server could not be spoken to."""
    match exc:
        case socket.gaierror():
            return "its name is not known"
        case ConnectionRefusedError():
            return "the connection was refused"
        case ssl.SSLCertVerificationError():
            return "its TLS certificate is not accepted"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "HTTP_REQUEST" | "RECORD_LAYER_FAILURE"):
            return "it does not speak TLS: is it http:// instead of https://?"
        case TimeoutError():
            return "it did not answer in time"
        case _:
            return "the connection broke"


def is_page(text: str) -> bool:
    """Whether a body is a web page."""
    return text.lstrip()[:15].lower().startswith(("<html", "<!doctype html"))
