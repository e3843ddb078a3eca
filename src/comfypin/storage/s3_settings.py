"""The settings of a bucket behind the S3 protocol: names, defaults and precedence of its variables in one place."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from comfypin.http.deadline import Deadline
from comfypin.http.proxies import Proxies
from comfypin.settings.errors import SettingInvalid, SettingMissing, SettingsConflict
from comfypin.settings.state import state_folder
from comfypin.settings.variables import require_header_safe, require_utf8
from comfypin.storage.bucket_variables import BucketVariables, parse_bucket_name
from comfypin.storage.endpoint import ParsedEndpoint, parse_server_address
from comfypin.storage.interface import DEFAULT_RETRIES, LONGEST_SIGNED_URL_S, BucketSettings
from comfypin.storage.s3_setting_names import S3SettingNames

Addressing = Literal["auto", "path", "virtual"]
MOST_WHOLE_BYTES = 5 << 30  # what S3 takes in one request
_RUNPOD_ENDPOINT = "BUCKET_ENDPOINT_URL"
_RUNPOD_PURPOSE = f"deliver outputs to {_RUNPOD_ENDPOINT}, whose address names no bucket"
_RUNPOD_KEYS = ("BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY", None)
_AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_UNSIGNED_HOST = ".runpod.io"  # a volume's S3 has no signed URLs
_OTHER_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", _RUNPOD_ENDPOINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Credentials:
    """A key pair and its session token; never shown."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings(BucketSettings):
    """A bucket behind the S3 protocol: AWS, R2, MinIO, Runpod volumes, ...

    `endpoint` never includes the bucket; None means AWS, unless the profile names one. Without a `region` the profile's
    is used, and without `credentials` what AWS's own clients find: a profile with a role, a program, SSO, a token of
    the platform, the container's or instance's role. `ca_bundle` is a file of certificates to trust instead of the
    system's; `notes` is the folder with the notes of multipart uploads. If `connect_to` is not empty, only these
    addresses are connected to, instead of the host name's; `deadline` limits all requests together. If `is_jobs_own` is
    true, nothing from the process's AWS files and variables is used. `names` says where the user set what.
    """

    endpoint: str | None = None
    region: str | None = None
    addressing: Addressing = "auto"
    credentials: S3Credentials | None = None
    ca_bundle: str | None = None
    proxies: Proxies = field(default_factory=Proxies)
    multipart_bytes: int | None = None
    public_base_url: str | None = None
    notes: Path | None = None
    connect_to: tuple[str, ...] = ()
    deadline: Deadline | None = field(default=None, repr=False, compare=False)
    is_jobs_own: bool = False
    names: S3SettingNames = field(default_factory=S3SettingNames)

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "S3Settings":
        """Read the variables; ours before AWS's before Runpod's. Raises `ConfigError`."""
        variables = BucketVariables(environment)
        parsed_endpoint = _find_endpoint(variables)
        # If the endpoint is from Runpod's variables, Runpod's keys belong to it.
        runpods_first = parsed_endpoint.given is not None and parsed_endpoint.given == variables.read_text(
            _RUNPOD_ENDPOINT
        )
        base_url = variables.read_text("S3_PUBLIC_BASE_URL")
        if base_url:
            parse_server_address(base_url, "S3_PUBLIC_BASE_URL")
        # An endpoint that names its region knows better than AWS's general variables.
        expected = "a region like eu-west-1"
        general_region = variables.read_token(
            variables.first_set_name("AWS_REGION", "AWS_DEFAULT_REGION"), expected=expected
        )
        region = variables.read_token("S3_REGION", expected=expected) or parsed_endpoint.region or general_region
        return cls(
            bucket=parsed_endpoint.bucket,
            prefix=variables.read_prefix("S3_PREFIX"),
            endpoint=parsed_endpoint.endpoint,
            region=region,
            addressing=_read_addressing(variables),
            credentials=_read_credentials(variables, runpods_first=runpods_first),
            ca_bundle=variables.read_certificates("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
            proxies=Proxies.from_variables(environment),
            validate=variables.read_flag("S3_VALIDATE", default=True),
            # Our retries replace AWS's own, which look only at status codes.
            retries=variables.read_count("S3_RETRIES", default=DEFAULT_RETRIES),
            multipart_bytes=variables.read_count("S3_MULTIPART_BYTES", default=0, maximum=MOST_WHOLE_BYTES) or None,
            signed_url_ttl_s=variables.read_count(
                "S3_SIGNED_URL_TTL",
                default=_usual_ttl_s(parsed_endpoint, base_url, is_runpods=runpods_first),
                maximum=LONGEST_SIGNED_URL_S,
            ),
            public_base_url=base_url.rstrip("/") if base_url else None,
            notes=state_folder(environment) / "uploads"
            if variables.read_text("COMFYPIN_STATE_DIR", "XDG_STATE_HOME", "HOME")
            else None,
            names=_find_names(variables, parsed_endpoint, runpods_first=runpods_first),
        )

    @classmethod
    def names_bucket(cls, environment: Mapping[str, str]) -> bool:
        """Return whether a variable, or the endpoint in one, names a bucket."""
        return _find_endpoint(BucketVariables(environment)).bucket is not None

    @classmethod
    def require_named_bucket(cls, environment: Mapping[str, str]) -> None:
        """Raise `SettingMissing` if Runpod's variable is the endpoint, and nothing names the bucket."""
        parsed_endpoint = _find_endpoint(variables := BucketVariables(environment))
        is_runpods = parsed_endpoint.given is not None and parsed_endpoint.given == variables.read_text(
            _RUNPOD_ENDPOINT
        )
        if is_runpods and parsed_endpoint.bucket is None:
            raise SettingMissing(
                variable="BUCKET_NAME",
                also=("S3_BUCKET",),
                purpose=f"{_RUNPOD_PURPOSE} (OUTPUT_MODE=base64 returns them in the results instead)",
            )

    def bucket_missing(self) -> SettingMissing:
        """Return the error if nothing names the bucket: Runpod's variable if the endpoint comes from Runpod's."""
        if self.names.endpoint == _RUNPOD_ENDPOINT:
            return SettingMissing(variable="BUCKET_NAME", also=("S3_BUCKET",), purpose=_RUNPOD_PURPOSE)
        return SettingMissing(variable="S3_BUCKET", purpose="deliver to S3 or R2")

    @property
    def public_base(self) -> str | None:
        """Return S3_PUBLIC_BASE_URL."""
        return self.public_base_url

    def for_job(self, s3_config: Mapping[str, object]) -> "S3Settings":
        """Return the settings with a Runpod job's own `s3Config`: bucket, endpoint and keys all come from the job.

        Raises `SettingInvalid` with the name of the field; its value is never shown.
        """

        def read_field(field_name: str) -> str:
            raw_value = s3_config.get(field_name)
            if not isinstance(raw_value, str) or not raw_value.strip():
                raise SettingInvalid(variable=f"s3Config.{field_name}", value="", expected="text that is not empty")
            return require_utf8(f"s3Config.{field_name}", raw_value.strip())

        bucket = parse_bucket_name(read_field("bucketName"), variable="s3Config.bucketName", scheme="s3")
        parsed_endpoint = ParsedEndpoint.parse(
            read_field("endpointUrl"), bucket=bucket, variable="s3Config.endpointUrl"
        )
        return replace(
            self,
            bucket=parsed_endpoint.bucket,
            endpoint=parsed_endpoint.endpoint,
            # Most services ignore the region, but a signature needs one.
            region=parsed_endpoint.region or "us-east-1",
            addressing="auto",
            credentials=S3Credentials(
                access_key_id=require_header_safe("s3Config.accessId", read_field("accessId")),
                secret_access_key=read_field("accessSecret"),
            ),
            public_base_url=None,
            is_jobs_own=True,
            names=S3SettingNames(
                bucket="s3Config.bucketName",
                endpoint="s3Config.endpointUrl",
                access_key_id="s3Config.accessId",
                secret_access_key="s3Config.accessSecret",  # noqa: S106  # a field's name
            ),
        )


def _find_endpoint(variables: BucketVariables) -> ParsedEndpoint:
    """Return the endpoint and bucket that the variables name. Raises `SettingInvalid`."""
    account_id = variables.read_text("R2_ACCOUNT_ID")
    if account_id and not re.fullmatch(r"[0-9A-Za-z]+", account_id):
        raise SettingInvalid(variable="R2_ACCOUNT_ID", value=account_id, expected="an account id of letters and digits")
    # A user who names their account means R2, whatever Runpod's template still says.
    names = ("S3_ENDPOINT_URL",) if account_id else ("S3_ENDPOINT_URL", *_OTHER_ENDPOINTS)
    variable_name = variables.first_set_name(*names)
    endpoint_url = variables.read_text(variable_name) or (
        f"https://{account_id}.r2.cloudflarestorage.com" if account_id else None
    )
    return ParsedEndpoint.parse(
        endpoint_url, bucket=variables.read_bucket("S3_BUCKET", "BUCKET_NAME", scheme="s3"), variable=variable_name
    )


def _key_variables(*, runpods_first: bool) -> tuple[tuple[str, str, str | None], ...]:
    return (_RUNPOD_KEYS, _AWS_KEYS) if runpods_first else (_AWS_KEYS, _RUNPOD_KEYS)


def _find_names(variables: BucketVariables, parsed_endpoint: ParsedEndpoint, *, runpods_first: bool) -> S3SettingNames:
    """Return the variables that say where the bucket is and whose keys are used."""
    key_name, secret_name = next(
        (names[:2] for names in _key_variables(runpods_first=runpods_first) if variables.read_text(names[0])),
        _AWS_KEYS[:2],
    )
    endpoint_name = (
        variables.first_set_name("S3_ENDPOINT_URL", "R2_ACCOUNT_ID", *_OTHER_ENDPOINTS)
        if parsed_endpoint.given
        else "S3_ENDPOINT_URL"
    )
    bucket_name = variables.first_set_name("S3_BUCKET", "BUCKET_NAME")
    is_in_endpoint = parsed_endpoint.bucket is not None and not variables.read_text(bucket_name)
    return S3SettingNames(
        bucket=endpoint_name if is_in_endpoint else bucket_name,
        endpoint=endpoint_name,
        access_key_id=key_name,
        secret_access_key=secret_name,
    )


def _usual_ttl_s(parsed_endpoint: ParsedEndpoint, base_url: str | None, *, is_runpods: bool) -> int:
    """Return how long URLs are valid if nobody says it.

    worker-comfyui, whose variables Runpod's are, answers with URLs of a week, which its clients fetch.
    """
    host_name = urlsplit(parsed_endpoint.endpoint or "").hostname or ""
    return LONGEST_SIGNED_URL_S if is_runpods and not base_url and not host_name.endswith(_UNSIGNED_HOST) else 0


def _read_addressing(variables: BucketVariables) -> Addressing:
    raw_value = (variables.read_text("S3_ADDRESSING_STYLE") or "auto").lower()
    match raw_value:
        case "auto" | "path" | "virtual":
            return raw_value
        case _:
            raise SettingInvalid(variable="S3_ADDRESSING_STYLE", value=raw_value, expected="auto, path or virtual")


def _read_credentials(variables: BucketVariables, *, runpods_first: bool) -> S3Credentials | None:
    """Return the first complete key pair. Keys and session token are never mixed from two sources."""
    for key_name, secret_name, token_name in _key_variables(runpods_first=runpods_first):
        key_id, secret = variables.read_header(key_name), variables.read_text(secret_name)
        if (key_id is None) != (secret is None):
            raise SettingsConflict(
                reason=f"Only one of {key_name} and {secret_name} is set", remedy="set both or neither"
            )
        if key_id and secret:
            token = variables.read_header(token_name) if token_name else None
            return S3Credentials(access_key_id=key_id, secret_access_key=secret, session_token=token)
    return None
