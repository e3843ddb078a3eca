"""An HTTP client for models: redirects that are checked, and tokens that stay with their host."""

import base64
import http.client
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfypin import __version__
from comfypin.errors.model import RedirectRefused, SourceFailed
from comfypin.models.answer import Answer, unavailable
from comfypin.models.interface import shown
from comfypin.models.network import Connections, Dialler, Names, Place, SystemDialler, is_link_local

MAX_REDIRECTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Bearer tokens by origin (`https://host`, with the port where it is another than usual).

    A token is sent over TLS (or to this machine) to its own origin, and nowhere else.
    """

    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    def for_url(self, url: urllib.parse.SplitResult) -> str | None:
        """The token for this address, if one is meant for its origin."""
        if url.scheme != "https" and url.hostname not in {"127.0.0.1", "localhost", "::1"}:
            return None
        wanted = _origin(url)
        own = (token for origin, token in self.tokens.items() if _origin(urllib.parse.urlsplit(origin)) == wanted)
        return next(own, None)


class HttpClient:
    """GET with redirects followed by our own rules, over connections that are used again."""

    def __init__(
        self,
        *,
        credentials: Credentials | None = None,
        dialler: Dialler | None = None,
        timeout_s: float = 30.0,
        public_only: bool = False,
    ) -> None:
        """With `public_only` no private address is asked, even where the URL itself names it: for strangers' URLs."""
        self._credentials = credentials or Credentials()
        self._public_only = public_only
        dialler = dialler or SystemDialler()
        self._names = Names(dialler)
        self._connections = Connections(dialler, timeout_s=timeout_s)

    def has_token(self, url: str) -> bool:
        """Whether a token would be sent to this address."""
        return self._credentials.for_url(urllib.parse.urlsplit(url)) is not None

    def get(self, url: str, headers: Mapping[str, str] | None = None, *, led_by: str | None = None) -> Answer:
        """Ask, and follow redirects; the caller reads or closes the answer. Raises `SourceFailed`.

        `led_by` is the address of a server that named this one, in an answer that was no redirect but means the same.
        """
        hops: list[tuple[int, Mapping[str, str]]] = []
        place = self._place(url, url)
        public_host = None
        if led_by is not None:
            public_host = _checked(shown(url), self._place(led_by, led_by), place, None)
        while True:
            answer = self._ask(url, place, headers or {})
            answer.hops = hops
            location = answer.headers.get("Location")
            if answer.status not in {301, 302, 303, 307, 308} or not location:
                return answer
            hops.append((answer.status, dict(answer.headers.items())))
            answer.text()
            if len(hops) > MAX_REDIRECTS:
                raise RedirectRefused(uri=shown(url), reason=f"more than {MAX_REDIRECTS} redirects")
            target = _joined(url, location)
            leading, place = place, self._place(target, url)
            public_host = _checked(shown(url), leading, place, public_host)
            url = target

    def close(self) -> None:
        """Close the connections that are idle."""
        self._connections.close()

    def _place(self, url: str, asked: str) -> Place:
        try:
            parts = urllib.parse.urlsplit(url)
            port = _origin(parts)[2]
        except ValueError as error:
            raise RedirectRefused(
                uri=shown(asked), reason=f"it leads to {shown(url)!r}, which is no address"
            ) from error
        if not parts.hostname or parts.scheme not in {"http", "https"}:
            raise RedirectRefused(uri=shown(asked), reason=f"it leads to {shown(url)!r}, which is not http or https")
        try:
            addresses = self._names.resolve(parts.hostname, port)
        except (OSError, UnicodeError) as error:
            raise unavailable(url, error) from error
        if any(map(is_link_local, addresses)):
            raise RedirectRefused(
                uri=shown(asked),
                reason=f"it leads to the link-local address of {parts.hostname}, where clouds keep keys",
            )
        place = Place(scheme=parts.scheme, host=parts.hostname, port=port, addresses=addresses)
        if self._public_only and not place.wholly_public:
            reason = f"it leads to the private address of {parts.hostname}, which jobs may not ask"
            raise RedirectRefused(uri=shown(asked), reason=reason)
        return place

    def _ask(self, url: str, place: Place, headers: Mapping[str, str]) -> Answer:
        parts = urllib.parse.urlsplit(url)
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        sent = {"User-Agent": f"comfypin/{__version__}", "Accept-Encoding": "identity", **headers}
        token = self._credentials.for_url(parts)
        if parts.username is not None:
            pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            sent["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif token:
            sent["Authorization"] = f"Bearer {token}"
        while True:
            connection, used_before = self._connections.take(place)
            try:
                connection.request("GET", _quoted(target), headers=sent)
                dialled = connection.sock
                answer = Answer(url, connection.getresponse(), place, connection, dialled=dialled)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if used_before and not isinstance(error, TimeoutError):
                    continue
                raise unavailable(url, error) from error
            except ValueError:
                connection.close()
                reason = "its address or its token holds what HTTP does not take"
                # The original quotes the header.
                raise SourceFailed(uri=shown(url), reason=reason) from None
            answer.lend_to(self._connections)
            return answer


def _origin(url: urllib.parse.SplitResult) -> tuple[str, str, int]:
    """The scheme, host and port of an address. Raises `ValueError`."""
    return url.scheme, url.hostname or "", url.port or {"https": 443, "http": 80}.get(url.scheme, 0)


def _joined(url: str, location: str) -> str:
    try:
        return urllib.parse.urljoin(url, location)
    except ValueError:
        return location


def _quoted(target: str) -> str:
    return urllib.parse.quote(target, safe="/?&=%:@!$'()*+,;~[]#-._")


def _checked(asked: str, leading: Place, target: Place, public_host: str | None) -> str | None:
    """The public host on the way so far. Raises `RedirectRefused` where one leads to a private address.

    A server on the public internet has no business in a private network, nor may one make us its messenger.
    """
    # A name with a public and a private address is a public one that wants to be taken for private.
    public_host = public_host or (leading.host if leading.partly_public else None)
    if public_host is not None and not target.wholly_public:
        reason = f"it redirects from the public host {public_host} to the private address of {target.host}"
        raise RedirectRefused(uri=asked, reason=reason)
    return public_host
