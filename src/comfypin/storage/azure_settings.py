"""What the variables say of Azure Blob Storage."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfypin.http.proxies import Proxies
from comfypin.settings.errors import SettingInvalid
from comfypin.storage.endpoint import checked_address
from comfypin.storage.interface import DEFAULT_RETRIES, LONGEST_SIGNED_URL_S, BucketSettings
from comfypin.storage.variables import BucketVariables


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSettings(BucketSettings):
    """A container of Azure Blob Storage; `bucket` is its name.

    Credentials are the first of `connection_string`, `account_key`, `sas_token`, and what azure-identity finds.
    """

    account: str | None = None
    endpoint: str | None = None
    connection_string: str | None = field(default=None, repr=False)
    account_key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)
    public_base_url: str | None = None
    ca_bundle: str | None = None
    proxies: Proxies = field(default_factory=Proxies)

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> "AzureSettings":
        """Read the variables; those that Azure's own tools read keep their names. Raises `ConfigError`."""
        env = BucketVariables(environ)
        account = env.first("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")
        endpoint, public = env.text("AZURE_ENDPOINT_URL"), env.text("AZURE_PUBLIC_BASE_URL")
        for url, variable in ((endpoint, "AZURE_ENDPOINT_URL"), (public, "AZURE_PUBLIC_BASE_URL")):
            if url is not None:
                checked_address(url, variable)
        sas_token = env.header("AZURE_STORAGE_SAS_TOKEN")
        return cls(
            bucket=env.bucket("AZURE_CONTAINER", scheme="az"),
            prefix=env.prefix("AZURE_PREFIX"),
            account=env.token(account, expected="the name of a storage account"),
            endpoint=endpoint.rstrip("/") if endpoint else None,
            connection_string=env.text("AZURE_STORAGE_CONNECTION_STRING"),
            account_key=_account_key(env),
            sas_token=sas_token.removeprefix("?") if sas_token else None,
            retries=env.count("AZURE_RETRIES", default=DEFAULT_RETRIES),
            validate=env.flag("AZURE_VALIDATE", default=True),
            signed_url_ttl_s=env.count("AZURE_SIGNED_URL_TTL", default=0, maximum=LONGEST_SIGNED_URL_S),
            public_base_url=public.rstrip("/") if public else None,
            ca_bundle=env.certificates("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
            proxies=Proxies.from_variables(environ),
        )

    @classmethod
    def names_bucket(cls, environ: Mapping[str, str]) -> bool:
        """Whether AZURE_CONTAINER is set."""
        return BucketVariables(environ).text("AZURE_CONTAINER") is not None

    @property
    def public_base(self) -> str | None:
        """AZURE_PUBLIC_BASE_URL."""
        return self.public_base_url

    @property
    def account_url(self) -> str | None:
        """The address of the account, None if nothing names one."""
        return self.endpoint or (f"https://{self.account}.blob.core.windows.net" if self.account else None)


def _account_key(env: BucketVariables) -> str | None:
    variable = env.first("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY")
    value = env.text(variable)
    if value is not None:
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise SettingInvalid(variable=variable, expected="the key of a storage account, which is base64") from None
    return value
