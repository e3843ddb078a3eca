"""The settings of Azure Blob Storage, read from the variables."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfypin.http.proxies import Proxies
from comfypin.settings.errors import SettingInvalid
from comfypin.storage.bucket_variables import BucketVariables
from comfypin.storage.endpoint import parse_server_address
from comfypin.storage.interface import DEFAULT_RETRIES, LONGEST_SIGNED_URL_S, BucketSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSettings(BucketSettings):
    """A container of Azure Blob Storage; `read_bucket` is its name.

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
    def from_variables(cls, environment: Mapping[str, str]) -> "AzureSettings":
        """Read the variables; those that Azure's own tools read keep their names. Raises `ConfigError`."""
        variables = BucketVariables(environment)
        account = variables.first_set_name("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")
        endpoint, public = variables.read_text("AZURE_ENDPOINT_URL"), variables.read_text("AZURE_PUBLIC_BASE_URL")
        for url, variable_name in ((endpoint, "AZURE_ENDPOINT_URL"), (public, "AZURE_PUBLIC_BASE_URL")):
            if url is not None:
                parse_server_address(url, variable_name)
        sas_token = variables.read_header("AZURE_STORAGE_SAS_TOKEN")
        return cls(
            bucket=variables.read_bucket("AZURE_CONTAINER", scheme="az"),
            prefix=variables.read_prefix("AZURE_PREFIX"),
            account=variables.read_token(account, expected="the name of a storage account"),
            endpoint=endpoint.rstrip("/") if endpoint else None,
            connection_string=variables.read_text("AZURE_STORAGE_CONNECTION_STRING"),
            account_key=_account_key(variables),
            # Azure's portal shows SAS tokens with a question mark in front.
            sas_token=sas_token.removeprefix("?") if sas_token else None,
            retries=variables.read_count("AZURE_RETRIES", default=DEFAULT_RETRIES),
            validate=variables.read_flag("AZURE_VALIDATE", default=True),
            signed_url_ttl_s=variables.read_count("AZURE_SIGNED_URL_TTL", default=0, maximum=LONGEST_SIGNED_URL_S),
            public_base_url=public.rstrip("/") if public else None,
            ca_bundle=variables.read_certificates("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
            proxies=Proxies.from_variables(environment),
        )

    @classmethod
    def names_bucket(cls, environment: Mapping[str, str]) -> bool:
        """Return whether AZURE_CONTAINER is set."""
        return BucketVariables(environment).read_text("AZURE_CONTAINER") is not None

    @property
    def public_base(self) -> str | None:
        """Return AZURE_PUBLIC_BASE_URL."""
        return self.public_base_url

    @property
    def account_url(self) -> str | None:
        """Return the URL of the account, None if no variable names one."""
        return self.endpoint or (f"https://{self.account}.blob.core.windows.net" if self.account else None)


def _account_key(variables: BucketVariables) -> str | None:
    variable_name = variables.first_set_name("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY")
    account_key = variables.read_text(variable_name)
    if account_key is not None:
        try:
            # Checked here, because the client library would complain only at the first request.
            base64.b64decode(account_key, validate=True)
        except (binascii.Error, ValueError):
            raise SettingInvalid(
                variable=variable_name, expected="the key of a storage account, which is base64"
            ) from None
    return account_key
