"""boto3's client of one bucket, set up so that every S3 server understands it; what it finds out is ours to say.

The client is botocore's, as boto3's own is; boto3's resources and transfer manager, which are not used here, would
cost 0.1 s of CPU at each start.
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
from comfypin.settings.errors import SettingMissing
from comfypin.storage.endpoint import Place
from comfypin.storage.errors import ProviderSaid
from comfypin.storage.redaction import redact_library_logs
from comfypin.storage.s3_errors import (
    BODY,
    LENDER,
    STATUS,
    S3Place,
    explained_failure,
    no_credentials,
    refuse_page,
    without_credentials,
)
from comfypin.storage.s3_settings import S3Settings
from comfypin.storage.s3_transport import READ_TIMEOUT_S, Transport
from comfypin.storage.upload_body import UploadBody

_USUAL_REGION = "us-east-1"
_LENDS_KEYS = ("sts", "sso", "sso-oidc")


class S3Client:
    """One bucket. Safe for threads. `call` is any operation of boto3's client."""

    def __init__(self, settings: S3Settings, *, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        redact_library_logs()
        session = _session(settings)
        settings = _with_profile(settings, session)
        if settings.bucket is None:
            raise SettingMissing(variable="S3_BUCKET", purpose="deliver to S3 or R2")
        region = settings.region or _USUAL_REGION
        self.place = S3Place(bucket=settings.bucket, endpoint=settings.endpoint, region=region)
        self._transport = Transport(
            self.place.name,
            ca_bundle=settings.ca_bundle,
            proxies=settings.proxies,
            connect_to=settings.connect_to,
            deadline=settings.deadline,
            read_timeout_s=read_timeout_s,
        )
        self._client = _client(settings, session, region, self.place)
        address = urlsplit(self._client.meta.endpoint_url)
        self.is_encrypted = address.scheme == "https"
        self.is_aws = str(address.hostname).endswith((".amazonaws.com", ".amazonaws.com.cn"))
        self._register()

    @property
    def name(self) -> str:
        """The bucket and where it is."""
        return self.place.name

    def hurried(self) -> AbstractContextManager[None]:
        """Within, answers have to come soon."""
        return self._transport.hurried()

    def uri(self, key: str) -> str:
        """The object in words."""
        return f"s3://{self.place.bucket}/{key}"

    def call(self, operation: str, key: str = "", *, action: str, **parameters: Any) -> dict[str, Any]:
        """Ask the server, once; `action` says for what. Returns botocore's form of the answer.

        Raises `StorageError`, `ConfigError`, and whatever a body's pace raises.
        """
        named = {"Bucket": self.place.bucket, **({"Key": key} if key else {})}
        with self.failures_named(key, action):
            answer: dict[str, Any] = getattr(self._client, operation)(**named, **parameters)
        return answer

    @contextmanager
    def failures_named(self, key: str, action: str) -> Iterator[None]:
        """Make our errors of botocore's."""
        try:
            yield
        except (ClientError, BotoCoreError, ResponseParserError, OSError, ValueError) as exc:
            error, cause = explained_failure(exc, place=self.place, action=action, uri=self.uri(key))
            raise error from cause

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """A presigned GET (signature version 4)."""
        with self.failures_named(key, "sign"):
            named = {"Bucket": self.place.bucket, "Key": key}
            url: str = self._client.generate_presigned_url("get_object", Params=named, ExpiresIn=ttl_s)
        return url

    def _register(self) -> None:
        events = self._client.meta.events
        # The header costs a round trip an object, and half a second where a server does not know it.
        events.unregister("before-call.s3", add_expect_header)
        # Servers have rules of their own: Ceph's buckets may be called tenant:bucket.
        events.unregister("before-parameter-build.s3", validate_bucket_name)
        events.register("before-call.s3", _follow_no_region)
        events.register_first("before-send.s3", _require_signed_digest)
        events.register("before-send.s3", self._transport)
        events.register("before-parse.s3", self._look_at_answer)
        if self.is_encrypted:
            # TLS notices every change on the way, and a second digest would cost as much as the sending.
            events.register_first("before-sign.s3.UploadPart", _leave_unsigned)

    def _look_at_answer(
        self, response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_more: object
    ) -> None:
        status, body = int(response_dict["status_code"]), response_dict["body"]
        customized_response_dict[STATUS] = status
        if isinstance(body, bytes):
            customized_response_dict[BODY] = body[:4096]
            refuse_page(status, body, self.place)


def _session(settings: S3Settings) -> botocore.session.Session:
    """A session; without AWS's variables and files for a job's own bucket, or if they are wrong and not needed."""
    nowhere: tuple[object, ...] = (None, [], "/dev/null", None)
    alone = {"profile": (None, [], None, None), "config_file": nowhere, "credentials_file": nowhere}
    if settings.is_jobs_own:
        return botocore.session.Session(session_vars=alone)
    session = botocore.session.Session()
    try:
        session.get_scoped_config()
    except BotoCoreError as exc:
        if settings.credentials is None:
            raise without_credentials(exc, f"s3://{settings.bucket}") from ProviderSaid(type(exc).__name__)
        return botocore.session.Session(session_vars=alone)
    return session


def _with_profile(settings: S3Settings, session: botocore.session.Session) -> S3Settings:
    """The settings with the region and endpoint of the profile, where the variables name none."""
    url = session.get_scoped_config().get("endpoint_url")
    region = settings.region or session.get_config_variable("region")
    if settings.endpoint is None and isinstance(url, str):
        place = Place.parse(url, bucket=settings.bucket, variable="endpoint_url of the AWS profile")
        region = settings.region or place.region or region
        return replace(settings, endpoint=place.endpoint, bucket=place.bucket, region=region)
    return replace(settings, region=region)


def _client(settings: S3Settings, session: botocore.session.Session, region: str, place: S3Place) -> Any:
    # The services that lend credentials are AWS's, whatever the region of another store is called.
    of_aws = region if settings.endpoint is None else session.get_config_variable("region") or _USUAL_REGION
    session.set_config_variable("region", of_aws)
    given: dict[str, str | None] = {}
    if settings.credentials is None:
        _require_credentials(settings, session, place)
    else:
        given = {
            "aws_access_key_id": settings.credentials.access_key_id,
            "aws_secret_access_key": settings.credentials.secret_access_key,
            "aws_session_token": settings.credentials.session_token,
        }
    return session.create_client(
        "s3",
        region_name=region,
        # What the process's variables say of endpoints was read by the settings; a job's bucket has its own.
        endpoint_url=settings.endpoint,
        config=_config(settings),
        **given,
    )


def _require_credentials(settings: S3Settings, session: botocore.session.Session, place: S3Place) -> None:
    """Have the session look for credentials. Raises `CredentialsMissing`, `ConfigError`."""
    if settings.endpoint is not None:
        # An instance's keys are AWS's; elsewhere there is nobody at the metadata service's address.
        session.get_component("credential_provider").remove("iam-role")
    lender = Transport(LENDER, ca_bundle=settings.ca_bundle, proxies=settings.proxies)
    for service in _LENDS_KEYS:
        session.register(f"before-send.{service}", lender)
    try:
        if session.get_credentials() is None:
            raise no_credentials(place.name)
    except (BotoCoreError, OSError, ValueError) as exc:
        raise without_credentials(exc, place.name) from ProviderSaid(type(exc).__name__)


def _config(settings: S3Settings) -> Config:
    style = settings.addressing
    if style == "auto":
        # AWS wants virtual hosts, except where dots in the bucket's name would break TLS; others know paths best.
        style = "virtual" if settings.endpoint is None and "." not in str(settings.bucket) else "path"
    return Config(
        # Checksums that AWS's clients add since 2025 are refused by R2, B2 and others.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # Without, us-east-1 signs URLs with version 2, which AWS has given up.
        signature_version="s3v4",
        # Retries are ours: they look at more than status codes.
        retries={"mode": "standard", "total_max_attempts": 1},
        s3={"addressing_style": style, "us_east_1_regional_endpoint": "regional"},
        use_dualstack_endpoint=None if settings.endpoint is None else False,
        use_fips_endpoint=None if settings.endpoint is None else False,
        # botocore makes its own anew for each request, which costs more than signing it.
        user_agent=f"comfypin/{__version__} Botocore/{botocore.__version__}",
    )


def _follow_no_region(context: dict[str, Any], **_more: object) -> None:
    """A bucket in another region is an error that names it: a redirect would leave addresses that were checked."""
    context.setdefault("s3_redirect", {})["redirected"] = True


_UNSIGNED = Config(s3={"payload_signing_enabled": False})


def _leave_unsigned(request: Any, **_more: object) -> None:
    request.context["client_config"] = _UNSIGNED


def _require_signed_digest(request: Any, **_more: object) -> None:
    """What botocore hashed to sign it has to be what was hashed when the output was received."""
    signed = request.headers.get("X-Amz-Content-SHA256", b"")
    digest = signed.decode() if isinstance(signed, bytes) else str(signed)
    if isinstance(request.body, UploadBody) and len(digest) == 64:
        request.body.require_digest(digest)
