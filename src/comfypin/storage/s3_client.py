"""The botocore client of one bucket, set up so that every S3 server understands it; its failures become our errors.

The client is the one that boto3 uses too; boto3's resources and transfer manager, which are not used here, would cost
0.1 s of CPU at each start.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import botocore
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.handlers import add_expect_header, validate_bucket_name
from botocore.parsers import ResponseParserError

from comfypin import __version__
from comfypin.storage.endpoint import ParsedEndpoint
from comfypin.storage.errors import ProviderError
from comfypin.storage.redaction import redact_library_logs
from comfypin.storage.s3_errors import (
    BODY,
    LENDER,
    STATUS,
    S3Location,
    credentials_missing,
    explain_failure,
    explain_missing_credentials,
    refuse_page,
)
from comfypin.storage.s3_settings import S3Settings
from comfypin.storage.s3_transport import READ_TIMEOUT_S, S3Transport
from comfypin.storage.upload_body import UploadBody

_DEFAULT_REGION = "us-east-1"
# AWS's services that give temporary keys.
_LENDS_KEYS = ("sts", "sso", "sso-oidc")


class S3Client:
    """Sends requests to one bucket. Safe for threads. `call_operation` takes any operation of boto3's client."""

    def __init__(self, settings: S3Settings, *, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        redact_library_logs()
        session = _make_session(settings)
        settings = _apply_profile(settings, session)
        if settings.bucket is None:
            raise settings.bucket_missing()
        region = settings.region or _DEFAULT_REGION
        self.location = S3Location(
            bucket=settings.bucket, endpoint=settings.endpoint, region=region, names=settings.names
        )
        self._transport = S3Transport(
            self.location.store_name,
            ca_bundle=settings.ca_bundle,
            proxies=settings.proxies,
            connect_to=settings.connect_to,
            deadline=settings.deadline,
            read_timeout_s=read_timeout_s,
        )
        self._client = _make_client(settings, session, region, self.location)
        address = urlsplit(self._client.meta.endpoint_url)
        self.is_encrypted = address.scheme == "https"
        self.is_aws = str(address.hostname).endswith((".amazonaws.com", ".amazonaws.com.cn"))
        self._register_handlers()

    @property
    def store_name(self) -> str:
        """Return the bucket and its endpoint, for messages."""
        return self.location.store_name

    def with_short_timeouts(self) -> AbstractContextManager[None]:
        """Use short timeouts inside the block."""
        return self._transport.with_short_timeouts()

    def object_uri(self, object_key: str) -> str:
        """Return the object's `s3://` address."""
        return f"s3://{self.location.bucket}/{object_key}"

    def call_operation(self, operation: str, object_key: str = "", *, action: str, **parameters: Any) -> dict[str, Any]:
        """Send one request and return botocore's form of the response; `action` is the verb for messages.

        Raises `StorageError`, `ConfigError`, and whatever a body's pace raises.
        """
        bucket_and_key = {"Bucket": self.location.bucket, **({"Key": object_key} if object_key else {})}
        with self.translate_failures(object_key, action):
            response: dict[str, Any] = getattr(self._client, operation)(**bucket_and_key, **parameters)
        return response

    @contextmanager
    def translate_failures(self, object_key: str, action: str) -> Iterator[None]:
        """Raise our errors for botocore's inside the block."""
        try:
            yield
        except (ClientError, BotoCoreError, ResponseParserError, OSError, ValueError) as exception:
            error, cause = explain_failure(
                exception, location=self.location, action=action, uri=self.object_uri(object_key)
            )
            raise error from cause

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """Return a presigned GET URL (signature version 4)."""
        with self.translate_failures(key, "sign"):
            bucket_and_key = {"Bucket": self.location.bucket, "Key": key}
            url: str = self._client.generate_presigned_url("get_object", Params=bucket_and_key, ExpiresIn=ttl_s)
        return url

    def _register_handlers(self) -> None:
        events = self._client.meta.events
        # The header costs a round trip for each object, and half a second if a server does not know it.
        events.unregister("before-call.s3", add_expect_header)
        # Other servers have other rules: Ceph's buckets may be called tenant:bucket.
        events.unregister("before-parameter-build.s3", validate_bucket_name)
        events.register("before-call.s3", _forbid_region_redirect)
        events.register_first("before-send.s3", _require_signed_digest)
        events.register("before-send.s3", self._transport)
        events.register("before-parse.s3", self._inspect_response)
        if self.is_encrypted:
            # TLS notices every change on the way, and a second digest would cost as much as the sending.
            events.register_first("before-sign.s3.UploadPart", _leave_unsigned)

    def _inspect_response(
        self, response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_more: object
    ) -> None:
        status, response_body = int(response_dict["status_code"]), response_dict["body"]
        customized_response_dict[STATUS] = status
        if isinstance(response_body, bytes):
            customized_response_dict[BODY] = response_body[:4096]
            refuse_page(status, response_body, self.location)


def _make_session(settings: S3Settings) -> botocore.session.Session:
    """Return a session; it ignores AWS's variables and files for a job's bucket, or if they are broken and unused."""
    no_file: tuple[object, ...] = (None, [], "/dev/null", None)
    no_profile = {"profile": (None, [], None, None), "config_file": no_file, "credentials_file": no_file}
    if settings.is_jobs_own:
        return botocore.session.Session(session_vars=no_profile)
    session = botocore.session.Session()
    try:
        session.get_scoped_config()
    except BotoCoreError as exception:
        if settings.credentials is None:
            raise explain_missing_credentials(exception, f"s3://{settings.bucket}") from ProviderError(
                type(exception).__name__
            )
        return botocore.session.Session(session_vars=no_profile)
    return session


def _apply_profile(settings: S3Settings, session: botocore.session.Session) -> S3Settings:
    """Return the settings with the region and endpoint of the AWS profile, if the variables name none."""
    profile_url = session.get_scoped_config().get("endpoint_url")
    region = settings.region or session.get_config_variable("region")
    if settings.endpoint is None and isinstance(profile_url, str):
        parsed_endpoint = ParsedEndpoint.parse(
            profile_url, bucket=settings.bucket, variable="endpoint_url of the AWS profile"
        )
        region = settings.region or parsed_endpoint.region or region
        return replace(settings, endpoint=parsed_endpoint.endpoint, bucket=parsed_endpoint.bucket, region=region)
    return replace(settings, region=region)


def _make_client(settings: S3Settings, session: botocore.session.Session, region: str, location: S3Location) -> Any:
    # The services that lend credentials are AWS's, whatever the region of another store is called.
    lender_region = region if settings.endpoint is None else session.get_config_variable("region") or _DEFAULT_REGION
    session.set_config_variable("region", lender_region)
    key_options: dict[str, str | None] = {}
    if settings.credentials is None:
        _require_credentials(settings, session, location)
    else:
        key_options = {
            "aws_access_key_id": settings.credentials.access_key_id,
            "aws_secret_access_key": settings.credentials.secret_access_key,
            "aws_session_token": settings.credentials.session_token,
        }
    return session.create_client(
        "s3",
        region_name=region,
        # The settings have read the endpoint variables already; a job's bucket has its own endpoint.
        endpoint_url=settings.endpoint,
        config=_client_config(settings),
        **key_options,
    )


def _require_credentials(settings: S3Settings, session: botocore.session.Session, location: S3Location) -> None:
    """Raise `CredentialsMissing` or `ConfigError` unless the session finds credentials."""
    if settings.endpoint is not None:
        # An instance's keys are for AWS only; elsewhere nothing is at the metadata service's address.
        session.get_component("credential_provider").remove("iam-role")
    lender_transport = S3Transport(LENDER, ca_bundle=settings.ca_bundle, proxies=settings.proxies)
    for service in _LENDS_KEYS:
        session.register(f"before-send.{service}", lender_transport)
    try:
        if session.get_credentials() is None:
            raise credentials_missing(location.store_name)
    except (BotoCoreError, OSError, ValueError) as exception:
        raise explain_missing_credentials(exception, location.store_name) from ProviderError(type(exception).__name__)


def _client_config(settings: S3Settings) -> Config:
    addressing_style = settings.addressing
    if addressing_style == "auto":
        # AWS wants virtual hosts, unless dots in the bucket's name would break TLS; other servers all know paths.
        addressing_style = "virtual" if settings.endpoint is None and "." not in str(settings.bucket) else "path"
    return Config(
        # Checksums that AWS's clients add since 2025 are refused by R2, B2 and others.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # Without, us-east-1 signs URLs with version 2, which AWS has given up.
        signature_version="s3v4",
        # Retries are ours: they look at more than status codes.
        retries={"mode": "standard", "total_max_attempts": 1},
        s3={"addressing_style": addressing_style, "us_east_1_regional_endpoint": "regional"},
        use_dualstack_endpoint=None if settings.endpoint is None else False,
        use_fips_endpoint=None if settings.endpoint is None else False,
        # botocore would build its own for each request, which costs more than signing it.
        user_agent=f"comfypin/{__version__} Botocore/{botocore.__version__}",
    )


def _forbid_region_redirect(context: dict[str, Any], **_more: object) -> None:
    """Make another region an error that names it: a redirect would leave the addresses that were checked."""
    context.setdefault("s3_redirect", {})["redirected"] = True


_UNSIGNED = Config(s3={"payload_signing_enabled": False})


def _leave_unsigned(request: Any, **_more: object) -> None:
    request.context["client_config"] = _UNSIGNED


def _require_signed_digest(request: Any, **_more: object) -> None:
    """Raise an error unless botocore signed the digest that the output had when it was received."""
    signed = request.headers.get("X-Amz-Content-SHA256", b"")
    digest = signed.decode() if isinstance(signed, bytes) else str(signed)
    if isinstance(request.body, UploadBody) and len(digest) == 64:
        request.body.require_digest(digest)
