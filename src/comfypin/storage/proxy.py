"""The proxy between a machine and its stores, as HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name it.

What they mean is what the standard library makes of them, and with it boto3 and Google's client. A user and password in
such a variable go to the proxy alone, and are never shown.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from comfypin.errors import StorageError
from comfypin.settings.errors import SettingInvalid
from comfypin.storage.endpoint import known_host
from comfypin.storage.errors import ProxyRefused, StoreUnreachable

PROXY_WANTS_LOGIN = 407


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """One proxy. `authorization` is what it is shown of the user, `variable` what names it."""

    host: str
    port: int
    is_encrypted: bool = False
    authorization: str | None = field(default=None, repr=False)
    variable: str = "HTTPS_PROXY"

    @property
    def name(self) -> str:
        """The proxy in words."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_encrypted else 'http'}://{host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """What a request says to the proxy alone."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """Which proxy stands before which address."""

    named: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> "Proxies":
        """The variables' names and values by the scheme they are for, as `urllib.request.getproxies` reads them."""
        named: dict[str, tuple[str, str]] = {}
        # Lower case wins; under CGI a visitor's header is HTTP_PROXY (CVE-2016-1000110).
        for name, value in sorted(environ.items(), key=lambda item: item[0].endswith("_proxy")):
            scheme, lower = name.lower().removesuffix("_proxy"), name.endswith("_proxy")
            if scheme == name.lower() or (name == "HTTP_PROXY" and "REQUEST_METHOD" in environ):
                continue
            if value.strip():
                named[scheme] = (name, value.strip())
            elif lower:
                named.pop(scheme, None)
        return cls(named=named)

    def to(self, url: str) -> Proxy | None:
        """The proxy for an address; None where there is none, or NO_PROXY names the host. Raises `SettingInvalid`."""
        address = urlsplit(url)
        found = self.named.get(address.scheme) or self.named.get("all")
        if found is None or self._passes_by(address.netloc):
            return None
        return _parsed(*found)

    def _passes_by(self, host: str) -> bool:
        """What `urllib.request.proxy_bypass_environment` does, whose import costs what a hundred small uploads do."""
        _, names = self.named.get("no", ("", ""))
        hosts = {host.lower(), re.sub(r":[0-9]*$", "", host.lower())}
        suffixes = [name for part in names.split(",") if (name := part.strip().lstrip(".").lower())]
        return names == "*" or any(f".{host}".endswith(f".{suffix}") for host in hosts for suffix in suffixes)


def _parsed(variable: str, value: str) -> Proxy:
    # What is wrong is not shown, nor what Python says of it: it may be a part of a password.
    refused = SettingInvalid(
        variable=variable, expected="the address of an HTTP proxy: http://[USER:PASSWORD@]HOST:PORT"
    )
    try:
        address = urlsplit(value if "://" in value else f"http://{value.removeprefix('//')}")
        port = address.port
        host = known_host(address.hostname or "")
    except ValueError:
        raise refused from None
    if address.scheme not in {"http", "https"} or port == 0:
        raise refused
    return Proxy(
        host=host,
        port=port or (443 if address.scheme == "https" else 80),
        is_encrypted=address.scheme == "https",
        authorization=_authorization(address),
        variable=variable,
    )


def _authorization(address: SplitResult) -> str | None:
    if not address.username:
        return None
    pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


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
        return cls(proxy, reason=f"the proxy {proxy.name}: {reason}", passes=True)

    @classmethod
    def of_status(cls, proxy: Proxy, status: int) -> "ProxyFailed":
        """What a proxy answers that opens no way."""
        if status == PROXY_WANTS_LOGIN:
            wants = "does not accept its user and password" if proxy.authorization else "wants a user and password"
            remedy = f"write them into {proxy.variable}: http://USER:PASSWORD@HOST:PORT, special characters as %XX"
            return cls(proxy, reason=f"it {wants}", passes=False, remedy=remedy)
        passes = status >= 500 or status in {408, 429}
        if passes:
            return cls(proxy, reason=f"the proxy {proxy.name} has no way to it (HTTP {status})", passes=True)
        remedy = "have the store's host allowed there, or name it in NO_PROXY if it can be reached without"
        return cls(proxy, reason=f"HTTP {status}", passes=False, remedy=remedy)

    def error(self, store: str) -> StorageError:
        """The error that says so."""
        if self.passes:
            return StoreUnreachable(store=store, reason=self.reason, remedy=self.remedy)
        return ProxyRefused(
            proxy=self.proxy.name, variable=self.proxy.variable, store=store, reason=self.reason, remedy=self.remedy
        )
