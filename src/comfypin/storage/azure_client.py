"""azure-storage-blob's clients, set up by the settings; what goes wrong in them, as one of our errors."""

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
    ProviderSaid,
    StoreBusy,
    StoreRefused,
    with_request_id,
)
from comfypin.storage.network_errors import ProxyFailed
from comfypin.storage.redaction import redacted
from comfypin.storage.sdk_session import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, session_for

_NONSENSE = (ValueError, TypeError, KeyError, AttributeError)
FAILURES = (AzureError, requests.RequestException, HTTPError, ProxyFailed, *_NONSENSE)
_STORE = "Azure Blob Storage"
_CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
_READ_BYTES = 8 << 20
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
    name = str(settings.bucket)
    if settings.connection_string is None:
        account_url, credential = _account(settings)
        return ContainerClient(account_url, name, credential=credential, **_options(settings))
    try:
        return ContainerClient.from_connection_string(settings.connection_string, name, **_options(settings))
    except ValueError:
        # From None: the original may quote a part of it.
        raise SettingInvalid(variable=_CONNECTION_STRING, expected="a connection string of a storage account") from None


def open_service(settings: AzureSettings) -> BlobServiceClient:
    """Return the client of the account itself. Raises `ConfigError`, `CredentialsMissing`."""
    account_url, credential = _account(settings)
    return BlobServiceClient(account_url, credential=credential, **_options(settings))


def _options(settings: AzureSettings) -> dict[str, Any]:
    session = session_for(settings.proxies, ca_bundle=settings.ca_bundle)
    return {
        "transport": RequestsTransport(session=session, session_owner=False),
        "retry_total": 0,  # the retries are ours: they know what passes, and are counted
        "permit_redirects": False,
        "connection_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "max_single_get_size": _READ_BYTES,
        "max_chunk_get_size": _READ_BYTES,
    }


def _account(settings: AzureSettings) -> tuple[str, Any]:
    """Return the account's address and what opens it."""
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
    return settings.account_url, _identity(settings)


def _identity(settings: AzureSettings) -> Any:
    """Return what azure-identity finds: a managed or workload identity, variables, Azure's command line."""
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        remedy = (
            f"set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or {_CONNECTION_STRING}; for managed and workload "
            "identities install azure-identity"
        )
        raise CredentialsMissing(store=_STORE, remedy=remedy) from None
    session = session_for(settings.proxies, ca_bundle=settings.ca_bundle)
    return DefaultAzureCredential(transport=RequestsTransport(session=session, session_owner=False))


def is_claimed_success(exc: Exception) -> bool:
    """Whether the server said that all is well, but not as Azure does."""
    if isinstance(exc, HttpResponseError):
        return exc.status_code is not None and exc.status_code < 300 and not _is_page(exc)
    return isinstance(exc, _NONSENSE) and not isinstance(exc, requests.RequestException)


def explained(
    exc: Exception, *, settings: AzureSettings, action: str, uri: str
) -> tuple[StorageError | ConfigError, ProviderSaid]:
    """Return the error that says what happened and what to do, and the original's kind without what may be secret."""
    store = f"az://{settings.bucket}"
    said = ProviderSaid(type(exc).__name__)
    match exc:
        case ProxyFailed():
            return exc.error(store), said
        case HttpResponseError() if exc.response is not None:
            error = _answered(exc, store=store, action=action, uri=uri)
            response: Any = exc.response
            return with_request_id(error, response.headers.get("x-ms-request-id")), said
        case ClientAuthenticationError():
            remedy = f"azure-identity found none that works; {_CHECK_KEYS}"
            return CredentialsMissing(store=_STORE, remedy=remedy), said
        case AzureError() | requests.RequestException() | HTTPError():
            inner = getattr(exc, "inner_exception", None) or exc
            proxy = settings.proxies.for_address(settings.account_url or "https://")
            return network_errors.explained(inner, store=store, proxy=proxy), said
        case _:
            return StoreBusy(store=store, status=200, code="its answer is not Azure's"), said


def _answered(exc: HttpResponseError, *, store: str, action: str, uri: str) -> StorageError:
    status = int(exc.status_code or 0)
    found = getattr(exc, "error_code", None) or ""
    code = str(getattr(found, "value", found))
    message = " ".join(str(exc.message).split())
    if _is_page(exc) or (300 <= status < 400 and status != 304):
        words = "sends a web page" if _is_page(exc) else "leads elsewhere"
        return NotAStore(store=store, status=status, said=words, variable="AZURE_ENDPOINT_URL and HTTPS_PROXY")
    if status in _PASSING_STATUS:
        return StoreBusy(store=store, status=status, code=code)
    if code in _DAMAGED or (status == 400 and "md5" in message.lower()):
        return ChecksumMismatch(uri=uri, kind="md5", expected="another one", actual="not what the file has")
    if status in {401, 403}:
        return _denied(status, code, message, store=store, action=action)
    if status == 404:
        is_object = isinstance(exc, ResourceNotFoundError) and action == "read" and code != "ContainerNotFound"
        return ObjectMissing(uri=uri) if is_object else BucketMissing(store=store, variable="AZURE_CONTAINER")
    if code == "InvalidBlockList" or status < 300:
        return StoreBusy(store=store, status=status, code=code or "its answer is not Azure's")
    words = redacted(message.partition(" RequestId:")[0])[:300]
    return StoreRefused(store=store, action=f"{action} {uri}", status=status, code=code, reason=words)


def _denied(status: int, code: str, message: str, *, store: str, action: str) -> StorageError:
    # The message may hold the string that was signed: it is looked at, and not passed on.
    if "date header too old" in message.lower():
        return ClockSkewed(store=store)
    if code in _REFUSED or status == 401:
        return CredentialsRefused(store=store, reason=_REFUSED.get(code, "they are not accepted"), remedy=_CHECK_KEYS)
    return PermissionMissing(store=store, action=f"{action} objects", remedy=_GRANT)


def _is_page(exc: HttpResponseError) -> bool:
    response: Any = exc.response
    if response is None or response.status_code not in _PAGES_STATUS:
        return False
    try:
        text = str(response.body()[:200].decode("latin-1"))
    except (AttributeError, AzureError, requests.RequestException):
        return False
    return network_errors.is_page(text)
