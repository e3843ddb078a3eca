"""One repository of a registry, spoken to directly: manifests and small blobs.

Shapes: https://github.com/opencontainers/distribution-spec/blob/main/spec.md; logging in:
https://distribution.github.io/distribution/spec/auth/token/
"""

import base64
import hashlib
import json
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.http.client import HttpClient, HttpTransport
from comfypin.http.deadline import Deadline
from comfypin.http.errors import HttpError
from comfypin.http.patient import TRANSIENT_STATUSES, is_transient
from comfypin.http.proxies import Proxies
from comfypin.http.sockets import tls_context
from comfypin.image.errors import AttachFailed, LoginRefused
from comfypin.image.image_names import is_local, path_of, registry_of
from comfypin.image.registry_login import Credential, advice
from comfypin.retry import Retry, RetryPolicy, parse_retry_after

MANIFEST, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_ACCEPTED = ", ".join((MANIFEST, INDEX, _DOCKER_MANIFEST, _DOCKER_LIST))
_MAX_BYTES = 16 << 20
_WORDS = re.compile(r'(\w+)="([^"]*)"')
# A registry's limits count in windows of minutes; an upload waits for one, not for the next day's.
REGISTRY_RETRIES = RetryPolicy(retries=5, base_s=0.5, longest_s=20.0, longest_asked_s=120.0)
_REQUEST_S = 180.0
# Where docker keeps the certificate authority of a registry of one's own.
_CERTIFICATES = Path("/etc/docker/certs.d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest as the registry has it."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        """Its name by content."""
        return sha256_of(self.data)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    data: bytes


class _Busy(HttpError):
    """An answer that another one may follow."""

    def __init__(self, answer: _Answer) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer
        self.retry_after_s = parse_retry_after(answer.headers.get("Retry-After"))


@dataclass(slots=True, kw_only=True)
class Repository:
    """The repository of a reference. Every method raises `LoginRefused` and `AttachFailed`."""

    reference: str
    credential: Credential | None = None
    retry_policy: RetryPolicy = REGISTRY_RETRIES
    proxies: Proxies = field(default_factory=Proxies)
    _origin: str = field(default="", init=False)
    _authorization: str | None = field(default=None, init=False, repr=False)
    _client: HttpClient = field(init=False, repr=False)

    def __post_init__(self) -> None:
        host = registry_of(self.reference)
        served_by = "registry-1.docker.io" if host == "docker.io" else host
        authorities = tuple(sorted((_CERTIFICATES / host).glob("*.crt")))
        transport = HttpTransport(proxies=self.proxies, tls=lambda: tls_context(authorities), timeout_s=60.0)
        self._client = HttpClient(transport=transport)
        # As docker does: a registry on this machine itself may speak plain HTTP.
        self._origin = f"{'http' if is_local(self.reference) else 'https'}://{served_by}"

    def manifest(self, name: str) -> Manifest | None:
        """The manifest under a tag or digest; None where there is none."""
        answer = self._ask("GET", f"manifests/{name}", headers={"Accept": _ACCEPTED}, allowed=(200, 404))
        if answer.status == 404:
            return None
        media_type = answer.headers.get("Content-Type", MANIFEST).partition(";")[0]
        return Manifest(media_type=media_type, data=answer.data)

    def put_manifest(self, name: str, manifest: Manifest) -> Mapping[str, str]:
        """Store a manifest under a tag or its digest; the answer's headers."""
        headers = {"Content-Type": manifest.media_type}
        return self._ask("PUT", f"manifests/{name}", headers=headers, body=manifest.data, allowed=(201,)).headers

    def put_blob(self, data: bytes) -> str:
        """Store a small blob, if it is not there yet; its digest."""
        digest = sha256_of(data)
        if self._ask("HEAD", f"blobs/{digest}", allowed=(200, 404)).status == 404:
            begun = self._ask("POST", "blobs/uploads/", allowed=(202,))
            place = urllib.parse.urljoin(f"{self._origin}/", begun.headers.get("Location", ""))
            where = f"{place}{'&' if '?' in place else '?'}digest={urllib.parse.quote(digest)}"
            self._ask("PUT", where, headers={"Content-Type": "application/octet-stream"}, body=data, allowed=(201,))
        return digest

    def _ask(
        self,
        method: str,
        path: str,
        *,
        allowed: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> _Answer:
        url = path if "://" in path else f"{self._origin}/v2/{path_of(self.reference)}/{path}"
        answer = self._send(method, url, headers or {}, body)
        if answer.status == 401 and self._is_own(url):
            self._authorization = self._log_in(answer.headers.get("WWW-Authenticate", ""))
            answer = self._send(method, url, headers or {}, body)
        if answer.status in {401, 403}:
            raise self._refused()
        if answer.status not in allowed:
            raise AttachFailed(reference=self.reference, reason=_said(answer))
        return answer

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> _Answer:
        # What takes the bytes may be another host, which the login is not for.
        own = {"Authorization": self._authorization} if self._authorization and self._is_own(url) else {}
        try:
            return self._asked(method, url, {**headers, **own}, body)
        except HttpError as error:
            raise AttachFailed(reference=self.reference, reason=error.reason) from error

    def _is_own(self, url: str) -> bool:
        return url.startswith(f"{self._origin}/")

    def _asked(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> _Answer:
        """Return the answer, which is the last one where the registry stays busy. Raises `HttpError`."""

        def ask() -> _Answer:
            response = self._client.request(
                method, url, headers=headers, body=body, max_redirects=3, deadline=Deadline(_REQUEST_S)
            )
            data = response.read_bytes(_MAX_BYTES + 1)
            if len(data) > _MAX_BYTES:
                raise HttpError("its answer is larger than a manifest may be", is_transient=False)
            answer = _Answer(response.status, response.headers, data)
            if answer.status in TRANSIENT_STATUSES:
                raise _Busy(answer)
            return answer

        try:
            return Retry(policy=self.retry_policy, on=HttpError, when=is_transient).call(ask)
        except _Busy as busy:
            return busy.answer

    def _log_in(self, challenge: str) -> str:
        """What to send from here on: the credential itself, or the token that the registry's own realm gives for it."""
        scheme = challenge.partition(" ")[0].lower()
        basic = None
        if self.credential is not None:
            pair = f"{self.credential.username}:{self.credential.password}".encode()
            basic = f"Basic {base64.b64encode(pair).decode()}"
        if scheme == "basic" and basic is not None:
            return basic
        words = dict(_WORDS.findall(challenge))
        realm = words.get("realm", "")
        if scheme != "bearer" or not (realm.startswith("https://") or self._origin.startswith("http://")):
            raise self._refused()
        scope = f"repository:{path_of(self.reference)}:pull,push"
        query = urllib.parse.urlencode({"service": words.get("service", ""), "scope": scope})
        try:
            answer = self._asked("GET", f"{realm}?{query}", {"Authorization": basic} if basic else {}, None)
            said = json.loads(answer.data) if answer.status == 200 else {}
        except (HttpError, ValueError) as error:
            raise AttachFailed(reference=self.reference, reason=f"its login {realm} fails ({error})") from error
        token = said.get("token") or said.get("access_token") if isinstance(said, dict) else None
        if answer.status >= 500:
            raise AttachFailed(reference=self.reference, reason=f"its login {realm} fails: {_said(answer)}")
        if not isinstance(token, str):
            raise self._refused()
        return f"Bearer {token}"

    def _refused(self) -> LoginRefused:
        registry = registry_of(self.reference)
        source = self.credential.source if self.credential is not None else advice(registry)
        return LoginRefused(registry=registry, source=source)


def sha256_of(data: bytes) -> str:
    """Its name by content, as registries write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _said(answer: _Answer) -> str:
    """An answer that is an error, in one line."""
    text = " ".join(answer.data[:400].decode(errors="replace").split())
    return f"HTTP {answer.status}{f', {text}' if text else ''}"
