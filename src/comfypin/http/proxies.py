"""The proxy between this machine and a server, as HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name it.

They mean what the standard library makes of them. A user and password in such a variable go to the proxy alone, and are
never shown.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import unquote, urlsplit

from comfypin.addresses import HostInvalid, normalize_host
from comfypin.errors import ConfigError
from comfypin.http.url import HttpUrl, UrlInvalid


class ProxyInvalid(ConfigError):
    """A variable that should name a proxy does not."""

    def __init__(self, *, variable: str) -> None:
        # What is wrong is not shown: it may be a part of a password.
        super().__init__(
            f"{variable} is not the address of an HTTP proxy (what it holds is not shown); write "
            "http://[USER:PASSWORD@]HOST:PORT, special characters of the password as %XX.",
            variable=variable,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """One proxy: its address, what it is shown of the user, and the variable that names it."""

    url: str
    authorization: str | None = field(default=None, repr=False)
    variable: str = "HTTPS_PROXY"

    @property
    def headers(self) -> dict[str, str]:
        """What a request says to the proxy alone."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}


@dataclass(frozen=True, kw_only=True)
class Proxies:
    """Which proxy stands before which address."""

    named: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> "Proxies":
        """Return the proxies that the variables name, as `urllib.request.getproxies` reads them."""
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

    def for_url(self, url: HttpUrl) -> Proxy | None:
        """Return the proxy for an address; None if there is none, or NO_PROXY names the host. Raises `ProxyInvalid`."""
        hosts = {url.authority, re.sub(r":[0-9]*$", "", url.authority), f"{url.host}:{url.port}", url.host}
        return self._before(url.scheme, hosts)

    def for_address(self, address: str) -> Proxy | None:
        """Return the proxy for an address as a store's own library writes it. Raises `ProxyInvalid`."""
        try:
            return self.for_url(HttpUrl.parse(address))
        except UrlInvalid:
            # No reason to go by no proxy: the library may know how to ask for it.
            parts = urlsplit(address)
            return self._before(parts.scheme, {parts.netloc.rpartition("@")[2].lower()})

    def _before(self, scheme: str, hosts: set[str]) -> Proxy | None:
        found = self.named.get(scheme) or self.named.get("all")
        return None if found is None or self._bypasses(hosts) else _parsed(*found)

    @cached_property
    def _bypassed(self) -> tuple[str, ...]:
        _, names = self.named.get("no", ("", ""))
        return tuple(name for part in names.split(",") if (name := part.strip().lstrip(".").lower()))

    def _bypasses(self, hosts: set[str]) -> bool:
        if self._bypassed == ("*",):
            return True
        return any(f".{host}".endswith(f".{name}") for host in hosts for name in self._bypassed)


def _parsed(variable: str, value: str) -> Proxy:
    try:
        address = urlsplit(value if "://" in value else f"http://{value.removeprefix('//')}")
        port = address.port
        host = normalize_host(address.hostname or "")
    except (ValueError, HostInvalid):
        raise ProxyInvalid(variable=variable) from None
    if address.scheme not in {"http", "https"} or port == 0:
        raise ProxyInvalid(variable=variable)
    authorization = None
    if address.username:
        pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    shown = f"[{host}]" if ":" in host else host
    port = port or (443 if address.scheme == "https" else 80)
    return Proxy(url=f"{address.scheme}://{shown}:{port}", authorization=authorization, variable=variable)
