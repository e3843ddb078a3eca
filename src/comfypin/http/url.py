"""URLs of http and https, parsed once: what is checked, connected to and requested is one value."""

import re
import urllib.parse
from base64 import b64encode
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from comfypin.addresses import HostInvalid, normalize_host

Origin: TypeAlias = tuple[str, str, int]

_PORTS = {"http": 80, "https": 443}
# What parsers disagree on, so that one checks another host than the next one asks: Python drops tabs and line ends from
# within addresses, and before the path a backslash is a slash to browsers.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_AUTHORITY = re.compile(r"[\x00-\x20\x7f\\]")
# What is percent-encoded already stays as it is: a signed URL must not change.
_SAFE = "/?&=%:@!$'()*+,;~[]#-._"


class UrlInvalid(ValueError):
    """Raised if a text is not a URL of http or https; `reason` is a clause that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpUrl:
    """One address. `host` is in its one form (see `normalize_host`), `target` is the path with the query, quoted."""

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)
    login: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url_text: str) -> "HttpUrl":
        """Parse a text as an address. Raises `UrlInvalid`."""
        url_text = url_text.strip()
        if _CONTROL.search(url_text):
            raise UrlInvalid("it holds a control character")
        try:
            url_parts = urllib.parse.urlsplit(url_text)
            port = url_parts.port
        except ValueError as error:
            raise UrlInvalid("it is not a URL") from error
        if url_parts.scheme not in _PORTS:
            raise UrlInvalid("it is not http or https")
        userinfo, _, authority = url_parts.netloc.rpartition("@")
        if "@" in userinfo or port == 0 or _NOT_IN_AUTHORITY.search(url_parts.netloc):
            raise UrlInvalid("it is not a URL")
        try:
            hostname = normalize_host(_host_of(authority))
        except HostInvalid as error:
            raise UrlInvalid("its host is not a name or an address") from error
        quoted_target = urllib.parse.urlunsplit(("", "", url_parts.path or "/", url_parts.query, ""))
        return cls(
            scheme=url_parts.scheme,
            host=hostname,
            port=port or _PORTS[url_parts.scheme],
            target=urllib.parse.quote(quoted_target, safe=_SAFE),
            login=userinfo or None,
        )

    def join_location(self, location: str) -> "HttpUrl":
        """Return the address that a redirect from this one leads to. Raises `UrlInvalid`."""
        if _CONTROL.search(location):
            raise UrlInvalid("it holds a control character")
        try:
            joined_text = urllib.parse.urljoin(self.full_address, location.strip())
        except ValueError as error:
            raise UrlInvalid("it is not a URL") from error
        joined_url = HttpUrl.parse(joined_text)
        return (
            replace(joined_url, login=joined_url.login or self.login)
            if joined_url.origin == self.origin
            else joined_url
        )

    @property
    def origin(self) -> Origin:
        """Return what secrets are meant for: scheme, host and port."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """Return the host, with its port if that is not the default, as requests name it."""
        hostname = f"[{self.host}]" if ":" in self.host else self.host
        return hostname if self.port == _PORTS[self.scheme] else f"{hostname}:{self.port}"

    @property
    def full_address(self) -> str:
        """Return the whole URL without its login. It may be signed: not for messages."""
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def redacted_url(self) -> str:
        """Return the URL without what may be secret in it: login and query."""
        return f"{self.scheme}://{self.authority}{self.target.partition('?')[0]}"

    @property
    def authorization(self) -> str | None:
        """Return the header for the user and password in the URL."""
        if self.login is None:
            return None
        user_name, _, password = self.login.partition(":")
        login_pair = f"{urllib.parse.unquote(user_name)}:{urllib.parse.unquote(password)}"
        return "Basic " + b64encode(login_pair.encode()).decode()


def _host_of(authority: str) -> str:
    """Return the host without the port. `urlsplit().hostname` drops what is around an IPv6 address."""
    if authority.startswith("["):
        hostname, bracket, remainder = authority.partition("]")
        if remainder and not remainder.startswith(":"):
            raise HostInvalid(authority)
        return hostname + bracket
    return authority.partition(":")[0]
