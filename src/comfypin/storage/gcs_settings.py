"""What the variables say of Google Cloud Storage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.storage.endpoint import checked_address
from comfypin.storage.interface import DEFAULT_RETRIES, LONGEST_SIGNED_URL_S, BucketSettings
from comfypin.storage.proxy import Proxies
from comfypin.storage.variables import Variables

DEFAULT_BASE_SLEEP_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class GcsSettings(BucketSettings):
    """Google Cloud Storage, as the `GCS_*` variables describe it."""

    project: str | None = None
    credentials_file: Path | None = None
    retry_base_sleep_s: float = DEFAULT_BASE_SLEEP_S
    public: bool = False
    endpoint: str | None = None
    ca_bundle: str | None = None
    proxies: Proxies = field(default_factory=Proxies)

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> "GcsSettings":
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

    @classmethod
    def names_bucket(cls, environ: Mapping[str, str]) -> bool:
        """Whether GCS_BUCKET is set."""
        return Variables(environ).text("GCS_BUCKET") is not None

    @property
    def public_base(self) -> str | None:
        """Google's own address of the bucket, if its objects are public."""
        return f"https://storage.googleapis.com/{self.bucket}" if self.public else None
