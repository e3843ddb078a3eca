"""The settings of Google Cloud Storage, read from the variables."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfypin.http.proxies import Proxies
from comfypin.settings.errors import SettingInvalid
from comfypin.storage.bucket_variables import BucketVariables
from comfypin.storage.endpoint import parse_server_address
from comfypin.storage.interface import DEFAULT_RETRIES, LONGEST_SIGNED_URL_S, BucketSettings

DEFAULT_BASE_SLEEP_S = 0.5
_KEY, _KEY_AS_JSON = "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS_JSON"


@dataclass(frozen=True, slots=True, kw_only=True)
class GcsSettings(BucketSettings):
    """Google Cloud Storage, as the `GCS_*` variables describe it.

    `credentials_file` names a key file, or `credentials_info` is the content of one; `credentials_named` says in words
    which variable gave it. Without either, the platform's credentials are used.
    """

    project: str | None = None
    credentials_file: Path | None = None
    credentials_info: Mapping[str, Any] | None = field(default=None, repr=False)
    credentials_named: str | None = None
    retry_base_sleep_s: float = DEFAULT_BASE_SLEEP_S
    public: bool = False
    endpoint: str | None = None
    ca_bundle: str | None = None
    proxies: Proxies = field(default_factory=Proxies)

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "GcsSettings":
        """Read the variables. Raises `SettingInvalid`."""
        variables = BucketVariables(environment)
        endpoint = variables.read_text("STORAGE_EMULATOR_HOST")
        # Emulators print host:port, and that is what people copy.
        if endpoint and "://" not in endpoint:
            endpoint = f"http://{endpoint}"
        if endpoint:
            parse_server_address(endpoint, "STORAGE_EMULATOR_HOST")
        return cls(
            bucket=variables.read_bucket("GCS_BUCKET", scheme="gs"),
            prefix=variables.read_prefix("GCS_PREFIX"),
            project=variables.read_text("GOOGLE_CLOUD_PROJECT", "GCS_PROJECT"),
            **_find_key(variables),
            retries=variables.read_count("GCS_RETRIES", default=DEFAULT_RETRIES),
            retry_base_sleep_s=variables.read_seconds("GCS_RETRY_BASE_SLEEP", default=DEFAULT_BASE_SLEEP_S),
            public=variables.read_flag("GCS_PUBLIC", default=False),
            signed_url_ttl_s=variables.read_count("GCS_SIGNED_URL_TTL", default=0, maximum=LONGEST_SIGNED_URL_S),
            validate=variables.read_flag("GCS_VALIDATE", default=True),
            endpoint=endpoint.rstrip("/") if endpoint else None,
            ca_bundle=variables.read_certificates("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
            proxies=Proxies.from_variables(environment),
        )

    @classmethod
    def names_bucket(cls, environment: Mapping[str, str]) -> bool:
        """Return whether GCS_BUCKET is set."""
        return BucketVariables(environment).read_text("GCS_BUCKET") is not None

    @property
    def public_base(self) -> str | None:
        """Return Google's URL of the bucket if its objects are public."""
        return f"https://storage.googleapis.com/{self.bucket}" if self.public else None


def _find_key(variables: BucketVariables) -> dict[str, Any]:
    """Find the key: JSON in a variable (platforms' secrets can only be variables) before a file.

    Raises `SettingInvalid`.
    """
    for variable_name in (_KEY_AS_JSON, _KEY):
        raw_value = variables.read_text(variable_name)
        if raw_value is not None and (variable_name == _KEY_AS_JSON or raw_value.startswith("{")):
            return {
                "credentials_info": _parse_key(raw_value, variable_name),
                "credentials_named": f"the key is in {variable_name}",
            }
    key_file = variables.read_file_path(_KEY)
    return {"credentials_file": key_file, "credentials_named": f"{_KEY} names {key_file}" if key_file else None}


def _parse_key(raw_value: str, variable_name: str) -> Mapping[str, Any]:
    try:
        key_document = json.loads(raw_value)
    except (ValueError, RecursionError):
        key_document = None
    if not isinstance(key_document, dict):
        # From None: Python's error for invalid JSON holds the text, which is a key.
        raise SettingInvalid(variable=variable_name, expected="the JSON of a service account's key file") from None
    return key_document
