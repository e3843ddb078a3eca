"""Translates what Google Cloud Storage or its client library says into our errors."""

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
    ProviderError,
    ProxyRefused,
    PublicAccessImpossible,
    StoreBusy,
    StoreRefused,
    StoreUnreachable,
    add_request_id,
)
from comfypin.storage.network_errors import StoreProxyFailed
from comfypin.storage.redaction import redact_secrets

GIVES_TOKENS = "Google's token service"
# What the library makes of a body that is not Google's.
NONSENSE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
FAILURES = (GoogleAPICallError, InvalidResponse, requests.RequestException, StoreProxyFailed, *NONSENSE)

_NEW_KEY = "make a new key and name its file in GOOGLE_APPLICATION_CREDENTIALS"
_ENDPOINT = "HTTPS_PROXY and STORAGE_EMULATOR_HOST"
# 308 is "resume incomplete": Google's word for an upload session that goes on.
_PASSING_STATUS = {308, 408, 429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307}
# https://cloud.google.com/storage/docs/resumable-uploads
_LOST_SESSION_STATUS = {400, 404, 410}
# Services answer with pages of XML or JSON; the first lines hold the sentence.
_LONGEST_SAID = 300


class SessionLost(Exception):
    """Raised when an upload session cannot go on and the upload must start again; `error` says why."""

    def __init__(self, error: StorageError) -> None:
        super().__init__(error.message)
        self.error = error


def response_of(exception: BaseException) -> requests.Response | None:
    """Return the response that an exception of the library carries, if any."""
    explained = getattr(exception, "response", None)
    return explained if isinstance(explained, requests.Response) else None


def is_claimed_success(exception: BaseException) -> bool:
    """Return whether the server reports success, but the library finds something wrong."""
    response = response_of(exception)
    if response is not None:
        return response.status_code < 300
    if isinstance(exception, requests.RequestException):  # some are ValueErrors too, for example for an invalid URL
        return isinstance(exception, requests.exceptions.JSONDecodeError)
    return isinstance(exception, NONSENSE)


def explain_failure(
    exception: Exception, *, bucket: str, action: str, object_uri: str, proxy: Proxy | None
) -> tuple[StorageError, ProviderError]:
    """Return the error that says what happened and what to do, and the kind of the original without secrets."""
    store_name = f"gs://{bucket}"
    original = ProviderError(type(exception).__name__)
    response = response_of(exception)
    match exception:
        case StoreProxyFailed():
            return exception.to_storage_error(store_name), original
        case _ if response is not None and not isinstance(exception, NONSENSE):
            error = _explain_response(response, store=store_name, action=action, uri=object_uri)
            return add_request_id(error, _request_id(response)), original
        case requests.exceptions.JSONDecodeError() if network_errors.is_web_page(str(exception.doc)):
            return NotAStore(store=store_name, status=200, said="sends a web page", variable=_ENDPOINT), original
        case ValueError() | TypeError() | KeyError() | AttributeError() | RecursionError():
            return StoreBusy(store=store_name, status=200, code="not a response of Google"), original
        case _:
            return network_errors.explain_network_failure(exception, store_name=store_name, proxy=proxy), original


def to_session_lost(exception: Exception, error: StorageError, *, store_name: str) -> SessionLost | None:
    """Return why an upload session cannot go on, if the error means that."""
    response = response_of(exception)
    if response is None or not _is_of_session(response) or response.status_code not in _LOST_SESSION_STATUS:
        return None
    is_damage = isinstance(error, ChecksumMismatch)
    return SessionLost(error if is_damage else StoreBusy(store=store_name, status=response.status_code))


def refuse_page(exception: Exception, store_name: str) -> None:
    """Raise `NotAStore` if a reported success is a web page."""
    response = response_of(exception)
    body_text = (
        str(exception.doc)
        if isinstance(exception, requests.exceptions.JSONDecodeError)
        else response.text
        if response
        else ""
    )
    if network_errors.is_web_page(body_text):
        raise NotAStore(store=store_name, status=200, said="sends a web page", variable=_ENDPOINT) from None


def explain_missing_token(
    exception: GoogleAuthError, *, store_name: str, proxy: Proxy | None
) -> tuple[StorageError, ProviderError]:
    """Return why there is no token, and google-auth's own words, without secrets."""
    original = ProviderError(f"{type(exception).__name__}: {redact_secrets(str(exception))[:500]}")
    if proxy is not None and type(exception.__cause__).__name__ == "ProxyError":
        return network_errors.explain_network_failure(exception, store_name=GIVES_TOKENS, proxy=proxy), original
    if isinstance(exception, TransportError) or exception.retryable:
        explained = network_errors.explain_network_failure(exception, store_name=GIVES_TOKENS)
        return (explained if isinstance(explained, ProxyRefused) else _no_token_now()), original
    lower_message = str(exception).lower()
    if (
        "reasonable timeframe" in lower_message
        or "token used too early" in lower_message
        or "iat and exp" in lower_message
    ):
        return ClockSkewed(store=store_name), original
    expired = "expired" in lower_message or "invalid_grant" in lower_message
    reason = "they have expired or were revoked" if expired else "no token"
    return CredentialsRefused(store=store_name, reason=reason, remedy=_NEW_KEY), original


def _no_token_now() -> StoreUnreachable:
    return StoreUnreachable(store=GIVES_TOKENS, reason="no token could be had")


def _explain_response(response: requests.Response, *, store: str, action: str, uri: str) -> StorageError:
    status, reason = response.status_code, _google_message(response)
    lowered = reason.lower()
    if status in _PASSING_STATUS:
        return StoreBusy(store=store, status=status)
    if status in _REDIRECTS or reason == "a web page":
        not_a_store_reason = "leads elsewhere" if status in _REDIRECTS else "sends a web page"
        return NotAStore(store=store, status=status, said=not_a_store_reason, variable=_ENDPOINT)
    if status == 400 and ("crc32c" in lowered or "md5" in lowered):
        return ChecksumMismatch(uri=uri, kind="crc32c", expected="the file's", actual="another one")
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
    not_a_store_reason = redact_secrets(reason)[:_LONGEST_SAID]
    return StoreRefused(
        store=store, action=f"{action} {uri or 'it'}", status=status, code="", reason=not_a_store_reason
    )


def _google_message(response: requests.Response) -> str:
    """Return Google's message, if there is one."""
    body_text = response.text
    try:
        message: Any = json.loads(body_text)["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = "a web page" if network_errors.is_web_page(body_text) else body_text[:_LONGEST_SAID]
    return " ".join(str(message).split())


def _request_id(response: requests.Response) -> str | None:
    # In an upload session this is the session's id, and whoever has it may write the object.
    return None if _is_of_session(response) else response.headers.get("x-guploader-uploadid")


def _is_of_session(response: requests.Response) -> bool:
    return "upload_id=" in str(response.url)
