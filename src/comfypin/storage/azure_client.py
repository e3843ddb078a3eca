"""The clients of azure-storage-blob, set up from the settings, and the translation of their failures to our errors."""

from typing import Any

import requests
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, ContainerClient
from urllib3.exceptions import HTTPError

from comfypin.errors import ConfigError, StorageError
from comfypin.settings.errors import SettingInvalid, SettingMissing
from comfypin.storage import network_errors
from comfypin.storage.azure_settings import AzureSettings
from comfypin.storage.errors import (
    BucketMissing,
    ChecksumMismatch,
    ClockSkewed,
    CredentialsMissing,
    CredentialsRefused,
    NotAStore,
    ObjectMissing,
    PermissionMissing,
    ProviderError,
    StoreBusy,
    StoreRefused,
    add_request_id,
)
from comfypin.storage.network_errors import StoreProxyFailed
from comfypin.storage.redaction import redact_secrets
from comfypin.storage.sdk_session import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, make_session

_NONSENSE = (ValueError, TypeError, KeyError, AttributeError)
FAILURES = (AzureError, requests.RequestException, HTTPError, StoreProxyFailed, *_NONSENSE)
_STORE = "Azure Blob Storage"
_CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
# Few requests for a model of gigabytes, little memory for each.
_READ_BYTES = 8 << 20
# The statuses that Azure's own retry policy repeats.
_PASSING_STATUS = {408, 429, 500, 502, 503, 504}
_PAGES_STATUS = {*range(200, 400), 400, 401, 403, 404, 405}
_DAMAGED = {"Md5Mismatch", "InvalidMd5"}
_REFUSED = {
    "AuthenticationFailed": "the key or signature is not this account's, or has expired",
    "InvalidAuthenticationInfo": "they are not accepted",
    "NoAuthenticationInformation": "there are none",
    "KeyBasedAuthenticationNotPermitted": "the account takes no keys",
    "AccountIsDisabled": "the account is disabled",
}
_CHECK_KEYS = f"check AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or {_CONNECTION_STRING}"
_GRANT = "grant the role Storage Blob Data Contributor on the container (a SAS token needs the permissions rcwd)"


def open_container(settings: AzureSettings) -> ContainerClient:
    """Return the client of the settings' container. Raises `ConfigError`, `CredentialsMissing`."""
    container_name = str(settings.bucket)
    if settings.connection_string is None:
        account_url, credential = _find_account(settings)
        return ContainerClient(account_url, container_name, credential=credential, **_client_options(settings))
    try:
        return ContainerClient.from_connection_string(
            settings.connection_string, container_name, **_client_options(settings)
        )
    except ValueError:
        # From None: the original may quote a part of it.
        raise SettingInvalid(variable=_CONNECTION_STRING, expected="a connection string of a storage account") from None


def open_service(settings: AzureSettings) -> BlobServiceClient:
    """Return the client of the account itself. Raises `ConfigError`, `CredentialsMissing`."""
    account_url, credential = _find_account(settings)
    return BlobServiceClient(account_url, credential=credential, **_client_options(settings))


def _client_options(settings: AzureSettings) -> dict[str, Any]:
    session = make_session(settings.proxies, ca_bundle=settings.ca_bundle)
    return {
        "transport": RequestsTransport(session=session, session_owner=False),
        "retry_total": 0,  # the retries are ours: they know what passes, and are counted
        # A redirect would carry the credentials to another server.
        "permit_redirects": False,
        "connection_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "max_single_get_size": _READ_BYTES,
        "max_chunk_get_size": _READ_BYTES,
    }


def _find_account(settings: AzureSettings) -> tuple[str, Any]:
    """Return the account's URL and the credential for it. Raises `ConfigError`, `CredentialsMissing`."""
    if settings.account_url is None:
        raise SettingMissing(
            variable="AZURE_STORAGE_ACCOUNT", purpose="find the storage account", also=(_CONNECTION_STRING,)
        )
    if settings.account_key is not None:
        if settings.account is None:
            raise SettingMissing(variable="AZURE_STORAGE_ACCOUNT", purpose="sign with AZURE_STORAGE_KEY")
        return settings.account_url, AzureNamedKeyCredential(settings.account, settings.account_key)
    if settings.sas_token is not None:
        return settings.account_url, AzureSasCredential(settings.sas_token)
    return settings.account_url, _platform_identity(settings)


def _platform_identity(settings: AzureSettings) -> Any:
    """Return what azure-identity finds: a managed or workload identity, variables, Azure's command line."""
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        remedy = (
            f"set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or {_CONNECTION_STRING}; for managed and workload "
            "identities install azure-identity"
        )
        raise CredentialsMissing(store=_STORE, remedy=remedy) from None
    session = make_session(settings.proxies, ca_bundle=settings.ca_bundle)
    return DefaultAzureCredential(transport=RequestsTransport(session=session, session_owner=False))


def is_claimed_success(exception: Exception) -> bool:
    """Return whether the server reports success, but in a form that Azure never sends."""
    if isinstance(exception, HttpResponseError):
        return exception.status_code is not None and exception.status_code < 300 and not _is_page(exception)
    return isinstance(exception, _NONSENSE) and not isinstance(exception, requests.RequestException)


def explain_failure(
    exception: Exception, *, settings: AzureSettings, action: str, object_uri: str
) -> tuple[StorageError | ConfigError, ProviderError]:
    """Return the error that says what happened and what to do, and the kind of the original without secrets."""
    store_name = f"az://{settings.bucket}"
    original = ProviderError(type(exception).__name__)
    match exception:
        case StoreProxyFailed():
            return exception.to_storage_error(store_name), original
        case HttpResponseError() if exception.response is not None:
            error = _explain_response(exception, store_name=store_name, action=action, object_uri=object_uri)
            response: Any = exception.response
            return add_request_id(error, response.headers.get("x-ms-request-id")), original
        case ClientAuthenticationError():
            remedy = f"azure-identity found none that works; {_CHECK_KEYS}"
            return CredentialsMissing(store=_STORE, remedy=remedy), original
        case AzureError() | requests.RequestException() | HTTPError():
            inner_error = getattr(exception, "inner_exception", None) or exception
            proxy = settings.proxies.for_address(settings.account_url or "https://")
            return network_errors.explain_network_failure(inner_error, store_name=store_name, proxy=proxy), original
        case _:
            return StoreBusy(store=store_name, status=200, code="not a response of Azure"), original


def _explain_response(exception: HttpResponseError, *, store_name: str, action: str, object_uri: str) -> StorageError:
    http_status = int(exception.status_code or 0)
    provider_code = getattr(exception, "error_code", None) or ""
    error_code = str(getattr(provider_code, "value", provider_code))
    message = " ".join(str(exception.message).split())
    if _is_page(exception) or (300 <= http_status < 400 and http_status != 304):
        shown_message = "sends a web page" if _is_page(exception) else "leads elsewhere"
        return NotAStore(
            store=store_name, status=http_status, said=shown_message, variable="AZURE_ENDPOINT_URL and HTTPS_PROXY"
        )
    if http_status in _PASSING_STATUS:
        return StoreBusy(store=store_name, status=http_status, code=error_code)
    if error_code in _DAMAGED or (http_status == 400 and "md5" in message.lower()):
        return ChecksumMismatch(uri=object_uri, kind="md5", expected="the file's", actual="another one")
    if http_status in {401, 403}:
        return _explain_denial(http_status, error_code, message, store_name=store_name, action=action)
    if http_status == 404:
        is_object = (
            isinstance(exception, ResourceNotFoundError)
            and action in ("read", "delete")
            and error_code != "ContainerNotFound"
        )
        return (
            ObjectMissing(uri=object_uri) if is_object else BucketMissing(store=store_name, variable="AZURE_CONTAINER")
        )
    if error_code == "InvalidBlockList" or http_status < 300:
        return StoreBusy(store=store_name, status=http_status, code=error_code or "not a response of Azure")
    shown_message = redact_secrets(message.partition(" RequestId:")[0])[:300]
    return StoreRefused(
        store=store_name, action=f"{action} {object_uri}", status=http_status, code=error_code, reason=shown_message
    )


def _explain_denial(http_status: int, error_code: str, message: str, *, store_name: str, action: str) -> StorageError:
    # The message may hold the string that was signed: it is looked at, and not passed on.
    if "date header too old" in message.lower():
        return ClockSkewed(store=store_name)
    if error_code in _REFUSED or http_status == 401:
        return CredentialsRefused(
            store=store_name, reason=_REFUSED.get(error_code, "they are not accepted"), remedy=_CHECK_KEYS
        )
    return PermissionMissing(store=store_name, action=f"{action} objects", remedy=_GRANT)


def _is_page(exception: HttpResponseError) -> bool:
    response: Any = exception.response
    if response is None or response.status_code not in _PAGES_STATUS:
        return False
    try:
        response_text = str(response.body()[:200].decode("latin-1"))
    except (AttributeError, AzureError, requests.RequestException):
        return False
    return network_errors.is_web_page(response_text)
