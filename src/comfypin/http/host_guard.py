"""Decides which servers may be connected to, and which may redirect where: each host is resolved once and pinned."""

import ipaddress
import threading

from comfypin.addresses import HostInvalid, HostUnknown, is_link_local, is_public, resolve_host
from comfypin.http.connections import Network, Route
from comfypin.http.deadline import Deadline, DeadlinePassed
from comfypin.http.errors import AddressRefused, HttpError, RequestDeadlineExceeded
from comfypin.http.proxies import Proxies
from comfypin.http.url import HttpUrl

# The system's resolver tries its servers twice for five seconds each; this is for three of them.
_RESOLVE_S = 30.0


class AddressGuard:
    """Checks addresses. With `public_only` it refuses every private one: for URLs that strangers name."""

    def __init__(self, network: Network, proxies: Proxies, *, public_only: bool) -> None:
        self._network = network
        self._proxies = proxies
        self._public_only = public_only
        self._known: dict[tuple[str, int], tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def start_chain(self, deadline: Deadline) -> "RedirectChain":
        """Return the checker of one request and its redirects."""
        return RedirectChain(self, deadline)

    def find_route(self, target_url: HttpUrl, deadline: Deadline) -> Route:
        """Return the route to a URL. Raises `AddressRefused`, `HttpError`."""
        proxy = self._proxies.for_url(target_url)
        if proxy is not None and not self._public_only and not _is_literal(target_url.host):
            # The proxy resolves the name, which this machine may be unable to do, and has its own rules for it.
            return Route(target_url, proxy=proxy)
        try:
            addresses = self._resolve_host(target_url, deadline)
        except HttpError:
            if proxy is None:
                raise
            raise AddressRefused(
                f"{target_url.host} is not known here, so the proxy might lead to a private address"
            ) from None
        # 169.254.169.254 gives a cloud's keys to whoever asks.
        if any(map(is_link_local, addresses)):
            raise AddressRefused(f"it leads to the link-local address of {target_url.host}, where clouds keep keys")
        if self._public_only and not all(map(is_public, addresses)):
            raise AddressRefused(f"it leads to the private address of {target_url.host}, which jobs may not reach")
        return Route(target_url, addresses=addresses, proxy=proxy)

    def _resolve_host(self, target_url: HttpUrl, deadline: Deadline) -> tuple[str, ...]:
        host_and_port = (target_url.host, target_url.port)
        with self._lock:
            known_addresses = self._known.get(host_and_port)
        if known_addresses is not None:
            return known_addresses
        try:
            found_addresses = resolve_host(
                target_url.host, target_url.port, resolver=self._network, within_s=_resolve_timeout_s(deadline)
            )
        except DeadlinePassed:
            raise RequestDeadlineExceeded from None
        except HostUnknown as error:
            raise HttpError(f"it cannot be reached ({error})") from error
        except HostInvalid as error:
            raise AddressRefused(str(error)) from error
        except TimeoutError as error:
            if deadline.has_passed:
                raise RequestDeadlineExceeded from None
            # Only the resolver was slow; the whole request still has time.
            raise HttpError("its name was not resolved in time") from error
        with self._lock:
            # Two threads may have resolved the host at once: the first result holds for both.
            return self._known.setdefault(host_and_port, found_addresses)


class RedirectChain:
    """Checks one request's redirects. A public server has no business in a private network, nor may it make us its
    messenger: once a host of the chain was public, all that follow must be.
    """

    def __init__(self, guard: AddressGuard, deadline: Deadline) -> None:
        self._guard = guard
        self._deadline = deadline
        self._public_host: str | None = None

    def next_route(self, target_url: HttpUrl) -> Route:
        """Return the route to the next URL. Raises `AddressRefused`, `HttpError`."""
        route = self._guard.find_route(target_url, self._deadline)
        if self._public_host is not None and not all(map(is_public, route.addresses)):
            raise AddressRefused(
                f"it redirects from the public host {self._public_host} to the private address of {target_url.host}"
            )
        # A name with a public and a private address counts as public: it may be an attempt to look private.
        if self._public_host is None and any(map(is_public, route.addresses)):
            self._public_host = target_url.host
        return route


def _resolve_timeout_s(deadline: Deadline) -> float | None:
    return deadline.bound_s(_RESOLVE_S) if deadline.is_set else None


def _is_literal(hostname: str) -> bool:
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return hostname == "localhost" or hostname.endswith(".localhost")
    return True
