"""What an S3 server said, as one of our errors, of which only code and message are kept."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from comfypin.errors import StorageError
from comfypin.errors.storage import (
    BucketMissing,
    ClockSkewed,
    CredentialsRefused,
    NotAStore,
    ObjectMissing,
    PermissionMissing,
    StoreBusy,
    StoreRefused,
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
# Pages with other statuses tell more than that they are pages: 413 of a proxy, 5xx of a gateway.
_PAGES_STATUS = {*range(200, 300), 302, 303, 308, 400, 401, 403, 404, 405}
_DENIED = {"", "AccessDenied", "Forbidden"}
_PASSING_STATUS = {408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}


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


def answered(
    status: int, text: str, *, place: S3Place, action: str, uri: str, region: str | None = None
) -> StorageError:
    """The error that an answer of this status and body is; `region` is the one that the answer's headers name."""
    code = _tag("Code", text)
    if not code and (said := _no_store(status, text)):
        return NotAStore(store=place.name, status=status, said=said, variable="S3_ENDPOINT_URL")
    if code in _PASSING or status in _PASSING_STATUS:
        return StoreBusy(store=place.name, status=status, code=code)
    if code in _ELSEWHERE or status in {301, 307}:
        expected = _tag("Region", text) or region
        return WrongRegion(store=place.name, region=place.region, expected=expected)
    return _answered(status, code, _tag("Message", text), place=place, action=action, uri=uri)


def _answered(status: int, code: str, said: str, *, place: S3Place, action: str, uri: str) -> StorageError:
    if code in _REFUSED or status == 401:
        reason = _REFUSED.get(code, "they are not accepted")
        remedy = "renew them" if "expired" in reason else "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and endpoint"
        return CredentialsRefused(store=place.name, reason=reason, remedy=remedy)
    if code in _SKEWED:
        return ClockSkewed(store=place.name)
    if code in {"NoSuchBucket", "InvalidBucketName"} or (status == 404 and action == "write"):
        return BucketMissing(store=place.name, variable="S3_BUCKET")
    if status == 404:
        return ObjectMissing(uri=uri)
    if status == 403 and code in _DENIED:
        grant = "s3:PutObject" if action == "write" else "s3:GetObject"
        remedy = f"grant {grant} on {place.bucket}/* (on R2: a token with Object Read & Write for this bucket)"
        return PermissionMissing(store=place.name, action=f"{action} objects", remedy=remedy)
    return StoreRefused(
        store=place.name, action=f"{action} {uri}", status=status, code=code, reason=" ".join(said.split())
    )


def _no_store(status: int, text: str) -> str | None:
    """What an answer is that no S3 service gives, if it is one."""
    if status in {302, 303, 308}:
        return "leads elsewhere"
    return "sends a web page" if status in _PAGES_STATUS and is_page(text) else None


def is_page(text: str) -> bool:
    """Whether a body is a web page."""
    return text.lstrip()[:15].lower().startswith(("<html", "<!doctype html"))


def _tag(name: str, text: str) -> str:
    found = re.search(rf"<{name}>([^<]{{1,300}})</{name}>", text)
    return found[1].strip() if found else ""
