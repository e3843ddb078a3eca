"""One repository of a registry, spoken to directly: manifests and small blobs.

Shapes: https://github.com/opencontainers/distribution-spec/blob/main/spec.md; logging in:
https://distribution.github.io/distribution/spec/auth/token/
"""

import base64
import hashlib
import json
import re
import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from comfypin import __version__
from comfypin.errors.image import AttachFailed, LoginRefused
from comfypin.image.names import is_local, path_of, registry_of
from comfypin.image.registry import Credential, advice

MANIFEST, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_ACCEPTED = ", ".join((MANIFEST, INDEX, _DOCKER_MANIFEST, _DOCKER_LIST))
_MAX_BYTES = 16 << 20
_WORDS = re.compile(r'(\w+)="([^"]*)"')
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


@dataclass(slots=True, kw_only=True)
class Repository:
    """The repository of a reference. Every method raises `LoginRefused` and `AttachFailed`."""

    reference: str
    credential: Credential | None = None
    retries: int = 5
    backoff_s: float = 0.5
    _origin: str = field(default="", init=False)
    _authorization: str | None = field(default=None, init=False, repr=False)
    _pool: urllib3.PoolManager = field(init=False, repr=False)

    def __post_init__(self) -> None:
        host = registry_of(self.reference)
        served_by = "registry-1.docker.io" if host == "docker.io" else host
        context = ssl.create_default_context()
        for path in sorted((_CERTIFICATES / host).glob("*.crt")):
            context.load_verify_locations(path)
        statuses = (408, 429, 500, 502, 503, 504)
        patience = urllib3.Retry(
            total=self.retries,
            redirect=3,
            backoff_factor=self.backoff_s,
            backoff_max=20,
            status_forcelist=statuses,
            allowed_methods=None,
            raise_on_status=False,
            respect_retry_after_header=False,
        )
        timeout = urllib3.Timeout(connect=10, read=60)
        self._pool = urllib3.PoolManager(
            retries=patience, timeout=timeout, ssl_context=context, headers={"User-Agent": f"comfypin/{__version__}"}
        )
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
        if answer.status == 401 and url.startswith(f"{self._origin}/"):
            self._authorization = self._log_in(answer.headers.get("WWW-Authenticate", ""))
            answer = self._send(method, url, headers or {}, body)
        if answer.status in {401, 403}:
            raise self._refused()
        if answer.status not in allowed:
            raise AttachFailed(reference=self.reference, reason=_said(answer))
        return answer

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> _Answer:
        own = {"Authorization": self._authorization} if self._authorization else {}
        # What takes the bytes may be another host, which the login is not for.
        sent = {**self._pool.headers, **headers, **(own if url.startswith(f"{self._origin}/") else {})}
        try:
            answer = self._pool.request(method, url, headers=sent, body=body, preload_content=False)
            data = answer.read(_MAX_BYTES + 1, decode_content=True)
            answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            reason = str(getattr(error, "reason", None) or error)
            raise AttachFailed(reference=self.reference, reason=reason) from error
        if len(data) > _MAX_BYTES:
            raise AttachFailed(reference=self.reference, reason="its answer is larger than a manifest may be")
        return _Answer(answer.status, answer.headers, data)

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
            answer = self._pool.request("GET", f"{realm}?{query}", headers={"Authorization": basic} if basic else {})
            said = json.loads(answer.data) if answer.status == 200 else {}
        except (urllib3.exceptions.HTTPError, ValueError) as error:
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


def _said(answer: _Answer | urllib3.BaseHTTPResponse) -> str:
    """An answer that is an error, in one line."""
    text = " ".join(answer.data[:400].decode(errors="replace").split())
    return f"HTTP {answer.status}{f', {text}' if text else ''}"
