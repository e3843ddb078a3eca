"""What Google Cloud Storage said, as one of our errors."""

import re
from typing import TYPE_CHECKING

from comfypin.errors import StorageError
from comfypin.errors.storage import (
    BucketMissing,
    ChecksumMismatch,
    ClockSkewed,
    CredentialsRefused,
    ObjectMissing,
    PermissionMissing,
    ProviderSaid,
    PublicAccessImpossible,
    StoreBusy,
    StoreRefused,
    StoreUnreachable,
)
from comfypin.objects.redaction import redacted

if TYPE_CHECKING:
    from requests import Response

_PASSING_STATUS = {308, 408, 429, 500, 502, 503, 504}


class RefusedRequest(Exception):
    """An HTTP answer that is no success."""

    def __init__(self, *, status: int, reason: str) -> None:
        super().__init__(f"HTTP {status}: {reason}")
        self.status = status
        self.reason = reason

    @classmethod
    def from_response(cls, response: "Response") -> "RefusedRequest":
        """The status, and Google's message where there is one."""
        try:
            reason = str(response.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            reason = response.text[:200]
        return cls(status=response.status_code, reason=reason)


def explained(exc: Exception, *, bucket: str, action: str, uri: str) -> tuple[StorageError, ProviderSaid]:
    """The error that says what happened and what to do, and the library's words without what may be secret."""
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError

    cause = ProviderSaid(f"{type(exc).__name__}: {redacted(str(exc))[:500]}")
    store = f"gs://{bucket}"
    token_service_down = StoreUnreachable(store="Google's token service", reason="no token could be had")
    match exc:
        case RefusedRequest():
            return _answered(exc.status, exc.reason, store=store, action=action, uri=uri), cause
        case GoogleAPICallError():
            return _answered(int(exc.code or 0), str(exc.message), store=store, action=action, uri=uri), cause
        case TransportError():
            return token_service_down, cause
        case GoogleAuthError() if exc.retryable:
            return token_service_down, cause
        case GoogleAuthError():
            return _without_token(str(exc), store), cause
        case _:
            return StoreUnreachable(store=store, reason=_connection(str(exc))), cause


def _answered(status: int, reason: str, *, store: str, action: str, uri: str) -> StorageError:
    lowered = reason.lower()
    if status in _PASSING_STATUS:
        return StoreBusy(store=store, status=status)
    if status == 400 and ("crc32c" in lowered or "md5" in lowered):
        return ChecksumMismatch(uri=uri, kind="crc32c", expected="another one", actual="not what the file has")
    if "uniform bucket-level access" in lowered:
        return PublicAccessImpossible(store=store, reason="it has uniform bucket-level access")
    if "public access prevention" in lowered:
        return PublicAccessImpossible(store=store, reason="it enforces public access prevention")
    if status == 401:
        return CredentialsRefused(store=store, reason="they are not accepted", remedy="renew them")
    if status == 403:
        remedy = "grant roles/storage.objectUser on the bucket"
        return PermissionMissing(store=store, action=f"{action} objects", remedy=remedy)
    if status == 404 and action == "read":
        return ObjectMissing(uri=uri)
    if status == 404:
        return BucketMissing(store=store, variable="GCS_BUCKET")
    return StoreRefused(store=store, action=f"{action} {uri}", status=status, code="", reason=_words(reason))


def _words(text: str) -> str:
    """Google's own words in a message that begins with the request's address."""
    if found := re.search(r'"message":\s*"([^"]{1,300})"', text):
        return found[1]
    return re.sub(r"^[A-Z]+ \S+: ", "", redacted(text))[:300]


def _without_token(text: str, store: str) -> StorageError:
    lowered = text.lower()
    if "reasonable timeframe" in lowered or "token used too early" in lowered or "iat and exp" in lowered:
        return ClockSkewed(store=store)
    reason = "they have expired or were revoked" if "expired" in lowered or "invalid_grant" in lowered else "no token"
    return CredentialsRefused(
        store=store, reason=reason, remedy="make a new key and name its file in GOOGLE_APPLICATION_CREDENTIALS"
    )


def _connection(text: str) -> str:
    if "Name or service not known" in text or "Failed to resolve" in text or "NameResolution" in text:
        return "its name is not known"
    if "refused" in text:
        return "the connection was refused"
    if "timed out" in text or "Timeout" in text:
        return "it did not answer in time"
    if "CERTIFICATE" in text or "SSL" in text:
        return "its TLS certificate is not accepted"
    return "the connection broke"
