"""What the variables say of a bucket behind the S3 protocol: names, defaults and precedence in one place."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from comfypin.http.deadline import Deadline
from comfypin.http.proxies import Proxies
from comfypin.settings.errors import SettingInvalid, SettingsConflict
from comfypin.settings.state import state_folder
from comfypin.settings.variables import fit_for_headers, written
from comfypin.storage.endpoint import Place, checked_address
from comfypin.storage.interface import DEFAULT_RETRIES, LONGEST_SIGNED_URL_S, BucketSettings
from comfypin.storage.variables import BucketVariables, bucket_name

Addressing = Literal["auto", "path", "virtual"]
MOST_WHOLE_BYTES = 5 << 30  # what S3 takes in one request
_OTHER_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "BUCKET_ENDPOINT_URL")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Credentials:
    """A key pair and its session token; none of it is ever shown."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings(BucketSettings):
    """A bucket behind the S3 protocol: AWS, R2, MinIO, RunPod volumes, ...

    `endpoint` never holds the bucket; None means AWS, unless the profile names one. Without a `region` the profile's
    is used, and without `credentials` what AWS's own clients find: a profile with a role, a program, SSO, a token of
    the platform, the container's or instance's role. `ca_bundle` is a file of certificates to trust instead of the
    system's; in `notes` lies what uploads in parts are under way. `connect_to`, if not empty, are the addresses to
    connect to instead of the name's; `deadline` is for all that is ever asked of it. `is_jobs_own`: nothing of the
    process's AWS files and variables belongs to it.
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

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> "S3Settings":
        """Read the variables; ours before AWS's before RunPod's. Raises `ConfigError`."""
        env = BucketVariables(environ)
        place = _named_place(env)
        # Where the endpoint is that of RunPod's variables, their keys belong to it.
        runpods_first = place.given is not None and place.given == env.text("BUCKET_ENDPOINT_URL")
        base_url = env.text("S3_PUBLIC_BASE_URL")
        if base_url:
            checked_address(base_url, "S3_PUBLIC_BASE_URL")
        # An endpoint that names its region knows better than AWS's general variables.
        expected = "a region like eu-west-1"
        usual = env.token(env.first("AWS_REGION", "AWS_DEFAULT_REGION"), expected=expected)
        region = env.token("S3_REGION", expected=expected) or place.region or usual
        return cls(
            bucket=place.bucket,
            prefix=env.prefix("S3_PREFIX"),
            endpoint=place.endpoint,
            region=region,
            addressing=_addressing(env),
            credentials=_credentials(env, runpods_first=runpods_first),
            ca_bundle=env.certificates("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
            proxies=Proxies.from_variables(environ),
            validate=env.flag("S3_VALIDATE", default=True),
            retries=env.count("S3_RETRIES", default=DEFAULT_RETRIES),
            multipart_bytes=env.count("S3_MULTIPART_BYTES", default=0, maximum=MOST_WHOLE_BYTES) or None,
            signed_url_ttl_s=env.count("S3_SIGNED_URL_TTL", default=0, maximum=LONGEST_SIGNED_URL_S),
            public_base_url=base_url.rstrip("/") if base_url else None,
            notes=state_folder(environ) / "uploads"
            if env.text("COMFYPIN_STATE_DIR", "XDG_STATE_HOME", "HOME")
            else None,
        )

    @classmethod
    def names_bucket(cls, environ: Mapping[str, str]) -> bool:
        """Whether a variable, or the endpoint in one, names a bucket."""
        return _named_place(BucketVariables(environ)).bucket is not None

    @property
    def public_base(self) -> str | None:
        """S3_PUBLIC_BASE_URL."""
        return self.public_base_url

    def for_job(self, s3_config: Mapping[str, object]) -> "S3Settings":
        """The same with a RunPod job's own `s3Config`: bucket, endpoint and keys are the job's, all of them or none.

        Raises `SettingInvalid` naming the field; the values are never shown.
        """

        def text(name: str) -> str:
            value = s3_config.get(name)
            if not isinstance(value, str) or not value.strip():
                raise SettingInvalid(variable=f"s3Config.{name}", value="", expected="a text that is not empty")
            return written(f"s3Config.{name}", value.strip())

        bucket = bucket_name(text("bucketName"), variable="s3Config.bucketName", scheme="s3")
        place = Place.parse(text("endpointUrl"), bucket=bucket, variable="s3Config.endpointUrl")
        return replace(
            self,
            bucket=place.bucket,
            endpoint=place.endpoint,
            region=place.region or "us-east-1",
            addressing="auto",
            credentials=S3Credentials(
                access_key_id=fit_for_headers("s3Config.accessId", text("accessId")),
                secret_access_key=text("accessSecret"),
            ),
            public_base_url=None,
            is_jobs_own=True,
        )


def _named_place(env: BucketVariables) -> Place:
    """The place that the variables name. Raises `SettingInvalid`."""
    account = env.text("R2_ACCOUNT_ID")
    if account and not re.fullmatch(r"[0-9A-Za-z]+", account):
        raise SettingInvalid(variable="R2_ACCOUNT_ID", value=account, expected="an account id")
    # A user who names their account means R2, whatever RunPod's template still says.
    names = ("S3_ENDPOINT_URL",) if account else ("S3_ENDPOINT_URL", *_OTHER_ENDPOINTS)
    variable = env.first(*names)
    url = env.text(variable) or (f"https://{account}.r2.cloudflarestorage.com" if account else None)
    return Place.parse(url, bucket=env.bucket("S3_BUCKET", "BUCKET_NAME", scheme="s3"), variable=variable)


def _addressing(env: BucketVariables) -> Addressing:
    value = (env.text("S3_ADDRESSING_STYLE") or "auto").lower()
    match value:
        case "auto" | "path" | "virtual":
            return value
        case _:
            raise SettingInvalid(variable="S3_ADDRESSING_STYLE", value=value, expected="auto, path or virtual")


def _credentials(env: BucketVariables, *, runpods_first: bool) -> S3Credentials | None:
    """The first complete key pair; a pair is never mixed from two sources, nor a session token added from another."""
    runpods = ("BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY", None)
    aws = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    for key_name, secret_name, token_name in (runpods, aws) if runpods_first else (aws, runpods):
        key, secret = env.header(key_name), env.text(secret_name)
        if (key is None) != (secret is None):
            raise SettingsConflict(
                reason=f"Of {key_name} and {secret_name} only one is set", remedy="set both or neither"
            )
        if key and secret:
            token = env.header(token_name) if token_name else None
            return S3Credentials(access_key_id=key, secret_access_key=secret, session_token=token)
    return None
