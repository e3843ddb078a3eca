"""What an S3 server said, as one of our errors: obstore gives it as text, of which only code and message are kept."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from comfypin.errors import StorageError
from comfypin.errors.storage import (
    BucketMissing,
    ClockSkewed,
    CredentialsMissing,
    CredentialsRefused,
    ObjectMissing,
    PermissionMissing,
    ProviderSaid,
    StoreBusy,
    StoreRefused,
    StoreUnreachable,
    WrongRegion,
)

_REFUSED = {
    "InvalidAccessKeyId": "the access key id is unknown there",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key id",
    "InvalidToken": "the session token is not valid",
    "ExpiredToken": "they have expired",
    "ExpiredTokenException": "they have expired",
    "TokenRefreshRequired": "they have expired",
    "InvalidClientTokenId": "the access key id is unknown there",
    "Unauthorized": "they are not accepted",
}
_SKEWED = {"RequestTimeTooSkewed", "RequestExpired"}
_ELSEWHERE = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
_PASSING = {
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "OperationAborted", "BadDigest",
    "XAmzContentSHA256Mismatch", "IncompleteBody", "NoSuchUpload", "InvalidPart", "TooManyRequests", "Throttling",
}  # fmt: skip
_PASSING_STATUS = {408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}

_CONNECTION = (
    (r"dns error|failed to lookup", "its name is not known"),
    (r"ConnectionRefused|Connection refused", "the connection was refused"),
    (r"certificate|tls", "its TLS certificate is not accepted"),
    (r"TimedOut|timed out|deadline", "it did not answer in time"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Place:
    """Which bucket is spoken of, for sentences."""

    bucket: str
    endpoint: str | None
    region: str

    @property
    def name(self) -> str:
        """The bucket and, unless it is AWS, the endpoint."""
        return f"s3://{self.bucket} at {self.endpoint}" if self.endpoint else f"s3://{self.bucket}"

    @property
    def is_runpod_volume(self) -> bool:
        """Whether this is a RunPod network volume, whose S3 API knows only the plain operations."""
        host = urlsplit(self.endpoint or "").hostname or ""
        return host.startswith("s3api-") and host.endswith(".runpod.io")


def explained(exc: Exception, *, place: S3Place, action: str, uri: str) -> tuple[StorageError, ProviderSaid]:
    """The error that says what happened and what to do, and the library's words without what may be secret."""
    text = str(exc)
    status = int(found[1]) if (found := re.search(r"status code: (\d{3})", text)) else 0
    code = _tag("Code", text)
    said = _tag("Message", text)
    cause = ProviderSaid(f"{type(exc).__name__}: HTTP {status or '-'} {code} {said}".strip())
    if "Received redirect without LOCATION" in text:
        status, code = 301, "PermanentRedirect"
    if status == 0 and not code:
        return _without_answer(text, place), cause
    return answered(status, text, code=code, place=place, action=action, uri=uri), cause


def answered(status: int, text: str, *, place: S3Place, action: str, uri: str, code: str | None = None) -> StorageError:
    """The error that an answer of this status and body is."""
    code = _tag("Code", text) if code is None else code
    if code in _PASSING or status in _PASSING_STATUS:
        return StoreBusy(store=place.name, status=status, code=code)
    return _answered(status, code, _tag("Message", text), text, place=place, action=action, uri=uri)


def _answered(status: int, code: str, said: str, text: str, *, place: S3Place, action: str, uri: str) -> StorageError:
    if code in _REFUSED or status == 401:
        reason = _REFUSED.get(code, "they are not accepted")
        remedy = "renew them" if "expired" in reason else "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and endpoint"
        return CredentialsRefused(store=place.name, reason=reason, remedy=remedy)
    if code in _SKEWED:
        return ClockSkewed(store=place.name)
    if code in _ELSEWHERE or status in {301, 307}:
        return WrongRegion(store=place.name, region=place.region, expected=_tag("Region", text) or None)
    if code in {"NoSuchBucket", "InvalidBucketName"} or (status == 404 and action == "write"):
        return BucketMissing(store=place.name, variable="S3_BUCKET")
    if status == 404:
        return ObjectMissing(uri=uri)
    if status == 403:
        grant = "s3:PutObject" if action == "write" else "s3:GetObject"
        remedy = f"grant {grant} on {place.bucket}/* (on R2: a token with Object Read & Write for this bucket)"
        return PermissionMissing(store=place.name, action=f"{action} objects", remedy=remedy)
    return StoreRefused(store=place.name, action=f"{action} {uri}", status=status, code=code, reason=said)


def _without_answer(text: str, place: S3Place) -> StorageError:
    if re.search(r"169\.254\.|CredentialProvider|[Cc]redentials", text) and "error sending request" not in text:
        return CredentialsMissing(
            store=place.name, remedy="the platform's own could not be had; set AWS_ACCESS_KEY_ID and the secret key"
        )
    reason = next((words for pattern, words in _CONNECTION if re.search(pattern, text)), "the connection broke")
    return StoreUnreachable(store=place.name, reason=reason)


def _tag(name: str, text: str) -> str:
    found = re.search(rf"<{name}>([^<]{{1,300}})</{name}>", text)
    return found[1].strip() if found else ""
