"""What an S3 server said through botocore, as one of our errors; of its answer only code, message and request id."""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions

from comfypin.errors import ComfypinError, ConfigError, StorageError
from comfypin.settings.errors import SettingInvalid, SettingsConflict
from comfypin.storage.errors import (
    BucketMissing,
    ClockSkewed,
    CredentialsMissing,
    CredentialsRefused,
    NotAStore,
    ObjectMissing,
    PermissionMissing,
    ProviderSaid,
    StoreBusy,
    StoreRefused,
    StoreUnreachable,
    WrongRegion,
    with_request_id,
)
from comfypin.storage.network_errors import explained, is_page
from comfypin.storage.redaction import redacted

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
    "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody", "NoSuchUpload", "InvalidPart",
    "TooManyRequests", "Throttling",
}  # fmt: skip
# Pages with other statuses tell more than that they are pages: 413 of a proxy, 5xx of a gateway.
_PAGES_STATUS = {*range(200, 300), 302, 303, 308, 400, 401, 403, 404, 405}
_DENIED = {"", "AccessDenied", "Forbidden"}
_PASSING_STATUS = {408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}
# Calls that botocore makes for credentials, before the one that was asked for.
_OF_CREDENTIALS = {"AssumeRole", "AssumeRoleWithWebIdentity", "GetRoleCredentials", "CreateToken"}
LENDER = "AWS's token service"
# Under these names an answer's status and the beginning of its body are found beside what botocore made of them.
BODY, STATUS = "ComfypinBody", "ComfypinStatus"
_LONGEST_SAID = 300


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


def explained_failure(exc: Exception, *, place: S3Place, action: str, uri: str) -> tuple[ComfypinError, ProviderSaid]:
    """The error that botocore's exception is, and the original's kind without what may be secret."""
    said = ProviderSaid(type(exc).__name__)
    match exc:
        case exceptions.ClientError() if exc.operation_name in _OF_CREDENTIALS:
            return _without_credentials(exc, place), said
        case exceptions.ClientError():
            return answered(exc.response, place=place, action=action, uri=uri), said
        case exceptions.ParamValidationError() if "ucket" in str(exc):
            return SettingInvalid(variable="S3_BUCKET", value=place.bucket, expected="the name of an S3 bucket"), said
        case exceptions.HTTPClientError() | exceptions.ConnectionError():
            inner = exc.kwargs.get("error")
            return explained(inner if isinstance(inner, Exception) else exc, store=place.name), said
        case (
            exceptions.IncompleteReadError() | exceptions.ResponseStreamingError() | exceptions.FlexibleChecksumError()
        ):
            return StoreUnreachable(store=place.name, reason="the connection broke"), said
        case exceptions.BotoCoreError() | OSError() | ValueError():
            # All else that it reads by itself, files and programs, gives credentials.
            return without_credentials(exc, place.name), said
        case _:  # a body that is no XML, among others; none of them has a kind of its own
            return StoreBusy(store=place.name, status=200, code="its answer is not S3's"), said


def answered(response: Mapping[str, Any], *, place: S3Place, action: str, uri: str) -> StorageError:
    """The error that an answer is, as botocore parsed it."""
    facts = response.get("ResponseMetadata", {})
    status = int(facts.get("HTTPStatusCode") or 0)
    said = response.get("Error", {})
    code = str(said.get("Code") or "")
    code = "" if code.isdigit() else code  # the status again, where the answer has no body
    error = _explained_answer(status, code, response, place=place, action=action, uri=uri)
    return with_request_id(error, facts.get("RequestId") or _tag("RequestId", response.get(BODY, b"")))


def _explained_answer(
    status: int, code: str, response: Mapping[str, Any], *, place: S3Place, action: str, uri: str
) -> StorageError:
    if not code and status in {302, 303, 308}:
        return NotAStore(store=place.name, status=status, said="leads elsewhere", variable="S3_ENDPOINT_URL")
    if code in _PASSING or status in _PASSING_STATUS:
        return StoreBusy(store=place.name, status=status, code=code)
    if code in _ELSEWHERE or status in {301, 307}:
        named = response["ResponseMetadata"].get("HTTPHeaders", {}).get("x-amz-bucket-region")
        expected = response.get("Error", {}).get("Region") or named
        return WrongRegion(store=place.name, region=place.region, expected=expected)
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
    reason = " ".join(str(response.get("Error", {}).get("Message") or "").split())[:_LONGEST_SAID]
    return StoreRefused(store=place.name, action=f"{action} {uri}", status=status, code=code, reason=reason)


def refuse_page(status: int, body: bytes, place: S3Place) -> None:
    """Raises `NotAStore` if an answer is a web page, as no S3 service gives."""
    if status in _PAGES_STATUS and is_page(body[:200].decode("latin-1")):
        raise NotAStore(store=place.name, status=status, said="sends a web page", variable="S3_ENDPOINT_URL")


def code_in(body: bytes) -> str:
    """The code of an error that an answer's body is; empty if it is none."""
    return _tag("Code", body)


def _tag(name: str, body: bytes) -> str:
    found = re.search(f"<{name}>([^<]{{1,200}})</{name}>", body.decode("latin-1"))
    return html.unescape(found[1]).strip() if found else ""


def without_credentials(exc: Exception, store: str) -> StorageError | ConfigError:
    """Why botocore has no credentials, or cannot renew them."""
    match exc:
        case exceptions.ProfileNotFound():
            return SettingsConflict(
                reason=f"AWS_PROFILE is {exc.kwargs.get('profile')!r}, which AWS's files do not have",
                remedy="choose another profile, or unset AWS_PROFILE",
            )
        case exceptions.ConfigParseError() | exceptions.ConfigNotFound():
            return SettingsConflict(
                reason=f"{exc.kwargs.get('path')} cannot be read as a file of AWS profiles",
                remedy="repair it, or set AWS_ACCESS_KEY_ID",
            )
        case exceptions.SSOError() | exceptions.TokenRetrievalError():
            return CredentialsMissing(store=store, remedy="the SSO session has expired; run `aws sso login`")
        case exceptions.NoCredentialsError():
            return no_credentials(store)
        case _:
            # These name a file, a profile, a field or a program; never what a secret is.
            reason = " ".join(redacted(str(exc)).split())[:_LONGEST_SAID].rstrip(".")
            return CredentialsMissing(store=store, remedy=f"AWS's client says: {reason or type(exc).__name__}")


def no_credentials(store: str) -> CredentialsMissing:
    """Nothing names any credentials, and the platform lends none."""
    remedy = (
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or RunPod's BUCKET_ACCESS_KEY_ID and "
        "BUCKET_SECRET_ACCESS_KEY"
    )
    return CredentialsMissing(store=store, remedy=remedy)


def _without_credentials(exc: exceptions.ClientError, place: S3Place) -> StorageError:
    """A refusal of the service that lends credentials."""
    facts, said = exc.response.get("ResponseMetadata", {}), exc.response.get("Error", {})
    status, code = int(facts.get("HTTPStatusCode") or 0), str(said.get("Code") or "")
    if status in _PASSING_STATUS or code in _PASSING:
        return with_request_id(StoreBusy(store=LENDER, status=status, code=code), facts.get("RequestId"))
    message = " ".join(str(said.get("Message") or "").split())[:_LONGEST_SAID].rstrip(".")
    reason = f"{exc.operation_name} for {place.name}, {code}: {message}"
    remedy = "check the role, its trust policy and the profile"
    error = CredentialsRefused(store=LENDER, reason=reason, remedy=remedy)
    return with_request_id(error, facts.get("RequestId"))
