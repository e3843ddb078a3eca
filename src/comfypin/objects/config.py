"""What the variables say of buckets, as frozen values: names, defaults and precedence in one place."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from comfypin.errors.storage import KeyInvalid, SettingInvalid, SettingsConflict
from comfypin.objects.aws_profile import AwsProfile, S3Credentials
from comfypin.objects.endpoint import Place, checked_address
from comfypin.objects.keys import clean_prefix
from comfypin.objects.proxy import Proxies
from comfypin.settings import fit_for_headers, state_folder

DEFAULT_PREFIX = "comfy/outputs"
DEFAULT_RETRIES = 3
DEFAULT_BASE_SLEEP_S = 0.5
_LONGEST_PATH = 1024
_LONGEST_PREFIX_BYTES = 512  # of the 1024 of a key: job and name need the rest
LONGEST_SIGNED_URL_S = 7 * 24 * 3600  # of both GCS and S3

Addressing = Literal["auto", "path", "virtual"]
MOST_WHOLE_BYTES = 5 << 30  # what S3 takes in one request
_OTHER_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "BUCKET_ENDPOINT_URL")
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


class Variables:
    """Environment variables by name; empty ones count as unset; every mistake names its variable."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, *names: str) -> str | None:
        """The first of these variables that is set. Raises `SettingInvalid` where it is no text at all."""
        for name in names:
            if value := self._environ.get(name, "").strip():
                return written(name, value)
        return None

    def first(self, *names: str) -> str:
        """Which of these variables `text` takes; the first where none is set."""
        return next((name for name in names if self._environ.get(name, "").strip()), names[0])

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is None:
            return default
        if value.lower() not in _TRUE | _FALSE:
            raise SettingInvalid(variable=name, value=value, expected="true or false")
        return value.lower() in _TRUE

    def count(self, name: str, *, default: int, maximum: int | None = None) -> int:
        """A whole number from 0. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,15}", value) or (maximum is not None and int(value) > maximum):
            limit = f"a whole number from 0{f' to {maximum}' if maximum is not None else ''}"
            raise SettingInvalid(variable=name, value=value, expected=limit)
        return int(value)

    def seconds(self, name: str, *, default: float) -> float:
        """A number of seconds from 0. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}", value):
            raise SettingInvalid(variable=name, value=value, expected="a number of seconds")
        return float(value)

    def header(self, name: str) -> str | None:
        """A key id or token, which goes into headers. Raises `ConfigError`, which does not show it."""
        value = self.text(name)
        return None if value is None else fit_for_headers(name, value)

    def file(self, name: str) -> Path | None:
        """The path of a file. Raises `SettingInvalid` where it is, as it happens, what such a file holds."""
        value = self.text(name)
        if value is None:
            return None
        if value.startswith("{") or len(value) > _LONGEST_PATH or not value.isprintable():
            raise SettingInvalid(variable=name, expected="the path of a file; write it to one, and name that")
        return Path(value).expanduser()

    def certificates(self, *names: str) -> str | None:
        """The file or folder of certificates to trust. Raises `SettingInvalid`."""
        name = self.first(*names)
        path = self.file(name)
        if path is not None and not path.exists():
            raise SettingInvalid(variable=name, value=str(path), expected="a file of certificates: nothing is there")
        return str(path) if path else None

    def token(self, name: str, *, expected: str) -> str | None:
        """One word without what would change an address or a signature. Raises `SettingInvalid`."""
        value = self.text(name)
        if value is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
            raise SettingInvalid(variable=name, value=value, expected=expected)
        return value

    def bucket(self, *names: str, scheme: str) -> str | None:
        """The name of a bucket, or its address. Raises `SettingInvalid`."""
        name = self.first(*names)
        value = self.text(name)
        return None if value is None else bucket_name(value, variable=name, scheme=scheme)

    def prefix(self, name: str) -> str:
        """A prefix for keys; `/` alone means none. Raises `SettingInvalid`."""
        value = self.text(name) or DEFAULT_PREFIX
        try:
            prefix = clean_prefix(value)
            if len(prefix.encode()) > _LONGEST_PREFIX_BYTES:
                raise KeyInvalid(key=prefix, reason="no room is left for names")
            return prefix
        except KeyInvalid as exc:
            raise SettingInvalid(variable=name, value=value, expected="a beginning of keys like a/b") from exc


def written(variable: str, value: str) -> str:
    """The value, if it is text: bytes that are no UTF-8, and half characters, are not. Raises `SettingInvalid`."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SettingInvalid(variable=variable, expected="text in UTF-8") from None
    return value


def bucket_name(text: str, *, variable: str, scheme: str) -> str:
    """A bucket's name from itself or its address, `s3://name`. Raises `SettingInvalid`."""
    name = text.removeprefix(f"{scheme}://").rstrip("/")
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,253}[A-Za-z0-9])?", name):
        expected = f"the name of a bucket alone (what keys begin with is {'GCS' if scheme == 'gs' else 'S3'}_PREFIX)"
        raise SettingInvalid(variable=variable, value=None if "@" in text else text, expected=expected)
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class GcsConfig:
    """Google Cloud Storage, as the `GCS_*` variables describe it."""

    bucket: str | None = None
    prefix: str = DEFAULT_PREFIX
    project: str | None = None
    credentials_file: Path | None = None
    retries: int = DEFAULT_RETRIES
    retry_base_sleep_s: float = DEFAULT_BASE_SLEEP_S
    public: bool = False
    signed_url_ttl_s: int = 0
    validate: bool = True
    endpoint: str | None = None
    ca_bundle: str | None = None
    proxies: Proxies = field(default_factory=Proxies)

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> "GcsConfig":
        """Read the variables. Raises `SettingInvalid`."""
        env = Variables(environ)
        endpoint = env.text("STORAGE_EMULATOR_HOST")
        if endpoint and "://" not in endpoint:
            endpoint = f"http://{endpoint}"
        if endpoint:
            checked_address(endpoint, "STORAGE_EMULATOR_HOST")
        return cls(
            bucket=env.bucket("GCS_BUCKET", scheme="gs"),
            prefix=env.prefix("GCS_PREFIX"),
            project=env.text("GOOGLE_CLOUD_PROJECT", "GCS_PROJECT"),
            credentials_file=env.file("GOOGLE_APPLICATION_CREDENTIALS"),
            retries=env.count("GCS_RETRIES", default=DEFAULT_RETRIES),
            retry_base_sleep_s=env.seconds("GCS_RETRY_BASE_SLEEP", default=DEFAULT_BASE_SLEEP_S),
            public=env.flag("GCS_PUBLIC", default=False),
            signed_url_ttl_s=env.count("GCS_SIGNED_URL_TTL", default=0, maximum=LONGEST_SIGNED_URL_S),
            validate=env.flag("GCS_VALIDATE", default=True),
            endpoint=endpoint.rstrip("/") if endpoint else None,
            ca_bundle=env.certificates("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
            proxies=Proxies.from_variables(environ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformKeys:
    """Where a platform lends keys: for a role against the token in a file, or at a container's address."""

    token_file: Path | None = None
    role_arn: str | None = None
    session_name: str = "comfypin"
    sts_url: str = ""
    container_url: str | None = None
    container_token: str | None = field(default=None, repr=False)
    container_token_file: Path | None = None

    @classmethod
    def from_variables(cls, env: Variables, *, region: str) -> "PlatformKeys | None":
        """The variables that platforms set, as AWS's own clients read them; None where they set none."""
        token_file = env.text("AWS_WEB_IDENTITY_TOKEN_FILE")
        relative = env.text("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        container = f"http://169.254.170.2{relative}" if relative else env.text("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        if token_file is None and container is None:
            return None
        authorization = env.text("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
        return cls(
            token_file=Path(token_file) if token_file else None,
            role_arn=env.text("AWS_ROLE_ARN"),
            session_name=env.text("AWS_ROLE_SESSION_NAME") or "comfypin",
            sts_url=(env.text("AWS_ENDPOINT_URL_STS") or f"https://sts.{region}.amazonaws.com").rstrip("/"),
            container_url=container,
            container_token=env.text("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
            container_token_file=Path(authorization) if authorization else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """A bucket behind the S3 protocol: AWS, R2, MinIO, RunPod volumes, ...

    `endpoint` never holds the bucket; None means AWS. Without `credentials` those of the `platform` are used, or of the
    instance this runs on. `ca_bundle` is a file of certificates to trust instead of the system's; in `notes` lies what
    uploads in parts are under way. `connect_to`, where not empty, are the addresses to dial instead of the name's.
    """

    bucket: str | None = None
    prefix: str = DEFAULT_PREFIX
    endpoint: str | None = None
    region: str = "us-east-1"
    addressing: Addressing = "auto"
    credentials: S3Credentials | None = None
    platform: "PlatformKeys | None" = None
    ca_bundle: str | None = None
    proxies: Proxies = field(default_factory=Proxies)
    validate: bool = True
    retries: int = DEFAULT_RETRIES
    multipart_bytes: int | None = None
    signed_url_ttl_s: int = 0
    public_base_url: str | None = None
    notes: Path | None = None
    connect_to: tuple[str, ...] = ()

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> "S3Config":
        """Read the variables; ours before AWS's before RunPod's. Raises `ConfigError`."""
        env = Variables(environ)
        profile = _profile(env)
        place = _named_place(env, otherwise=profile.endpoint)
        # Where the endpoint is that of RunPod's variables, their keys belong to it.
        runpods_first = place.given is not None and place.given == env.text("BUCKET_ENDPOINT_URL")
        base_url = env.text("S3_PUBLIC_BASE_URL")
        if base_url:
            checked_address(base_url, "S3_PUBLIC_BASE_URL")
        # An endpoint that names its region knows better than AWS's general variables.
        expected = "a region like eu-west-1"
        usual = env.token(env.first("AWS_REGION", "AWS_DEFAULT_REGION"), expected=expected) or profile.region
        region = env.token("S3_REGION", expected=expected) or place.region or usual or "us-east-1"
        return cls(
            bucket=place.bucket,
            prefix=env.prefix("S3_PREFIX"),
            endpoint=place.endpoint,
            region=region,
            addressing=_addressing(env),
            credentials=_credentials(env, profile, runpods_first=runpods_first),
            platform=PlatformKeys.from_variables(env, region=region),
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

    def for_job(self, s3_config: Mapping[str, object]) -> "S3Config":
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
        )


def configured_bucket(environ: Mapping[str, str]) -> Literal["gcs", "s3"] | None:
    """Where a bucket is configured, GCS first. Keys and the rest are not looked at: they may be meant for others.

    Raises `SettingInvalid`.
    """
    env = Variables(environ)
    if env.text("GCS_BUCKET"):
        return "gcs"
    return "s3" if _named_place(env).bucket else None


def _named_place(env: Variables, *, otherwise: str | None = None) -> Place:
    """The place that the variables name, else that of an endpoint. Raises `SettingInvalid`."""
    account = env.text("R2_ACCOUNT_ID")
    if account and not re.fullmatch(r"[0-9A-Za-z]+", account):
        raise SettingInvalid(variable="R2_ACCOUNT_ID", value=account, expected="an account id")
    # A user who names their account means R2, whatever RunPod's template still says.
    names = ("S3_ENDPOINT_URL",) if account else ("S3_ENDPOINT_URL", *_OTHER_ENDPOINTS)
    variable = env.first(*names)
    url = env.text(variable) or (f"https://{account}.r2.cloudflarestorage.com" if account else otherwise)
    return Place.parse(url, bucket=env.bucket("S3_BUCKET", "BUCKET_NAME", scheme="s3"), variable=variable)


def _addressing(env: Variables) -> Addressing:
    value = (env.text("S3_ADDRESSING_STYLE") or "auto").lower()
    match value:
        case "auto" | "path" | "virtual":
            return value
        case _:
            raise SettingInvalid(variable="S3_ADDRESSING_STYLE", value=value, expected="auto, path or virtual")


def _credentials(env: Variables, profile: AwsProfile, *, runpods_first: bool) -> S3Credentials | None:
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
    if profile.credentials is None and (name := env.text("AWS_PROFILE")):
        raise SettingsConflict(
            reason=f"AWS_PROFILE is {name!r}, and AWS's files have no keys for it",
            remedy="choose another profile, or, where its keys come by SSO or a role, run "
            f'eval "$(aws configure export-credentials --profile {name} --format env)"',
        )
    return profile.credentials


def _profile(env: Variables) -> AwsProfile:
    """What AWS_PROFILE, or `default`, says in the files of `aws configure`."""
    home = env.text("HOME")

    def path(variable: str, usual: str) -> Path | None:
        text = env.text(variable) or (f"{home}/.aws/{usual}" if home else None)
        return Path(text).expanduser() if text else None

    return AwsProfile.read(
        env.text("AWS_PROFILE"),
        credentials_file=path("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        config_file=path("AWS_CONFIG_FILE", "config"),
    )
