"""The synchronous HTTP client: pools, proxies, redirects that are checked, and secrets that stay with their origin."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import urllib3
from urllib3 import exceptions

from comfypin import __version__
from comfypin.http.connections import Network, Pools, Route, SystemNetwork
from comfypin.http.deadline import Deadline, under
from comfypin.http.errors import AddressRefused, HttpError, ProxyFailed
from comfypin.http.guard import Guard
from comfypin.http.proxies import Proxies
from comfypin.http.response import Response, error_of
from comfypin.http.sockets import tls_context
from comfypin.http.url import HttpUrl, Origin, UrlInvalid

MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONNECT_TIMEOUT_S = 15.0
# Headers that are for the origin that the caller named, and for no other that it redirects to.
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Bearer tokens by origin (`https://host`, with the port if it is another than usual).

    A token is sent over TLS (or to this machine) to its own origin, and nowhere else.
    """

    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    def for_url(self, url: HttpUrl) -> str | None:
        """Return the token for this address, if one is meant for its origin."""
        if url.scheme != "https" and url.host not in {"127.0.0.1", "localhost", "::1"}:
            return None
        return next((token for origin, token in self.tokens.items() if _origin(origin) == url.origin), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """How the client reaches servers: the network, the proxies before it, TLS, and how long silence is borne.

    Nothing here looks at the environment: without `proxies`, servers are reached directly. `head_s` bounds the
    time from the request to the end of the response's head, unless the request has a deadline.
    """

    network: Network = field(default_factory=SystemNetwork)
    proxies: Proxies = field(default_factory=Proxies)
    tls: Callable[[], ssl.SSLContext] = tls_context
    timeout_s: float = 30.0
    head_s: float = 120.0


def _as_it_is(shown: str, error: HttpError) -> Exception:
    return error


class HttpClient:
    """Asks servers; threads share it. A host is resolved once in its life, so that it cannot move after the check."""

    def __init__(
        self,
        *,
        credentials: Credentials | None = None,
        transport: Transport | None = None,
        public_only: bool = False,
        deadline: Deadline | None = None,
        translate: Callable[[str, HttpError], Exception] = _as_it_is,
    ) -> None:
        """With `public_only` no private address is asked, even if the URL itself names it: for strangers' URLs.

        `deadline` is for all that this client ever does. `translate` makes the caller's own exception of an address
        (without secrets) and an `HttpError`.
        """
        self._credentials = credentials or Credentials()
        self._transport = transport or Transport()
        self._deadline = deadline
        self._translate = translate
        self._guard = Guard(self._transport.network, self._transport.proxies, public_only=public_only)
        self._pools = Pools(self._transport.network, self._transport.tls)

    def has_token(self, url: str) -> bool:
        """Return whether a token would be sent to this address."""
        try:
            return self._credentials.for_url(HttpUrl.parse(url)) is not None
        except UrlInvalid:
            return False

    def get(self, url: str, headers: Mapping[str, str] | None = None, *, led_by: str | None = None) -> Response:
        """Ask for a file; see `request`."""
        return self.request("GET", url, headers=headers, led_by=led_by)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        led_by: str | None = None,
        deadline: Deadline | None = None,
        max_redirects: int = MAX_REDIRECTS,
    ) -> Response:
        """Ask, follow redirects, and return the response to read or close, whatever its status is.

        `led_by` is the address of a server that named this one in a response that was no redirect but means the same.
        `deadline` holds for the whole, the body too. With `max_redirects` 0 a redirect is returned as it is.
        Raises `HttpError`, or what `translate` makes of it.
        """
        shown = shown_url(url)
        limit = deadline or self._deadline
        whole = limit or Deadline(self._transport.head_s)
        try:
            asking = _Asking(method, _parsed(url), dict(headers or {}), body, max_redirects)
            response = self._follow(asking, None if led_by is None else _parsed(led_by), whole)
        except HttpError as error:
            raise self._translate(shown, error) from error.__cause__
        if limit is None:
            whole.lift()
        return response

    def close(self) -> None:
        """Close the connections that are idle."""
        self._pools.close()

    def _follow(self, asking: "_Asking", led_by: HttpUrl | None, deadline: Deadline) -> Response:
        hops: list[tuple[int, Mapping[str, str]]] = []
        walk = self._guard.walk(deadline)
        if led_by is not None:
            walk.step(led_by)
        while True:
            route = walk.step(asking.url)
            sent = self._headers(asking)
            raw = self._ask(asking, route, sent, deadline)
            location = raw.headers.get("Location")
            if raw.status not in _REDIRECTS or not location or not asking.max_redirects:
                return self._response(raw, asking.url, deadline, hops)
            hops.append((raw.status, dict(raw.headers.items())))
            if len(hops) > asking.max_redirects:
                raise AddressRefused(f"more than {asking.max_redirects} redirects")
            self._response(raw, asking.url, deadline, hops).text()
            asking = asking.redirected(raw.status, location, had_secret=_holds_secret(sent))

    def _response(
        self,
        raw: urllib3.BaseHTTPResponse,
        url: HttpUrl,
        deadline: Deadline,
        hops: list[tuple[int, Mapping[str, str]]],
    ) -> Response:
        return Response(
            raw,
            url=url.address,
            deadline=deadline,
            hops=tuple(hops),
            translate=lambda error: self._translate(url.shown, error),
        )

    def _headers(self, asking: "_Asking") -> dict[str, str]:
        usual = {"User-Agent": f"comfypin/{__version__}", "Accept-Encoding": "identity"}
        own = asking.url.authorization
        token = self._credentials.for_url(asking.url)
        if own is None and token:
            own = f"Bearer {token}"
        return {**usual, **({"Authorization": own} if own else {}), **asking.headers}

    def _ask(
        self, asking: "_Asking", route: Route, headers: dict[str, str], deadline: Deadline
    ) -> urllib3.BaseHTTPResponse:
        is_plainly_proxied = route.proxy is not None and asking.url.scheme == "http"
        if is_plainly_proxied:
            # The pool is for this request alone.
            headers = {**headers, "Connection": "close"}
        pool = self._pools.for_route(route)
        is_repeatable = asking.method in {"GET", "HEAD"}
        while True:
            try:
                with under(deadline):
                    response = pool.urlopen(
                        asking.method,
                        asking.url.address if is_plainly_proxied else asking.url.target,
                        body=asking.body,
                        headers=headers,
                        retries=False,
                        redirect=False,
                        assert_same_host=False,
                        timeout=self._timeout(deadline),
                        preload_content=False,
                        decode_content=False,
                    )
            except (exceptions.HTTPError, OSError) as error:
                failure = error_of(error, deadline)
                if is_repeatable and _was_idle_too_long(error) and not deadline.has_passed:
                    # The server closed a connection that was waiting to be used again, as it may.
                    is_repeatable = False
                    continue
                raise failure from error
            except ValueError:
                # The original quotes the header.
                reason = "its address or its token holds what HTTP does not take"
                raise HttpError(reason, is_transient=False) from None
            if is_plainly_proxied and response.status == 407:
                response.close()
                raise ProxyFailed("its proxy wants another user and password", is_transient=False)
            return response

    def _timeout(self, deadline: Deadline) -> urllib3.Timeout:
        read_s = deadline.bound_s(self._transport.timeout_s)
        return urllib3.Timeout(connect=min(_CONNECT_TIMEOUT_S, read_s), read=read_s)


@dataclass(frozen=True, slots=True)
class _Asking:
    """What is asked of whom; `headers` are those that the caller gave, as far as they are for this origin."""

    method: str
    url: HttpUrl
    headers: dict[str, str]
    body: bytes | None
    max_redirects: int

    def redirected(self, status: int, location: str, *, had_secret: bool) -> "_Asking":
        """Return what is asked after a redirect. Raises `AddressRefused`."""
        try:
            url = self.url.joined(location)
        except UrlInvalid as error:
            raise AddressRefused(f"it leads to {shown_url(location)!r}: {error.reason}") from error
        if had_secret and self.url.scheme == "https" and url.scheme == "http":
            raise AddressRefused(f"it redirects a request with a secret from https to http, to {url.host}")
        kept = self
        if url.origin != self.url.origin:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _SECRET_HEADERS}
            kept = replace(self, headers=headers)
        # As browsers do (https://fetch.spec.whatwg.org/#http-redirect-fetch): a GET follows a form.
        if (status == 303 and self.method not in {"GET", "HEAD"}) or (status in {301, 302} and self.method == "POST"):
            headers = {name: value for name, value in kept.headers.items() if name.lower() != "content-type"}
            kept = replace(kept, method="GET", body=None, headers=headers)
        return replace(kept, url=url)


def shown_url(text: str) -> str:
    """Return an address without what may be secret in it, though it may not be a valid one."""
    try:
        return HttpUrl.parse(text).shown
    except UrlInvalid:
        head, separator, rest = text.partition("?")[0].partition("#")[0].partition("://")
        authority, slash, path = rest.partition("/")
        return f"{head}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def _parsed(url: str) -> HttpUrl:
    try:
        return HttpUrl.parse(url)
    except UrlInvalid as error:
        raise AddressRefused(f"it leads to {shown_url(url)!r}: {error.reason}") from error


def _origin(text: str) -> Origin | None:
    try:
        return HttpUrl.parse(text).origin
    except UrlInvalid:
        return None


def _holds_secret(headers: Mapping[str, str]) -> bool:
    return any(name.lower() in _SECRET_HEADERS for name in headers)


def _was_idle_too_long(error: Exception) -> bool:
    return isinstance(error, exceptions.ProtocolError) and isinstance(
        error.args[-1], ConnectionResetError | BrokenPipeError
    )
