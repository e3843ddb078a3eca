"""Translates what an S3 server says through botocore into our errors; keeps only code, message and request id of it."""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    ProviderError,
    StoreBusy,
    StoreRefused,
    StoreUnreachable,
    WrongRegion,
    add_request_id,
)
from comfypin.storage.network_errors import explain_network_failure, is_web_page
from comfypin.storage.redaction import redact_secrets
from comfypin.storage.s3_setting_names import S3SettingNames

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
# What servers call a request for a bucket of another region.
_ELSEWHERE = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
_PASSING = {
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "OperationAborted", "BadDigest",
    "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody", "NoSuchUpload", "InvalidPart",
    "TooManyRequests", "Throttling",
}  # fmt: skip
# With other statuses the status says more than the page: 413 of a proxy, 5xx of a gateway.
_PAGES_STATUS = {*range(200, 300), 302, 303, 308, 400, 401, 403, 404, 405}
# A refused HEAD has no body, and so no code.
_DENIED = {"", "AccessDenied", "Forbidden"}
_PASSING_STATUS = {408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}
# Calls that botocore makes to get credentials, before the one that we requested.
_OF_CREDENTIALS = {"AssumeRole", "AssumeRoleWithWebIdentity", "GetRoleCredentials", "CreateToken"}
LENDER = "AWS's token service"
# Keys under which botocore's parsed response also holds the raw status and the beginning of the body.
BODY, STATUS = "ComfypinBody", "ComfypinStatus"
# Services answer with pages of XML or HTML; the first lines hold the sentence.
_LONGEST_SAID = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Location:
    """Names a bucket, its endpoint and region, and where the user set them, for messages."""

    bucket: str
    endpoint: str | None
    region: str
    names: S3SettingNames = field(default_factory=S3SettingNames)

    @property
    def store_name(self) -> str:
        """Return the bucket and, unless it is AWS, the endpoint."""
        return f"s3://{self.bucket} at {self.endpoint}" if self.endpoint else f"s3://{self.bucket}"

    @property
    def is_runpod_volume(self) -> bool:
        """Return whether this is a Runpod network volume, whose S3 API has only the basic operations."""
        hostname = urlsplit(self.endpoint or "").hostname or ""
        return hostname.startswith("s3api-") and hostname.endswith(".runpod.io")


def explain_failure(
    exception: Exception, *, location: S3Location, action: str, uri: str
) -> tuple[ComfypinError, ProviderError]:
    """Return the error for an exception of botocore, and the kind of the original without secrets."""
    original = ProviderError(type(exception).__name__)
    match exception:
        case exceptions.ClientError() if exception.operation_name in _OF_CREDENTIALS:
            return _explain_lender_refusal(exception, location), original
        case exceptions.ClientError():
            return explain_response(exception.response, location=location, action=action, object_uri=uri), original
        case exceptions.ParamValidationError() if "ucket" in str(exception):
            return SettingInvalid(
                variable=location.names.bucket, value=location.bucket, expected="the name of an S3 bucket"
            ), original
        case exceptions.HTTPClientError() | exceptions.ConnectionError():
            inner_error = exception.kwargs.get("error")
            return explain_network_failure(
                inner_error if isinstance(inner_error, Exception) else exception, store_name=location.store_name
            ), original
        case (
            exceptions.IncompleteReadError() | exceptions.ResponseStreamingError() | exceptions.FlexibleChecksumError()
        ):
            return StoreUnreachable(store=location.store_name, reason="the connection broke"), original
        case exceptions.BotoCoreError() | OSError() | ValueError():
            # All else that it reads by itself, files and programs, gives credentials.
            return explain_missing_credentials(exception, location.store_name), original
        case _:  # for example a body that is not XML; these have no common class
            return StoreBusy(store=location.store_name, status=200, code="not a response of S3"), original


def explain_response(
    response: Mapping[str, Any], *, location: S3Location, action: str, object_uri: str
) -> StorageError:
    """Return the error for an error response, as botocore parsed it."""
    response_metadata = response.get("ResponseMetadata", {})
    http_status = int(response_metadata.get("HTTPStatusCode") or 0)
    error_body = response.get("Error", {})
    error_code = str(error_body.get("Code") or "")
    error_code = "" if error_code.isdigit() else error_code  # the status again, if the response has no body
    error = _classify_response(
        http_status, error_code, response, location=location, action=action, object_uri=object_uri
    )
    return add_request_id(error, response_metadata.get("RequestId") or _read_tag("RequestId", response.get(BODY, b"")))


def _classify_response(
    http_status: int,
    error_code: str,
    response: Mapping[str, Any],
    *,
    location: S3Location,
    action: str,
    object_uri: str,
) -> StorageError:
    if not error_code and http_status in {302, 303, 308}:
        return NotAStore(
            store=location.store_name, status=http_status, said="leads elsewhere", variable=location.names.endpoint
        )
    if error_code in _PASSING or http_status in _PASSING_STATUS:
        return StoreBusy(store=location.store_name, status=http_status, code=error_code)
    if error_code in _ELSEWHERE or http_status in {301, 307}:
        header_region = response["ResponseMetadata"].get("HTTPHeaders", {}).get("x-amz-bucket-region")
        expected = response.get("Error", {}).get("Region") or header_region
        return WrongRegion(store=location.store_name, region=location.region, expected=expected)
    if error_code in _REFUSED or http_status == 401:
        reason = _REFUSED.get(error_code, "they are not accepted")
        names = location.names
        checked = f"check {names.access_key_id}, {names.secret_access_key} and endpoint"
        remedy = "renew them" if "expired" in reason else checked
        return CredentialsRefused(store=location.store_name, reason=reason, remedy=remedy)
    if error_code in _SKEWED:
        return ClockSkewed(store=location.store_name)
    if error_code in {"NoSuchBucket", "InvalidBucketName"} or (http_status == 404 and action == "write"):
        return BucketMissing(store=location.store_name, variable=location.names.bucket)
    # Only reading needs an object, so here it is the object that is missing.
    if http_status == 404:
        return ObjectMissing(uri=object_uri)
    if http_status == 403 and error_code in _DENIED:
        grant = "s3:PutObject" if action == "write" else "s3:GetObject"
        remedy = f"grant {grant} on {location.bucket}/* (on R2: a token with Object Read & Write for this bucket)"
        return PermissionMissing(store=location.store_name, action=f"{action} objects", remedy=remedy)
    reason = " ".join(str(response.get("Error", {}).get("Message") or "").split())[:_LONGEST_SAID]
    return StoreRefused(
        store=location.store_name, action=f"{action} {object_uri}", status=http_status, code=error_code, reason=reason
    )


def refuse_page(http_status: int, response_body: bytes, location: S3Location) -> None:
    """Raise `NotAStore` if a response is a web page, which no S3 service sends."""
    if http_status in _PAGES_STATUS and is_web_page(response_body[:200].decode("latin-1")):
        raise NotAStore(
            store=location.store_name, status=http_status, said="sends a web page", variable=location.names.endpoint
        )


def error_code_in(response_body: bytes) -> str:
    """Return the error code in a response's body, empty if it has none."""
    return _read_tag("Code", response_body)


def _read_tag(tag_name: str, response_body: bytes) -> str:
    matched = re.search(f"<{tag_name}>([^<]{{1,200}})</{tag_name}>", response_body.decode("latin-1"))
    return html.unescape(matched[1]).strip() if matched else ""


def explain_missing_credentials(exception: Exception, store_name: str) -> StorageError | ConfigError:
    """Return why botocore has no credentials, or cannot renew them."""
    match exception:
        case exceptions.ProfileNotFound():
            return SettingsConflict(
                reason=f"AWS_PROFILE is {exception.kwargs.get('profile')!r}, which AWS's files do not have",
                remedy="choose another profile, or unset AWS_PROFILE",
            )
        case exceptions.ConfigParseError() | exceptions.ConfigNotFound():
            return SettingsConflict(
                reason=f"{exception.kwargs.get('path')} cannot be read as a file of AWS profiles",
                remedy="repair it, or set AWS_ACCESS_KEY_ID",
            )
        case exceptions.SSOError() | exceptions.TokenRetrievalError():
            return CredentialsMissing(store=store_name, remedy="the SSO session has expired; run `aws sso login`")
        case exceptions.NoCredentialsError():
            return credentials_missing(store_name)
        case _:
            # These name a file, a profile, a field or a program; never what a secret is.
            reason = " ".join(redact_secrets(str(exception)).split())[:_LONGEST_SAID].rstrip(".")
            return CredentialsMissing(
                store=store_name, remedy=f"AWS's client says: {reason or type(exception).__name__}"
            )


def credentials_missing(store_name: str) -> CredentialsMissing:
    """Return the error if no variable names credentials, and the platform gives none."""
    remedy = (
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or Runpod's BUCKET_ACCESS_KEY_ID and "
        "BUCKET_SECRET_ACCESS_KEY"
    )
    return CredentialsMissing(store=store_name, remedy=remedy)


def _explain_lender_refusal(exception: exceptions.ClientError, location: S3Location) -> StorageError:
    """Return the error if the service that lends credentials refused."""
    response_metadata, error_body = exception.response.get("ResponseMetadata", {}), exception.response.get("Error", {})
    http_status, error_code = int(response_metadata.get("HTTPStatusCode") or 0), str(error_body.get("Code") or "")
    if http_status in _PASSING_STATUS or error_code in _PASSING:
        return add_request_id(
            StoreBusy(store=LENDER, status=http_status, code=error_code), response_metadata.get("RequestId")
        )
    message = " ".join(str(error_body.get("Message") or "").split())[:_LONGEST_SAID].rstrip(".")
    reason = f"{exception.operation_name} for {location.store_name}, {error_code}: {message}"
    remedy = "check the role, its trust policy and the profile"
    error = CredentialsRefused(store=LENDER, reason=reason, remedy=remedy)
    return add_request_id(error, response_metadata.get("RequestId"))
