"""The synchronous HTTP client: pools, proxies, redirects that are checked, and secrets that stay with their origin."""

import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import urllib3
from urllib3 import exceptions

from comfypin import __version__
from comfypin.http.connections import Network, Route, RoutePools, SystemNetwork
from comfypin.http.deadline import Deadline, use_deadline
from comfypin.http.errors import AddressRefused, HttpError, ProxyFailed
from comfypin.http.failure_causes import to_http_error
from comfypin.http.host_guard import AddressGuard
from comfypin.http.proxies import Proxies
from comfypin.http.response import Response
from comfypin.http.sockets import tls_context
from comfypin.http.url import HttpUrl, Origin, UrlInvalid

# Hubs of models use two or three; more is a loop.
MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# A host that is there answers within a second; the rest is for one lost packet or two.
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
        # A token must not cross a network in the clear.
        if url.scheme != "https" and url.host not in {"127.0.0.1", "localhost", "::1"}:
            return None
        return next((token for origin, token in self.tokens.items() if _parse_origin(origin) == url.origin), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTransport:
    """How the client reaches servers: the network, the proxies before it, TLS, and the timeouts.

    Nothing here reads the environment: without `proxies`, servers are reached directly. `head_s` limits the time from
    the request to the end of the response's head, unless the request has a deadline.
    """

    network: Network = field(default_factory=SystemNetwork)
    proxies: Proxies = field(default_factory=Proxies)
    tls: Callable[[], ssl.SSLContext] = tls_context
    timeout_s: float = 30.0
    head_s: float = 120.0


def _leave_untranslated(shown: str, error: HttpError) -> Exception:
    return error


class HttpClient:
    """Sends requests; threads share it. A host is resolved once in its life, so that it cannot move after the check."""

    def __init__(
        self,
        *,
        credentials: Credentials | None = None,
        transport: HttpTransport | None = None,
        public_only: bool = False,
        deadline: Deadline | None = None,
        translate: Callable[[str, HttpError], Exception] = _leave_untranslated,
    ) -> None:
        """Make a client. With `public_only` it refuses private addresses, even if the URL itself names one.

        That is for URLs that strangers name. `deadline` limits everything that this client ever does. `translate` makes
        the caller's own exception from a URL (without secrets) and an `HttpError`.
        """
        self._credentials = credentials or Credentials()
        self._transport = transport or HttpTransport()
        self._deadline = deadline
        self._translate = translate
        self._guard = AddressGuard(self._transport.network, self._transport.proxies, public_only=public_only)
        self._pools = RoutePools(self._transport.network, self._transport.tls)

    def has_token(self, url: str) -> bool:
        """Return whether a token would be sent to this address."""
        try:
            return self._credentials.for_url(HttpUrl.parse(url)) is not None
        except UrlInvalid:
            return False

    def get(self, url: str, headers: Mapping[str, str] | None = None, *, referring_url: str | None = None) -> Response:
        """Send a GET; see `request`."""
        return self.request("GET", url, headers=headers, referring_url=referring_url)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        referring_url: str | None = None,
        deadline: Deadline | None = None,
        max_redirects: int = MAX_REDIRECTS,
    ) -> Response:
        """Send a request, follow redirects, and return the response to read or close, whatever its status is.

        A body in pieces is sent once, so it needs a Content-Length header and `max_redirects` 0.

        `referring_url` is the URL of a server that named this one in its response, as a redirect would. `deadline` is
        for the whole, the body included. With `max_redirects` 0 a redirect is returned as it is. Raises `HttpError`, or
        what `translate` makes of it.
        """
        plain_url = shown_url(url)
        given_deadline = deadline or self._deadline
        request_deadline = given_deadline or Deadline(self._transport.head_s)
        try:
            request = _PendingRequest(method, _parse_url(url), dict(headers or {}), body, max_redirects)
            response = self._follow_redirects(
                request, None if referring_url is None else _parse_url(referring_url), request_deadline
            )
        except HttpError as error:
            # The cause is the library's exception: ours in between would tell nothing more.
            raise self._translate(plain_url, error) from error.__cause__
        if given_deadline is None:
            # Only the head was limited: a large body may take its time.
            request_deadline.lift_limit()
        return response

    def close(self) -> None:
        """Close the connections that are idle."""
        self._pools.close()

    def _follow_redirects(
        self, request: "_PendingRequest", referring_url: HttpUrl | None, deadline: Deadline
    ) -> Response:
        redirects: list[tuple[int, Mapping[str, str]]] = []
        redirect_chain = self._guard.start_chain(deadline)
        if referring_url is not None:
            redirect_chain.next_route(referring_url)
        while True:
            route = redirect_chain.next_route(request.url)
            sent_headers = self._request_headers(request)
            raw_response = self._send_request(request, route, sent_headers, deadline)
            redirect_location = raw_response.headers.get("Location")
            if raw_response.status not in _REDIRECTS or not redirect_location or not request.max_redirects:
                return self._make_response(raw_response, request.url, deadline, redirects)
            redirects.append((raw_response.status, dict(raw_response.headers.items())))
            if len(redirects) > request.max_redirects:
                raise AddressRefused(f"more than {request.max_redirects} redirects")
            # A connection can be used again only if the redirect's body was read.
            self._make_response(raw_response, request.url, deadline, redirects).read_text()
            request = request.after_redirect(
                raw_response.status, redirect_location, had_secret=_holds_secret(sent_headers)
            )

    def _make_response(
        self,
        raw_response: urllib3.BaseHTTPResponse,
        target_url: HttpUrl,
        deadline: Deadline,
        redirects: list[tuple[int, Mapping[str, str]]],
    ) -> Response:
        return Response(
            raw_response,
            url=target_url.full_address,
            deadline=deadline,
            redirects=tuple(redirects),
            translate=lambda error: self._translate(target_url.redacted_url, error),
        )

    def _request_headers(self, request: "_PendingRequest") -> dict[str, str]:
        default_headers = {"User-Agent": f"comfypin/{__version__}", "Accept-Encoding": "identity"}
        authorization = request.url.authorization
        token = self._credentials.for_url(request.url)
        if authorization is None and token:
            authorization = f"Bearer {token}"
        return {**default_headers, **({"Authorization": authorization} if authorization else {}), **request.headers}

    def _send_request(
        self, request: "_PendingRequest", route: Route, headers: dict[str, str], deadline: Deadline
    ) -> urllib3.BaseHTTPResponse:
        is_plainly_proxied = route.proxy is not None and request.url.scheme == "http"
        if is_plainly_proxied:
            # The pool is for this request alone.
            headers = {**headers, "Connection": "close"}
        pool = self._pools.for_route(route)
        is_repeatable = request.method in {"GET", "HEAD"}
        while True:
            try:
                with use_deadline(deadline):
                    response = pool.urlopen(
                        request.method,
                        request.url.full_address if is_plainly_proxied else request.url.target,
                        body=request.body,
                        headers=headers,
                        # Retries and redirects are decided above, where each address is checked.
                        retries=False,
                        redirect=False,
                        assert_same_host=False,
                        timeout=self._make_timeout(deadline),
                        preload_content=False,
                        decode_content=False,
                    )
            except (exceptions.HTTPError, OSError) as error:
                http_error = to_http_error(error, deadline)
                if is_repeatable and _was_idle_too_long(error) and not deadline.has_passed:
                    # The server closed a connection that was waiting to be used again, as it may.
                    is_repeatable = False
                    continue
                raise http_error from error
            except ValueError:
                # The original quotes the header.
                reason = "its address or its token holds what HTTP does not take"
                raise HttpError(reason, is_transient=False) from None
            if is_plainly_proxied and response.status == 407:
                response.close()
                raise ProxyFailed("its proxy requires another user and password", is_transient=False)
            return response

    def _make_timeout(self, deadline: Deadline) -> urllib3.Timeout:
        read_s = deadline.bound_s(self._transport.timeout_s)
        return urllib3.Timeout(connect=min(_CONNECT_TIMEOUT_S, read_s), read=read_s)


@dataclass(frozen=True, slots=True)
class _PendingRequest:
    """One request; `headers` are those that the caller gave, without those that are not for this origin."""

    method: str
    url: HttpUrl
    headers: dict[str, str]
    body: bytes | Iterable[bytes] | None
    max_redirects: int

    def after_redirect(self, status: int, redirect_location: str, *, had_secret: bool) -> "_PendingRequest":
        """Return the request that follows a redirect. Raises `AddressRefused`."""
        try:
            target_url = self.url.join_location(redirect_location)
        except UrlInvalid as error:
            raise AddressRefused(f"it leads to {shown_url(redirect_location)!r}: {error.reason}") from error
        if had_secret and self.url.scheme == "https" and target_url.scheme == "http":
            raise AddressRefused(f"it redirects a request with a secret from https to http, to {target_url.host}")
        next_request = self
        if target_url.origin != self.url.origin:
            headers = {
                header_name: value
                for header_name, value in self.headers.items()
                if header_name.lower() not in _SECRET_HEADERS
            }
            next_request = replace(self, headers=headers)
        # As browsers do (https://fetch.spec.whatwg.org/#http-redirect-fetch): a GET follows a form.
        if (status == 303 and self.method not in {"GET", "HEAD"}) or (status in {301, 302} and self.method == "POST"):
            headers = {
                header_name: value
                for header_name, value in next_request.headers.items()
                if header_name.lower() != "content-type"
            }
            next_request = replace(next_request, method="GET", body=None, headers=headers)
        return replace(next_request, url=target_url)


def shown_url(url_text: str) -> str:
    """Return a URL without what may be secret in it, even if it is not valid."""
    try:
        return HttpUrl.parse(url_text).redacted_url
    except UrlInvalid:
        before_query, separator, remainder = url_text.partition("?")[0].partition("#")[0].partition("://")
        authority, slash, path = remainder.partition("/")
        return f"{before_query}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def _parse_url(target_url: str) -> HttpUrl:
    try:
        return HttpUrl.parse(target_url)
    except UrlInvalid as error:
        raise AddressRefused(f"it leads to {shown_url(target_url)!r}: {error.reason}") from error


def _parse_origin(url_text: str) -> Origin | None:
    try:
        return HttpUrl.parse(url_text).origin
    except UrlInvalid:
        return None


def _holds_secret(headers: Mapping[str, str]) -> bool:
    return any(header_name.lower() in _SECRET_HEADERS for header_name in headers)


def _was_idle_too_long(error: Exception) -> bool:
    return isinstance(error, exceptions.ProtocolError) and isinstance(
        error.args[-1], ConnectionResetError | BrokenPipeError
    )
