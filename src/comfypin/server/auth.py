"""Decides who may ask a server what: a token or a session, no foreign pages, no body over the limit."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfypin.server.comfy_api.envelope import UPLOAD_PATH, speaks_envelope, to_envelope
from comfypin.server.errors import BodyTooBig
from comfypin.server.responses import JsonResponse, failure_response
from comfypin.server.sessions import Sessions

OPEN_PATHS = frozenset({"/ping"})
PAGE_FILES = "/page/"
FLEET_BODIES = "/fleet-bodies/"
# For whoever is behind a gateway that wants a key of its own in Authorization, as Runpod's load balancers do.
GATE_HEADER = "X-Comfypin-Token"
SESSION_PATH = "/session"
_LOOKS = ("GET", "HEAD")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HTTP_VERSIONS = frozenset({"1.0", "1.1"})
_HOW_TO_ENTER = (
    f"send it in a header, as curl -H 'Authorization: Bearer TOKEN' does (or {GATE_HEADER}: TOKEN), or open the "
    "server's address in a browser and sign in with it: whoever started the server has the token"
)
_MAX_DRAINED_LIMITS = 4  # as a multiple of the body limit


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """Rules for requests: the token (None: open to this machine alone) and the largest body, and that of an upload.

    None as `max_upload_bytes`: there are no uploads. `sessions` are those of browsers that signed in with the token.
    """

    token: str | None
    max_body_bytes: int
    max_upload_bytes: int | None = None
    sessions: Sessions | None = None

    def limit_bytes(self, method: str, path: str) -> int:
        """Return how large the body of a request may be."""
        if self.max_upload_bytes is not None and method == "POST" and path == UPLOAD_PATH:
            return self.max_upload_bytes
        return self.max_body_bytes

    def is_token(self, token: str) -> bool:
        """Return whether this is the token."""
        # Constant time: a comparison that stops at the first difference tells the token letter by letter.
        return hmac.compare_digest(token.encode(errors="replace"), (self.token or "").encode())

    def session_in(self, cookies: str) -> str | None:
        """Return the open session that a Cookie header holds, or None."""
        if self.sessions is None:
            return None
        for pair in cookies.split(";"):
            cookie_name, _, session = pair.strip().partition("=")
            if cookie_name == self.sessions.cookie_name and self.sessions.is_open(session):
                return session
        return None


class Gate:
    """Middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, rules: AccessRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may come in, and answer the rest."""
        # Everything else is the server's own start and stop.
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Headers are bytes; latin-1 maps each of them to one character.
        request_headers = {
            header_name.decode("latin-1"): value.decode("latin-1") for header_name, value in scope["headers"]
        }
        refusal = _find_misframing(scope["http_version"], request_headers) or self._find_refusal(
            scope["method"], scope["path"], request_headers
        )
        if refusal is not None:
            # Many clients send the whole body before they read a response; they would see a reset connection only.
            if refusal.status_code == 413 and self._is_worth_draining(request_headers):
                await self._drain_body(receive)
            if speaks_envelope(scope["path"]):
                refusal = to_envelope(refusal)
            await refusal(scope, receive, send)
            return
        limit_bytes = self._rules.limit_bytes(scope["method"], scope["path"])
        await self._app(scope, self._limit_body(receive, limit_bytes), send)

    def _find_refusal(self, method: str, path: str, request_headers: Mapping[str, str]) -> JsonResponse | None:
        if not self._may_enter(method, path, request_headers):
            refusal = failure_response(401, f"{_describe_entry(method, request_headers)}; {_HOW_TO_ENTER}.")
            refusal.headers.append("WWW-Authenticate", 'Bearer realm="comfypin"')
            # A line of its own, since Chromium reads only the first scheme of a line. Not for the page's own requests:
            # a browser would ask for a password on top of the page that does so itself.
            if request_headers.get("sec-fetch-dest") != "empty":
                refusal.headers.append("WWW-Authenticate", 'Basic realm="comfypin"')
            return refusal
        # Browsers let any page send requests to localhost; a token alone would not stop cached credentials.
        if self._is_foreign_page(request_headers):
            return failure_response(403, "Pages of other sites may not use this server.")
        length = request_headers.get("content-length", "")
        limit_bytes = self._rules.limit_bytes(method, path)
        if length.isdigit() and int(length) > limit_bytes:
            return failure_response(413, BodyTooBig(limit_bytes=limit_bytes).message, headers={"Connection": "close"})
        return None

    def _may_enter(self, method: str, path: str, request_headers: Mapping[str, str]) -> bool:
        if self._rules.token is None or is_open_path(method, path, request_headers.get("accept", "")):
            return True
        return self._shows_token(method, request_headers) or self._has_session(method, request_headers)

    def _has_session(self, method: str, request_headers: Mapping[str, str]) -> bool:
        if self._rules.session_in(request_headers.get("cookie", "")) is None:
            return False
        asking_site = request_headers.get("sec-fetch-site")
        if method in _LOOKS:
            # Another port of this machine is the same site, and would be sent the cookie.
            is_own = asking_site in (None, "same-origin", "none")
            return is_own or request_headers.get("sec-fetch-mode") == "navigate"
        # A browser names one of the two with every request that changes something.
        return asking_site == "same-origin" or (asking_site is None and "origin" in request_headers)

    def _shows_token(self, method: str, request_headers: Mapping[str, str]) -> bool:
        if (shown_token := request_headers.get(GATE_HEADER.lower())) is not None:
            # Authorization is the gateway's then. No page of another site can send this header: there is no CORS.
            return self._rules.is_token(shown_token.strip())
        authorization = request_headers.get("authorization", "")
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() == "basic":
            # Browsers send these along from any page, so they may only look.
            return method in _LOOKS and self._rules.is_token(_decode_password(credentials))
        return self._rules.is_token(credentials.strip() if scheme.lower() == "bearer" else authorization.strip())

    def _is_foreign_page(self, request_headers: Mapping[str, str]) -> bool:
        """Return whether another site's page asks; without a token, also whether a name was rebound to this machine."""
        host = request_headers.get("host", "")
        origin = request_headers.get("origin")
        try:
            # A proxy may have put its own name into Host; a page cannot write Sec-Fetch-Site.
            is_own = request_headers.get("sec-fetch-site") == "same-origin"
            if origin is not None and urlsplit(origin).netloc != host and not is_own:
                return True
            return self._rules.token is None and (urlsplit(f"//{host}").hostname or "") not in _LOOPBACK
        except ValueError:
            return True  # `http://[`: no site at all

    def _is_worth_draining(self, request_headers: Mapping[str, str]) -> bool:
        """Return whether to let a body that is too big arrive before the response is sent.

        Not if the client waits for our `100 Continue`, and not if the body is far too big.
        """
        return (
            "expect" not in request_headers
            and int(request_headers["content-length"]) <= _MAX_DRAINED_LIMITS * self._rules.max_body_bytes
        )

    async def _drain_body(self, receive: Receive) -> None:
        """Let a body that is a little too big arrive, and drop it: many clients read the response only then."""
        # Not without end: a client that never stops is cut off.
        left_bytes = _MAX_DRAINED_LIMITS * self._rules.max_body_bytes
        while left_bytes > 0:
            message = await receive()
            left_bytes -= len(message.get("body", b""))
            if not message.get("more_body"):
                return

    def _limit_body(self, receive: Receive, limit_bytes: int) -> Receive:
        taken_bytes = 0

        async def receive_limited() -> Message:
            nonlocal taken_bytes
            message = await receive()
            taken_bytes += len(message.get("body", b""))
            if taken_bytes > limit_bytes:
                raise BodyTooBig(limit_bytes=limit_bytes)
            return message

        return receive_limited


def is_open_path(method: str, path: str, accept: str) -> bool:
    """Return whether a request needs no token: a health check, the page's own files, or signing in with it."""
    # What a fleet's servers keep for its workers is at addresses that are signed.
    if path in OPEN_PATHS or path == SESSION_PATH or path.startswith(FLEET_BODIES):
        return True
    return method in _LOOKS and (path.startswith(PAGE_FILES) or (path == "/" and asks_for_page(accept)))


def asks_for_page(accept: str) -> bool:
    """Return whether an Accept header is that of a browser that opens an address."""
    return "text/html" in accept.lower()


def _describe_entry(method: str, request_headers: Mapping[str, str]) -> str:
    """Return what is wrong with the token that a request shows, if it shows one."""
    if GATE_HEADER.lower() in request_headers:
        return f"{GATE_HEADER} does not hold this server's token"
    authorization = request_headers.get("authorization", "").lower()
    if not authorization:
        return "This server wants its token"
    if authorization.startswith("basic ") and method not in _LOOKS:
        return "A token that is sent as a password may only read"
    return "Authorization does not hold this server's token"


def _find_misframing(http_version: str, request_headers: Mapping[str, str]) -> JsonResponse | None:
    """Return the refusal of a request whose end a proxy before us may have seen elsewhere, or None.

    With a length and chunks, one of us may take for a second request what the other takes for a body
    (https://www.rfc-editor.org/rfc/rfc9112#section-6.1).
    """
    if http_version not in _HTTP_VERSIONS:
        return failure_response(400, "The server speaks HTTP/1.1.", headers={"Connection": "close"})
    if "transfer-encoding" in request_headers and ("content-length" in request_headers or http_version == "1.0"):
        reason = "Transfer-Encoding stands beside Content-Length, or in HTTP/1.0; send one of the two."
        return failure_response(400, reason, headers={"Connection": "close"})
    return None


def _decode_password(base64_text: str) -> str:
    try:
        return base64.b64decode(base64_text, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
