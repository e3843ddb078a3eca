"""Talks to one repository of a registry: manifests and small blobs.

Requests: https://github.com/opencontainers/distribution-spec/blob/main/spec.md; logging in:
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

from comfypin.http.client import HttpClient, Transport
from comfypin.http.deadline import Deadline
from comfypin.http.errors import HttpError
from comfypin.http.patient import TRANSIENT_STATUSES, is_transient
from comfypin.http.proxies import Proxies
from comfypin.http.sockets import tls_context
from comfypin.image.errors import AttachFailed, LoginRefused
from comfypin.image.image_names import is_local_registry, registry_host, repository_path
from comfypin.image.registry_login import Credential, login_advice
from comfypin.retry import Retry, RetryPolicy, parse_retry_after

MANIFEST, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_ACCEPTED = ", ".join((MANIFEST, INDEX, _DOCKER_MANIFEST, _DOCKER_LIST))
# The specification asks registries to accept manifests of 4 MiB; a much larger answer is something else.
_MAX_BYTES = 16 << 20
_CHALLENGE_WORDS = re.compile(r'(\w+)="([^"]*)"')
# A registry's limits count in windows of minutes; an upload waits for one, not for the next day's.
REGISTRY_RETRIES = RetryPolicy(retries=5, base_s=0.5, longest_s=20.0, longest_asked_s=120.0)
_REQUEST_S = 180.0
# Where docker keeps the certificate authority of a registry of one's own.
_CERTIFICATES = Path("/etc/docker/certs.d")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageManifest:
    """Holds a manifest as the registry has it."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        """Return the digest of its content."""
        return sha256_digest(self.data)


@dataclass(frozen=True, slots=True)
class _RegistryResponse:
    status: int
    headers: Mapping[str, str]
    data: bytes


class _RegistryBusy(HttpError):
    """Carries a response after which another try may succeed."""

    def __init__(self, answer: _RegistryResponse) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.response = answer
        self.retry_after_s = parse_retry_after(answer.headers.get("Retry-After"))


@dataclass(slots=True, kw_only=True)
class ImageRepository:
    """Reads and writes the repository of a reference. Every method raises `LoginRefused` and `AttachFailed`."""

    reference: str
    credential: Credential | None = None
    retry_policy: RetryPolicy = REGISTRY_RETRIES
    proxies: Proxies = field(default_factory=Proxies)
    _origin: str = field(default="", init=False)
    _authorization: str | None = field(default=None, init=False, repr=False)
    _client: HttpClient = field(init=False, repr=False)

    def __post_init__(self) -> None:
        host = registry_host(self.reference)
        served_by = "registry-1.docker.io" if host == "docker.io" else host
        authorities = tuple(sorted((_CERTIFICATES / host).glob("*.crt")))
        transport = Transport(proxies=self.proxies, tls=lambda: tls_context(authorities), timeout_s=60.0)
        self._client = HttpClient(transport=transport)
        # As docker does: a registry on this machine itself may speak plain HTTP.
        self._origin = f"{'http' if is_local_registry(self.reference) else 'https'}://{served_by}"

    def read_manifest(self, name: str) -> ImageManifest | None:
        """Return the manifest under a tag or digest, or None if there is none."""
        answer = self._request_allowed("GET", f"manifests/{name}", headers={"Accept": _ACCEPTED}, allowed=(200, 404))
        if answer.status == 404:
            return None
        media_type = answer.headers.get("Content-Type", MANIFEST).partition(";")[0]
        return ImageManifest(media_type=media_type, data=answer.data)

    def put_manifest(self, name: str, manifest: ImageManifest) -> Mapping[str, str]:
        """Store a manifest under a tag or its digest; return the response's headers."""
        headers = {"Content-Type": manifest.media_type}
        return self._request_allowed(
            "PUT", f"manifests/{name}", headers=headers, body=manifest.data, allowed=(201,)
        ).headers

    def put_blob(self, data: bytes) -> str:
        """Store a small blob unless it is there already; return its digest."""
        digest = sha256_digest(data)
        if self._request_allowed("HEAD", f"blobs/{digest}", allowed=(200, 404)).status == 404:
            # Two steps, because not every registry accepts a blob in one POST.
            begun = self._request_allowed("POST", "blobs/uploads/", allowed=(202,))
            place = urllib.parse.urljoin(f"{self._origin}/", begun.headers.get("Location", ""))
            # The Location may have a query of its own.
            where = f"{place}{'&' if '?' in place else '?'}digest={urllib.parse.quote(digest)}"
            self._request_allowed(
                "PUT", where, headers={"Content-Type": "application/octet-stream"}, body=data, allowed=(201,)
            )
        return digest

    def _request_allowed(
        self,
        method: str,
        path: str,
        *,
        allowed: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> _RegistryResponse:
        url = path if "://" in path else f"{self._origin}/v2/{repository_path(self.reference)}/{path}"
        answer = self._send_authorized(method, url, headers or {}, body)
        # Tokens expire, so the login is done when the registry asks, not ahead of time.
        if answer.status == 401 and self._is_own_url(url):
            self._authorization = self._log_in(answer.headers.get("WWW-Authenticate", ""))
            answer = self._send_authorized(method, url, headers or {}, body)
        if answer.status in {401, 403}:
            raise self._login_refused()
        if answer.status not in allowed:
            raise AttachFailed(reference=self.reference, reason=_describe_response(answer))
        return answer

    def _send_authorized(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> _RegistryResponse:
        # What takes the bytes may be another host, which the login is not for.
        own = {"Authorization": self._authorization} if self._authorization and self._is_own_url(url) else {}
        try:
            return self._request_with_retries(method, url, {**headers, **own}, body)
        except HttpError as error:
            raise AttachFailed(reference=self.reference, reason=error.reason) from error

    def _is_own_url(self, url: str) -> bool:
        return url.startswith(f"{self._origin}/")

    def _request_with_retries(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> _RegistryResponse:
        """Return the response, the last one if the registry stays busy. Raises `HttpError`."""

        def request_once() -> _RegistryResponse:
            response = self._client.request(
                method, url, headers=headers, body=body, max_redirects=3, deadline=Deadline(_REQUEST_S)
            )
            data = response.body(_MAX_BYTES + 1)
            if len(data) > _MAX_BYTES:
                raise HttpError("its response is too large for a manifest", is_transient=False)
            answer = _RegistryResponse(response.status, response.headers, data)
            if answer.status in TRANSIENT_STATUSES:
                raise _RegistryBusy(answer)
            return answer

        try:
            return Retry(policy=self.retry_policy, on=HttpError, when=is_transient).call(request_once)
        except _RegistryBusy as busy:
            return busy.response

    def _log_in(self, challenge: str) -> str:
        """Return the Authorization to send from here on: the credential, or the token that the realm gives for it."""
        scheme = challenge.partition(" ")[0].lower()
        basic = None
        if self.credential is not None:
            pair = f"{self.credential.username}:{self.credential.password}".encode()
            basic = f"Basic {base64.b64encode(pair).decode()}"
        if scheme == "basic" and basic is not None:
            return basic
        words = dict(_CHALLENGE_WORDS.findall(challenge))
        realm = words.get("realm", "")
        # A realm over plain HTTP would get the password in the clear.
        if scheme != "bearer" or not (realm.startswith("https://") or self._origin.startswith("http://")):
            raise self._login_refused()
        scope = f"repository:{repository_path(self.reference)}:pull,push"
        query = urllib.parse.urlencode({"service": words.get("service", ""), "scope": scope})
        try:
            answer = self._request_with_retries(
                "GET", f"{realm}?{query}", {"Authorization": basic} if basic else {}, None
            )
            said = json.loads(answer.data) if answer.status == 200 else {}
        except (HttpError, ValueError) as error:
            raise AttachFailed(reference=self.reference, reason=f"its login {realm} fails ({error})") from error
        # Docker's specification says `token`, OAuth says `access_token`; registries send either.
        token = said.get("token") or said.get("access_token") if isinstance(said, dict) else None
        if answer.status >= 500:
            raise AttachFailed(
                reference=self.reference, reason=f"its login {realm} fails: {_describe_response(answer)}"
            )
        if not isinstance(token, str):
            raise self._login_refused()
        return f"Bearer {token}"

    def _login_refused(self) -> LoginRefused:
        registry = registry_host(self.reference)
        source = self.credential.source if self.credential is not None else login_advice(registry)
        return LoginRefused(registry=registry, source=source)


def sha256_digest(data: bytes) -> str:
    """Return the digest of some content, as registries write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _describe_response(answer: _RegistryResponse) -> str:
    """Return an error response as one line."""
    text = " ".join(answer.data[:400].decode(errors="replace").split())
    return f"HTTP {answer.status}{f', {text}' if text else ''}"
