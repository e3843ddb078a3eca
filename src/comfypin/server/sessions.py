"""Remembers which browsers have signed in: a cookie holds a session, never the token itself."""

import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from comfypin.atomic_files import write_atomically

log = logging.getLogger(__name__)

# People keep the page open for weeks; signing in again each day makes them store the token.
SESSION_S = 30 * 86_400.0
# The link is printed to a log, which others may read later.
LINK_S = 3600.0
# A script that signs in each time must not fill the file; the oldest session goes.
_MOST_SESSIONS = 500


class Sessions:
    """The sessions of one server, kept in a file so that a restart signs nobody out.

    The file holds keyed digests only: reading it opens no session, and a new token ends all of them.
    """

    def __init__(self, path: Path, *, token: str, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._key = token.encode()
        self._clock = clock
        self._links: dict[str, float] = {}
        self._server_id, self._ends_at = _read_sessions(path)

    @property
    def cookie_name(self) -> str:
        """Return the cookie's name: cookies ignore ports, and a machine may run several servers."""
        return f"comfypin_{self._server_id}"

    def begin(self) -> str:
        """Begin a session and return what its cookie holds; writes a file, so call it in a thread."""
        session = secrets.token_urlsafe(32)
        now = self._clock()
        self._ends_at = {digest: ends_at for digest, ends_at in self._ends_at.items() if ends_at > now}
        while len(self._ends_at) >= _MOST_SESSIONS:
            self._ends_at.pop(next(iter(self._ends_at)))
        self._ends_at[self._digest(session)] = now + SESSION_S
        self._save()
        return session

    def end(self, session: str) -> None:
        """End a session; writes a file, so call it in a thread."""
        if self._ends_at.pop(self._digest(session), None) is not None:
            self._save()

    def is_open(self, session: str) -> bool:
        """Return whether a cookie's session has begun and not ended."""
        return self._ends_at.get(self._digest(session), 0.0) > self._clock()

    def make_link_code(self) -> str:
        """Return a code that signs one browser in, once, within the hour."""
        code = secrets.token_urlsafe(24)
        self._links[self._digest(code)] = self._clock() + LINK_S
        return code

    def redeem_link_code(self, code: str) -> bool:
        """Return whether a code signs in; it does so once."""
        return self._links.pop(self._digest(code), 0.0) > self._clock()

    def _digest(self, secret_text: str) -> str:
        return hmac.new(self._key, secret_text.encode(errors="replace"), hashlib.sha256).hexdigest()

    def _save(self) -> None:
        document = {"server": self._server_id, "sessions": self._ends_at}
        try:
            write_atomically(self._path, json.dumps(document).encode(), mode=0o600)
        except OSError as exc:
            # The session works until the next restart.
            log.warning("sessions not written", extra={"action": "sessions_not_written", "reason": str(exc)})


def _read_sessions(path: Path) -> tuple[str, dict[str, float]]:
    try:
        document = json.loads(path.read_bytes())
        ends_at = {str(digest): float(at) for digest, at in document["sessions"].items()}
        server_id = str(document["server"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return secrets.token_hex(4), {}
    return (server_id if server_id.isalnum() and server_id.isascii() else secrets.token_hex(4)), ends_at
