"""What Google Cloud Storage or its client library said, as one of our errors."""

import json
from typing import Any

import requests
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.storage.exceptions import InvalidResponse

from comfypin.errors import StorageError
from comfypin.http.proxies import Proxy
from comfypin.storage import network_errors
from comfypin.storage.errors import (
    BucketMissing,
    ChecksumMismatch,
    ClockSkewed,
    CredentialsRefused,
    NotAStore,
    ObjectMissing,
    PermissionMissing,
    ProviderSaid,
    ProxyRefused,
    PublicAccessImpossible,
    StoreBusy,
    StoreRefused,
    StoreUnreachable,
    with_request_id,
)
from comfypin.storage.network_errors import ProxyFailed
from comfypin.storage.redaction import redacted

GIVES_TOKENS = "Google's token service"
# What the library makes of a body that is not Google's.
NONSENSE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
FAILURES = (GoogleAPICallError, InvalidResponse, requests.RequestException, ProxyFailed, *NONSENSE)

_NEW_KEY = "make a new key and name its file in GOOGLE_APPLICATION_CREDENTIALS"
_ENDPOINT = "HTTPS_PROXY and STORAGE_EMULATOR_HOST"
_PASSING_STATUS = {308, 408, 429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307}
_LOST_SESSION_STATUS = {400, 404, 410}
_LONGEST_SAID = 300


class SessionLost(Exception):
    """An upload session that cannot go on; the upload has to begin anew. `error` says why."""

    def __init__(self, error: StorageError) -> None:
        super().__init__(error.message)
        self.error = error


def response_of(exc: BaseException) -> requests.Response | None:
    """The response that an exception of the library is about."""
    found = getattr(exc, "response", None)
    return found if isinstance(found, requests.Response) else None


def is_claimed_success(exc: BaseException) -> bool:
    """Whether the server said that all is well, and the library finds that something is not."""
    response = response_of(exc)
    if response is not None:
        return response.status_code < 300
    if isinstance(exc, requests.RequestException):  # some are ValueErrors: an address that is none
        return isinstance(exc, requests.exceptions.JSONDecodeError)
    return isinstance(exc, NONSENSE)


def explained(
    exc: Exception, *, bucket: str, action: str, uri: str, proxy: Proxy | None
) -> tuple[StorageError, ProviderSaid]:
    """Return the error that says what happened and what to do, and the original's kind without what may be secret."""
    store = f"gs://{bucket}"
    said = ProviderSaid(type(exc).__name__)
    response = response_of(exc)
    match exc:
        case ProxyFailed():
            return exc.error(store), said
        case _ if response is not None and not isinstance(exc, NONSENSE):
            error = _answered(response, store=store, action=action, uri=uri)
            return with_request_id(error, _request_id(response)), said
        case requests.exceptions.JSONDecodeError() if network_errors.is_page(str(exc.doc)):
            return NotAStore(store=store, status=200, said="sends a web page", variable=_ENDPOINT), said
        case ValueError() | TypeError() | KeyError() | AttributeError() | RecursionError():
            return StoreBusy(store=store, status=200, code="its answer is not Google's"), said
        case _:
            return network_errors.explained(exc, store=store, proxy=proxy), said


def lost_session(exc: Exception, error: StorageError, *, store: str) -> SessionLost | None:
    """Return why an upload session cannot go on, if that is what an error means."""
    response = response_of(exc)
    if response is None or not _is_of_session(response) or response.status_code not in _LOST_SESSION_STATUS:
        return None
    is_damage = isinstance(error, ChecksumMismatch)
    return SessionLost(error if is_damage else StoreBusy(store=store, status=response.status_code))


def refuse_page(exc: Exception, store: str) -> None:
    """Raises `NotAStore` if a claimed success is a web page."""
    response = response_of(exc)
    text = str(exc.doc) if isinstance(exc, requests.exceptions.JSONDecodeError) else response.text if response else ""
    if network_errors.is_page(text):
        raise NotAStore(store=store, status=200, said="sends a web page", variable=_ENDPOINT) from None


def without_token(exc: GoogleAuthError, *, store: str, proxy: Proxy | None) -> tuple[StorageError, ProviderSaid]:
    """Return why no token could be had, and what google-auth said of it, without secrets."""
    said = ProviderSaid(f"{type(exc).__name__}: {redacted(str(exc))[:500]}")
    if proxy is not None and type(exc.__cause__).__name__ == "ProxyError":
        return network_errors.explained(exc, store=GIVES_TOKENS, proxy=proxy), said
    if isinstance(exc, TransportError) or exc.retryable:
        found = network_errors.explained(exc, store=GIVES_TOKENS)
        return (found if isinstance(found, ProxyRefused) else _no_token_now()), said
    lowered = str(exc).lower()
    if "reasonable timeframe" in lowered or "token used too early" in lowered or "iat and exp" in lowered:
        return ClockSkewed(store=store), said
    expired = "expired" in lowered or "invalid_grant" in lowered
    reason = "they have expired or were revoked" if expired else "no token"
    return CredentialsRefused(store=store, reason=reason, remedy=_NEW_KEY), said


def _no_token_now() -> StoreUnreachable:
    return StoreUnreachable(store=GIVES_TOKENS, reason="no token could be had")


def _answered(response: requests.Response, *, store: str, action: str, uri: str) -> StorageError:
    status, reason = response.status_code, _reason(response)
    lowered = reason.lower()
    if status in _PASSING_STATUS:
        return StoreBusy(store=store, status=status)
    if status in _REDIRECTS or reason == "a web page":
        said = "leads elsewhere" if status in _REDIRECTS else "sends a web page"
        return NotAStore(store=store, status=status, said=said, variable=_ENDPOINT)
    if status == 400 and ("crc32c" in lowered or "md5" in lowered):
        return ChecksumMismatch(uri=uri, kind="crc32c", expected="another one", actual="not what the file has")
    if "uniform bucket-level access" in lowered:
        return PublicAccessImpossible(store=store, reason="it has uniform bucket-level access")
    if "public access prevention" in lowered:
        return PublicAccessImpossible(store=store, reason="it enforces public access prevention")
    if status == 401:
        return CredentialsRefused(store=store, reason="they are not accepted", remedy=_NEW_KEY)
    if status == 403:
        remedy = "grant roles/storage.objectUser on the bucket"
        return PermissionMissing(store=store, action=f"{action} objects", remedy=remedy)
    if status == 404:
        return (
            ObjectMissing(uri=uri)
            if action in {"read", "read back"}
            else BucketMissing(store=store, variable="GCS_BUCKET")
        )
    said = redacted(reason)[:_LONGEST_SAID]
    return StoreRefused(store=store, action=f"{action} {uri or 'it'}", status=status, code="", reason=said)


def _reason(response: requests.Response) -> str:
    """Return Google's message, if there is one."""
    text = response.text
    try:
        said: Any = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        said = "a web page" if network_errors.is_page(text) else text[:_LONGEST_SAID]
    return " ".join(str(said).split())


def _request_id(response: requests.Response) -> str | None:
    # In a session this is the session's own id, and whoever has it may write the object.
    return None if _is_of_session(response) else response.headers.get("x-guploader-uploadid")


def _is_of_session(response: requests.Response) -> bool:
    return "upload_id=" in str(response.url)
