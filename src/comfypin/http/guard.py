"""Which servers may be asked, and which may lead where: each host is resolved once, checked, and pinned."""

import ipaddress
import threading

from comfypin.addresses import HostInvalid, HostUnknown, is_link_local, is_public, resolve_host
from comfypin.http.connections import Network, Route
from comfypin.http.deadline import Deadline, DeadlinePassed
from comfypin.http.errors import AddressRefused, DeadlineExceeded, HttpError
from comfypin.http.proxies import Proxies
from comfypin.http.url import HttpUrl

_RESOLVE_S = 30.0


class Guard:
    """The rules. With `public_only` no private address is asked at all: for addresses that strangers name."""

    def __init__(self, network: Network, proxies: Proxies, *, public_only: bool) -> None:
        self._network = network
        self._proxies = proxies
        self._public_only = public_only
        self._known: dict[tuple[str, int], tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def walk(self, deadline: Deadline) -> "Walk":
        """Return the way of one request through its redirects."""
        return Walk(self, deadline)

    def route(self, url: HttpUrl, deadline: Deadline) -> Route:
        """Return where an address leads. Raises `AddressRefused`, `HttpError`."""
        proxy = self._proxies.for_url(url)
        if proxy is not None and not self._public_only and not _is_literal(url.host):
            # The proxy asks the resolver, which this machine may not reach; whom it may ask is its own to decide.
            return Route(url, proxy=proxy)
        try:
            addresses = self._resolve(url, deadline)
        except HttpError:
            if proxy is None:
                raise
            raise AddressRefused(
                f"{url.host} is not known here, so the proxy might lead to a private address"
            ) from None
        if any(map(is_link_local, addresses)):
            raise AddressRefused(f"it leads to the link-local address of {url.host}, where clouds keep keys")
        if self._public_only and not all(map(is_public, addresses)):
            raise AddressRefused(f"it leads to the private address of {url.host}, which jobs may not ask")
        return Route(url, addresses=addresses, proxy=proxy)

    def _resolve(self, url: HttpUrl, deadline: Deadline) -> tuple[str, ...]:
        key = (url.host, url.port)
        with self._lock:
            known = self._known.get(key)
        if known is not None:
            return known
        try:
            found = resolve_host(url.host, url.port, resolver=self._network, within_s=_patience_s(deadline))
        except DeadlinePassed:
            raise DeadlineExceeded from None
        except HostUnknown as error:
            raise HttpError(f"it cannot be reached ({error})") from error
        except HostInvalid as error:
            raise AddressRefused(str(error)) from error
        except TimeoutError as error:
            if deadline.has_passed:
                raise DeadlineExceeded from None
            raise HttpError("its name was not resolved in time") from error
        with self._lock:
            return self._known.setdefault(key, found)


class Walk:
    """One request's way. A server on the public internet has no business in a private network, nor may one make us its
    messenger: once a host on the way was public, all that follow must be.
    """

    def __init__(self, guard: Guard, deadline: Deadline) -> None:
        self._guard = guard
        self._deadline = deadline
        self._public_host: str | None = None

    def step(self, url: HttpUrl) -> Route:
        """Return where the next address leads. Raises `AddressRefused`, `HttpError`."""
        route = self._guard.route(url, self._deadline)
        if self._public_host is not None and not all(map(is_public, route.addresses)):
            raise AddressRefused(
                f"it redirects from the public host {self._public_host} to the private address of {url.host}"
            )
        # A name with a public and a private address is a public one that wants to be taken for private.
        if self._public_host is None and any(map(is_public, route.addresses)):
            self._public_host = url.host
        return route


def _patience_s(deadline: Deadline) -> float | None:
    return deadline.bound_s(_RESOLVE_S) if deadline.is_set else None


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return True
