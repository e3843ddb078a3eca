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

from comfypin.http.client import HttpClient, HttpTransport
from comfypin.http.deadline import Deadline
from comfypin.http.errors import HttpError
from comfypin.http.proxies import Proxies
from comfypin.http.read_with_retries import TRANSIENT_STATUSES, is_transient
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
# Registries may answer only after they have hashed a layer of gigabytes.
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

    def __init__(self, response: _RegistryResponse) -> None:
        super().__init__(f"HTTP {response.status}")
        self.response = response
        self.retry_after_s = parse_retry_after(response.headers.get("Retry-After"))


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
        registry_name = registry_host(self.reference)
        served_by = "registry-1.docker.io" if registry_name == "docker.io" else registry_name
        authority_files = tuple(sorted((_CERTIFICATES / registry_name).glob("*.crt")))
        transport = HttpTransport(proxies=self.proxies, tls=lambda: tls_context(authority_files), timeout_s=60.0)
        self._client = HttpClient(transport=transport)
        # As docker does: a registry on this machine itself may speak plain HTTP.
        self._origin = f"{'http' if is_local_registry(self.reference) else 'https'}://{served_by}"

    def read_manifest(self, manifest_name: str) -> ImageManifest | None:
        """Return the manifest under a tag or digest, or None."""
        response = self._request_allowed(
            "GET", f"manifests/{manifest_name}", headers={"Accept": _ACCEPTED}, allowed=(200, 404)
        )
        if response.status == 404:
            return None
        media_type = response.headers.get("Content-Type", MANIFEST).partition(";")[0]
        return ImageManifest(media_type=media_type, data=response.data)

    def put_manifest(self, manifest_name: str, manifest: ImageManifest) -> Mapping[str, str]:
        """Store a manifest under a tag or its digest; return the response's headers."""
        headers = {"Content-Type": manifest.media_type}
        return self._request_allowed(
            "PUT", f"manifests/{manifest_name}", headers=headers, request_body=manifest.data, allowed=(201,)
        ).headers

    def put_blob(self, content: bytes) -> str:
        """Store a small blob unless it is there already; return its digest."""
        content_digest = sha256_digest(content)
        if self._request_allowed("HEAD", f"blobs/{content_digest}", allowed=(200, 404)).status == 404:
            # Two steps, because not every registry accepts a blob in one POST.
            upload_started = self._request_allowed("POST", "blobs/uploads/", allowed=(202,))
            upload_url = urllib.parse.urljoin(f"{self._origin}/", upload_started.headers.get("Location", ""))
            # The Location may have a query of its own.
            blob_url = f"{upload_url}{'&' if '?' in upload_url else '?'}digest={urllib.parse.quote(content_digest)}"
            self._request_allowed(
                "PUT",
                blob_url,
                headers={"Content-Type": "application/octet-stream"},
                request_body=content,
                allowed=(201,),
            )
        return content_digest

    def _request_allowed(
        self,
        method: str,
        resource_path: str,
        *,
        allowed: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        request_body: bytes | None = None,
    ) -> _RegistryResponse:
        request_url = (
            resource_path
            if "://" in resource_path
            else f"{self._origin}/v2/{repository_path(self.reference)}/{resource_path}"
        )
        response = self._send_authorized(method, request_url, headers or {}, request_body)
        # Tokens expire, so the login is done when the registry asks, not ahead of time.
        if response.status == 401 and self._is_own_url(request_url):
            self._authorization = self._log_in(response)
            response = self._send_authorized(method, request_url, headers or {}, request_body)
        if response.status in {401, 403}:
            raise self._login_refused(response)
        if response.status not in allowed:
            raise AttachFailed(reference=self.reference, reason=_describe_response(response))
        return response

    def _send_authorized(
        self, method: str, request_url: str, headers: Mapping[str, str], request_body: bytes | None
    ) -> _RegistryResponse:
        # What takes the bytes may be another host, which the login is not for.
        login_headers = (
            {"Authorization": self._authorization} if self._authorization and self._is_own_url(request_url) else {}
        )
        try:
            return self._request_with_retries(method, request_url, {**headers, **login_headers}, request_body)
        except HttpError as error:
            raise AttachFailed(reference=self.reference, reason=error.reason) from error

    def _is_own_url(self, request_url: str) -> bool:
        return request_url.startswith(f"{self._origin}/")

    def _request_with_retries(
        self, method: str, request_url: str, headers: Mapping[str, str], request_body: bytes | None
    ) -> _RegistryResponse:
        """Return the response, the last one if the registry stays busy. Raises `HttpError`."""

        def request_once() -> _RegistryResponse:
            response = self._client.request(
                method, request_url, headers=headers, body=request_body, max_redirects=3, deadline=Deadline(_REQUEST_S)
            )
            content = response.read_bytes(_MAX_BYTES + 1)
            if len(content) > _MAX_BYTES:
                raise HttpError("its response is too large for a manifest", is_transient=False)
            answer = _RegistryResponse(response.status, response.headers, content)
            if answer.status in TRANSIENT_STATUSES:
                raise _RegistryBusy(answer)
            return answer

        try:
            return Retry(policy=self.retry_policy, on=HttpError, when=is_transient).call(request_once)
        except _RegistryBusy as busy_error:
            return busy_error.response

    def _log_in(self, refused: _RegistryResponse) -> str:
        """Return the Authorization to send from here on: the credential, or the token that the realm gives for it."""
        challenge = refused.headers.get("WWW-Authenticate", "")
        login_scheme = challenge.partition(" ")[0].lower()
        basic_login = None
        if self.credential is not None:
            user_and_password = f"{self.credential.username}:{self.credential.password}".encode()
            basic_login = f"Basic {base64.b64encode(user_and_password).decode()}"
        if login_scheme == "basic" and basic_login is not None:
            return basic_login
        challenge_words = dict(_CHALLENGE_WORDS.findall(challenge))
        realm_url = challenge_words.get("realm", "")
        # A realm over plain HTTP would get the password in the clear.
        if login_scheme != "bearer" or not (realm_url.startswith("https://") or self._origin.startswith("http://")):
            raise self._login_refused(refused)
        token_scope = f"repository:{repository_path(self.reference)}:pull,push"
        query_text = urllib.parse.urlencode({"service": challenge_words.get("service", ""), "scope": token_scope})
        try:
            response = self._request_with_retries(
                "GET", f"{realm_url}?{query_text}", {"Authorization": basic_login} if basic_login else {}, None
            )
            token_reply = json.loads(response.data) if response.status == 200 else {}
        except (HttpError, ValueError) as error:
            raise AttachFailed(reference=self.reference, reason=f"its login {realm_url} fails ({error})") from error
        # Docker's specification says `token`, OAuth says `access_token`; registries send either.
        token = token_reply.get("token") or token_reply.get("access_token") if isinstance(token_reply, dict) else None
        if response.status >= 500:
            raise AttachFailed(
                reference=self.reference, reason=f"its login {realm_url} fails: {_describe_response(response)}"
            )
        if not isinstance(token, str):
            raise self._login_refused(response)
        return f"Bearer {token}"

    def _login_refused(self, response: _RegistryResponse) -> LoginRefused:
        registry_name = registry_host(self.reference)
        return LoginRefused(
            registry=registry_name,
            source=self.credential.source if self.credential is not None else None,
            advice=login_advice(registry_name),
            said=_describe_response(response),
        )


def sha256_digest(content: bytes) -> str:
    """Return the digest of some content, as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _describe_response(response: _RegistryResponse) -> str:
    """Return an error response as one line: the messages that the specification asks for, else what was sent."""
    response_text = _error_messages(response.data) or " ".join(response.data[:400].decode(errors="replace").split())
    return f"HTTP {response.status}{f', {response_text}' if response_text else ''}"


def _error_messages(content: bytes) -> str:
    """Return the messages of https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes."""
    try:
        listed_errors = json.loads(content)["errors"]
        return "; ".join(str(error.get("message") or error["code"]) for error in listed_errors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
