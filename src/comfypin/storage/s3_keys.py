"""Keys that a platform lends: a role's by a token file, a container's or an instance's; renewed before they expire."""

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from comfypin.errors.storage import CredentialsMissing, ProviderSaid, StoreBusy
from comfypin.storage.aws_profile import S3Credentials
from comfypin.storage.body import Text
from comfypin.storage.dial import Dial, unreached
from comfypin.storage.s3_settings import PlatformKeys, S3Settings
from comfypin.storage.wire import Wire

_METADATA_SERVICE = "http://169.254.169.254"
_RENEWED_BEFORE = timedelta(minutes=5)
_AT_LEAST = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lent:
    keys: S3Credentials
    until: datetime


class KeySource:
    """The keys to sign with: those that the variables name, else the platform's. Safe for threads."""

    def __init__(self, config: S3Settings, *, metadata_service: str = _METADATA_SERVICE) -> None:
        self._store = f"s3://{config.bucket}"
        self._given = config.credentials
        self._platform = config.platform
        self._metadata_service = metadata_service if config.endpoint is None else None
        self._ca_bundle = config.ca_bundle
        self._proxies = config.proxies
        self._lent: _Lent | None = None
        self._lock = threading.Lock()
        if self._given is None and self._platform is None and not self._instance_has_role():
            raise CredentialsMissing(
                store=self._store,
                remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or RunPod's "
                "BUCKET_ACCESS_KEY_ID and BUCKET_SECRET_ACCESS_KEY",
            )

    def __call__(self) -> S3Credentials:
        """The keys as they are now. Raises `StorageError`."""
        if self._given is not None:
            return self._given
        with self._lock:
            if self._lent is None or self._lent.until - datetime.now(UTC) < _RENEWED_BEFORE:
                self._lent = self._borrow()
            return self._lent.keys

    def _borrow(self) -> _Lent:
        try:
            if self._platform is None:
                return self._of_instance(str(self._metadata_service))
            if self._platform.token_file is not None:
                return self._of_role(self._platform)
            return _of_container(self._platform)
        except (OSError, ValueError, KeyError) as exc:
            raise CredentialsMissing(
                store=self._store,
                remedy="the platform's own could not be had; set AWS_ACCESS_KEY_ID and the secret key",
            ) from exc

    def _instance_has_role(self) -> bool:
        """Whether there is a metadata service to ask; elsewhere nobody answers at its address."""
        if self._metadata_service is None:
            return False
        try:
            self._lent = self._of_instance(self._metadata_service)
        except (OSError, ValueError, KeyError):
            return False
        return True

    def _of_instance(self, service: str) -> _Lent:
        """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html"""
        token = _fetch("PUT", f"{service}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "300"})
        headers = {"X-aws-ec2-metadata-token": token.strip()}
        roles = f"{service}/latest/meta-data/iam/security-credentials/"
        role = _fetch("GET", roles, headers).split()[0:1]
        if not role:
            raise ValueError("the instance has no role")
        return _described(json.loads(_fetch("GET", roles + role[0], headers)))

    def _of_role(self, platform: PlatformKeys) -> _Lent:
        """https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html

        Raises `StorageError`, `OSError`, `ValueError`, `KeyError`.
        """
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": platform.role_arn or "",
            "RoleSessionName": platform.session_name,
            "WebIdentityToken": Path(str(platform.token_file)).read_text().strip(),
        }
        origin = "/".join(platform.sts_url.split("/")[:3])
        wire = Wire(Dial(origin, ca_bundle=self._ca_bundle, proxy=self._proxies.to(origin)))
        headers = {"Host": wire.host, "Content-Type": "application/x-www-form-urlencoded"}
        target = f"{platform.sts_url.removeprefix(origin)}/"
        try:
            answer = wire.exchange("POST", target, headers, Text(data=urlencode(form).encode()))
        except OSError as exc:
            raise unreached(exc, store="AWS's token service") from ProviderSaid(type(exc).__name__)
        if answer.status >= 500 or answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise StoreBusy(store="AWS's token service", status=answer.status)
        if answer.status != HTTPStatus.OK:
            raise ValueError(f"HTTP {answer.status}")
        names = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
        found = {name: match[1] for name in names if (match := re.search(rf"<{name}>([^<]+)</{name}>", answer.text))}
        return _described(found)


def _of_container(platform: PlatformKeys) -> _Lent:
    """https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html"""
    token = platform.container_token
    if platform.container_token_file is not None:
        token = platform.container_token_file.read_text().strip()
    headers = {"Authorization": token} if token else {}
    return _described(json.loads(_fetch("GET", str(platform.container_url), headers)))


def _described(facts: Mapping[str, str]) -> _Lent:
    until = datetime.fromisoformat(facts["Expiration"].replace("Z", "+00:00"))
    keys = S3Credentials(
        access_key_id=facts["AccessKeyId"],
        secret_access_key=facts["SecretAccessKey"],
        session_token=facts.get("Token") or facts.get("SessionToken"),
    )
    # Keys that are already old are used once, not asked for with each request.
    return _Lent(keys=keys, until=max(until, datetime.now(UTC) + _RENEWED_BEFORE + _AT_LEAST))


def _fetch(method: str, url: str, headers: Mapping[str, str]) -> str:
    """The body of a successful answer of this machine's platform, never by a proxy. Raises `OSError`, `ValueError`."""
    import http.client  # most deliveries do without; it brings a parser of e-mail along

    address = urlsplit(url)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    local = address.scheme == "http"
    try:
        connection = kind(str(address.hostname), address.port, timeout=2 if local else 10)
    except http.client.HTTPException as exc:
        raise ValueError("this is no address") from exc
    try:
        target = f"{address.path}?{address.query}" if address.query else address.path
        connection.request(method, target, headers=dict(headers))
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise ValueError(f"HTTP {answer.status}")
        return text
    except http.client.HTTPException as exc:
        raise ValueError("this is no answer") from exc
    finally:
        connection.close()
