"""The proxies that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name.

They are read by the standard library's rules. A user and password in such a variable go to the proxy alone, and are
never shown.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import unquote, urlsplit

from comfypin.addresses import HostInvalid, normalize_host
from comfypin.errors import ConfigError, declare
from comfypin.http.url import HttpUrl, UrlInvalid


@declare
class ProxyInvalid(ConfigError):
    """Raised if a variable that should name a proxy does not."""

    # The value is not shown: it may hold a part of a password.
    template = (
        "{variable} is not the URL of an HTTP proxy (its value is not shown); write http://[USER:PASSWORD@]HOST:PORT, "
        "special characters of the password as %XX."
    )
    variable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """One proxy: its URL, the login for it, and the variable that names it."""

    url: str
    authorization: str | None = field(default=None, repr=False)
    variable: str = "HTTPS_PROXY"

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that only the proxy sees."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}


@dataclass(frozen=True, kw_only=True)
class Proxies:
    """Knows the proxy of each URL."""

    named: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "Proxies":
        """Return the proxies that the variables name, as `urllib.request.getproxies` reads them."""
        named_proxies: dict[str, tuple[str, str]] = {}
        # Lower case wins: under CGI, a visitor's `Proxy` header becomes HTTP_PROXY (CVE-2016-1000110).
        for variable_name, raw_value in sorted(environment.items(), key=lambda item: item[0].endswith("_proxy")):
            scheme, is_lower_case = variable_name.lower().removesuffix("_proxy"), variable_name.endswith("_proxy")
            if scheme == variable_name.lower() or (variable_name == "HTTP_PROXY" and "REQUEST_METHOD" in environment):
                continue
            if raw_value.strip():
                named_proxies[scheme] = (variable_name, raw_value.strip())
            elif is_lower_case:
                named_proxies.pop(scheme, None)
        return cls(named=named_proxies)

    def for_url(self, url: HttpUrl) -> Proxy | None:
        """Return the proxy for a URL, None if it needs none or NO_PROXY names the host. Raises `ProxyInvalid`."""
        # NO_PROXY may name a host with or without its port.
        host_forms = {url.authority, re.sub(r":[0-9]*$", "", url.authority), f"{url.host}:{url.port}", url.host}
        return self._find_proxy(url.scheme, host_forms)

    def for_address(self, address: str) -> Proxy | None:
        """Return the proxy for a URL as a store's own library writes it. Raises `ProxyInvalid`."""
        try:
            return self.for_url(HttpUrl.parse(address))
        except UrlInvalid:
            # The library may accept what we cannot parse, and it must not bypass the proxy then.
            url_parts = urlsplit(address)
            return self._find_proxy(url_parts.scheme, {url_parts.netloc.rpartition("@")[2].lower()})

    def _find_proxy(self, scheme: str, host_forms: set[str]) -> Proxy | None:
        found_proxy = self.named.get(scheme) or self.named.get("all")
        return None if found_proxy is None or self._is_bypassed(host_forms) else _parse_proxy(*found_proxy)

    @cached_property
    def _bypassed_hosts(self) -> tuple[str, ...]:
        _, no_proxy_text = self.named.get("no", ("", ""))
        return tuple(
            bypassed_host
            for host_text in no_proxy_text.split(",")
            if (bypassed_host := host_text.strip().lstrip(".").lower())
        )

    def _is_bypassed(self, host_forms: set[str]) -> bool:
        # An asterisk alone turns proxies off.
        if self._bypassed_hosts == ("*",):
            return True
        return any(
            f".{host_form}".endswith(f".{bypassed_host}")
            for host_form in host_forms
            for bypassed_host in self._bypassed_hosts
        )


def _parse_proxy(variable: str, raw_value: str) -> Proxy:
    try:
        # People leave out the scheme, and curl accepts that too.
        address = urlsplit(raw_value if "://" in raw_value else f"http://{raw_value.removeprefix('//')}")
        port_number = address.port
        host = normalize_host(address.hostname or "")
    except (ValueError, HostInvalid):
        raise ProxyInvalid(variable=variable) from None
    if address.scheme not in {"http", "https"} or port_number == 0:
        raise ProxyInvalid(variable=variable)
    authorization = None
    if address.username:
        login_pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
        authorization = f"Basic {base64.b64encode(login_pair.encode()).decode()}"
    # Brackets keep an IPv6 address apart from its port.
    shown_host = f"[{host}]" if ":" in host else host
    port_number = port_number or (443 if address.scheme == "https" else 80)
    return Proxy(url=f"{address.scheme}://{shown_host}:{port_number}", authorization=authorization, variable=variable)
