"""Keeps what is too large for the queue in a folder of the server that took the job, which workers reach over HTTP.

An address names the server, the job and a part, and that server has signed it:
<server>/fleet-bodies/<job>/<part>?<signature>.
Servers ask only servers that the queue knows: records are written by workers too, and could name any host.
"""

import contextlib
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.http.client import HttpClient
from comfypin.http.errors import HttpError
from comfypin.machine_errors import reason_of
from comfypin.queue.nats.errors import BodyOutOfReach

PATH = "/fleet-bodies"
_JOB = re.compile(r"[A-Za-z0-9_-]{1,80}")
_PART = re.compile(r"[0-9a-f]{12}")
_ADDRESS = re.compile(
    rf"(?P<server>https?://[^?#]+){PATH}/(?P<job>[^/?#]+)/(?P<part>[^/?#]+)\?(?P<signature>[0-9a-f]+)"
)
_LARGEST_BYTES = 256 << 20


class RemoteBodies:
    """Implements `Depot` for workers: they put a result where the job's server said, and read from where it says."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def upload_of(self, job_id: str) -> str | None:
        """Return None: a worker keeps nothing for others."""
        return None

    def address_of(self, key: str, upload: str | None) -> str | None:
        """Return where a body of this key goes: below the address that the job's server gave for uploads."""
        if upload is None:
            return None
        below, _, signature = upload.partition("?")
        return f"{below}/{key.rpartition('.')[2]}?{signature}"

    def put(self, address: str, data: bytes) -> None:
        """Send a body to its server. Raises `BodyOutOfReach`."""
        self._ask("PUT", address, data)

    def get(self, address: str) -> bytes:
        """Return a body. Raises `BodyOutOfReach`."""
        return self._ask("GET", address)

    def remove(self, address: str) -> None:
        """Have the server remove a body. Raises `BodyOutOfReach`."""
        self._ask("DELETE", address)

    def _ask(self, method: str, address: str, data: bytes | None = None) -> bytes:
        server = address.partition(PATH)[0]
        try:
            # No redirect: the address is signed, and the guard has judged this server only.
            response = self._client.request(method, address, body=data, max_redirects=0)
            content = response.read_bytes(_LARGEST_BYTES)
        except HttpError as exc:
            raise BodyOutOfReach(server=server, reason=exc.reason) from exc
        if response.status >= 300:
            raise BodyOutOfReach(server=server, reason=f"it answered {response.status}")
        return content


@dataclass(frozen=True, slots=True)
class _BodyAddress:
    server: str
    job_id: str
    part: str
    signature: str


class ServerBodies(RemoteBodies):
    """Implements `Depot` for a server, in its own folder. `own_url` is where others reach it, `secret` signs."""

    def __init__(self, client: HttpClient, folder: Path, *, own_url: str, secret: bytes) -> None:
        super().__init__(client)
        self._folder = folder
        self.own_url = own_url.rstrip("/")
        self._secret = secret
        self.knows_server: Callable[[str], bool] = lambda _server: False

    def upload_of(self, job_id: str) -> str | None:
        """Return below which address a worker may put what the job makes."""
        return f"{self.own_url}{PATH}/{job_id}?{self._sign(job_id)}" if _JOB.fullmatch(job_id) else None

    def address_of(self, key: str, upload: str | None) -> str | None:
        """Return the address of a body of this key, here."""
        return super().address_of(key, self.upload_of(key.rpartition(".")[0]))

    def put(self, address: str, data: bytes) -> None:
        """Keep a body, here or at another server. Raises `BodyOutOfReach`."""
        if (path := self._own_path(address)) is None:
            super().put(address, data)
        else:
            self.write(path, data)

    def get(self, address: str) -> bytes:
        """Return a body. Raises `BodyOutOfReach`."""
        if (path := self._own_path(address)) is None:
            return super().get(address)
        try:
            return path.read_bytes()
        except OSError as exc:
            raise BodyOutOfReach(server=self.own_url, reason=reason_of(exc)) from exc

    def remove(self, address: str) -> None:
        """Remove a body. Raises `BodyOutOfReach`."""
        if (path := self._own_path(address)) is None:
            super().remove(address)
        else:
            path.unlink(missing_ok=True)

    def write(self, path: Path, data: bytes) -> None:
        """Write a body whole. Raises `BodyOutOfReach`."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, data, mode=0o600)
        except OSError as exc:
            raise BodyOutOfReach(server=self.own_url, reason=reason_of(exc)) from exc

    def sweep_leftovers(self) -> None:
        """Remove the halves of bodies that a killed server left; for its start, when nobody writes."""
        for leftover in self._folder.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                leftover.unlink()

    def path_of(self, job_id: str, part: str, signature: str) -> Path | None:
        """Return the file of a body if the signature is ours."""
        # Both become a file's name.
        if not _JOB.fullmatch(job_id) or not _PART.fullmatch(part):
            return None
        # In constant time, so that a signature cannot be guessed digit by digit.
        if not hmac.compare_digest(signature.encode(), self._sign(job_id).encode()):
            return None
        return self._folder / f"{job_id}.{part}"

    def _own_path(self, address: str) -> Path | None:
        """Return the file of an address of this server, None for one of another. Raises `BodyOutOfReach`."""
        body_place = _parse(address)
        # By the signature, not by the host: what was kept under another --body-url is still here, and goes from here.
        path = self.path_of(body_place.job_id, body_place.part, body_place.signature)
        if path is not None:
            return path
        if body_place.server == self.own_url:
            raise BodyOutOfReach(server=self.own_url, reason="its signature is another's")
        if not self.knows_server(body_place.server):
            raise BodyOutOfReach(server=body_place.server, reason="it is no server of this fleet")
        return None

    def _sign(self, job_id: str) -> str:
        # Forty digits are 160 bits, enough for an address that lasts as long as a job.
        return hmac.new(self._secret, job_id.encode(), hashlib.sha256).hexdigest()[:40]


def _parse(address: str) -> _BodyAddress:
    parsed = _ADDRESS.fullmatch(address)
    # Asked of another server, too: dots and slashes would lead out of its folder of bodies.
    if parsed is None or not _JOB.fullmatch(parsed["job"]) or not _PART.fullmatch(parsed["part"]):
        raise BodyOutOfReach(server="?", reason="its address is none of a server")
    return _BodyAddress(parsed["server"], parsed["job"], parsed["part"], parsed["signature"])
