"""What Google Cloud Storage said, as one of our errors."""

import json
import re
from typing import TYPE_CHECKING

from comfypin.errors import StorageError
from comfypin.errors.storage import (
    BucketMissing,
    ChecksumMismatch,
    ClockSkewed,
    CredentialsRefused,
    NotAStore,
    ObjectMissing,
    PermissionMissing,
    ProviderSaid,
    PublicAccessImpossible,
    StoreBusy,
    StoreRefused,
    StoreUnreachable,
)
from comfypin.storage.dial import unreached
from comfypin.storage.network_errors import is_page
from comfypin.storage.proxy import Proxy, ProxyFailed
from comfypin.storage.redaction import redacted
from comfypin.storage.wire import Answer

if TYPE_CHECKING:
    from google.auth.exceptions import GoogleAuthError

_NEW_KEY = "make a new key and name its file in GOOGLE_APPLICATION_CREDENTIALS"
_GIVES_TOKENS = "Google's token service"
_ELSEWHERE = {301, 302, 303, 307}
_PASSING_STATUS = {308, 408, 429, 500, 502, 503, 504}


class RefusedRequest(Exception):
    """An HTTP answer that is no success."""

    def __init__(self, *, status: int, reason: str) -> None:
        super().__init__(f"HTTP {status}: {reason}")
        self.status = status
        self.reason = reason

    @classmethod
    def of(cls, answer: Answer) -> "RefusedRequest":
        """The status, and Google's message where there is one."""
        try:
            reason = str(json.loads(answer.data)["error"]["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            reason = "a web page" if is_page(answer.text) else answer.text[:200]
        return cls(status=answer.status, reason=" ".join(reason.split()))


def explained(exc: Exception, *, bucket: str, action: str, uri: str) -> tuple[StorageError, ProviderSaid]:
    """The error that says what happened and what to do, and the original's words without what may be secret."""
    store = f"gs://{bucket}"
    match exc:
        case RefusedRequest():
            cause = ProviderSaid(f"{type(exc).__name__}: {redacted(str(exc))[:500]}")
            return _answered(exc.status, exc.reason, store=store, action=action, uri=uri), cause
        case OSError():
            # The text of the original may quote a request; its kind is enough.
            return unreached(exc, store=store), ProviderSaid(type(exc).__name__)
        case _:
            raise AssertionError(f"not an error of requests: {type(exc).__name__}")


def without_token(exc: "GoogleAuthError", *, store: str, proxy: Proxy | None) -> tuple[StorageError, ProviderSaid]:
    """Why no token could be had, and what Google's library, which goes by the proxy too, said of it."""
    from google.auth.exceptions import TransportError

    cause = ProviderSaid(f"{type(exc).__name__}: {redacted(str(exc))[:500]}")
    if proxy is not None and type(exc.__cause__).__name__ == "ProxyError":
        status = re.search(r"Tunnel connection failed: (\d{3})", str(exc))
        failed = ProxyFailed.of_status(proxy, int(status[1])) if status else ProxyFailed.unreachable(proxy)
        return failed.error(_GIVES_TOKENS), cause
    if isinstance(exc, TransportError) or exc.retryable:
        return StoreUnreachable(store=_GIVES_TOKENS, reason="no token could be had"), cause
    return _without_token(str(exc), store), cause


def _answered(status: int, reason: str, *, store: str, action: str, uri: str) -> StorageError:
    lowered = reason.lower()
    if status in _PASSING_STATUS:
        return StoreBusy(store=store, status=status)
    if status in _ELSEWHERE or reason == "a web page":
        said = "leads elsewhere" if status in _ELSEWHERE else "sends a web page"
        return NotAStore(store=store, status=status, said=said, variable="HTTPS_PROXY and STORAGE_EMULATOR_HOST")
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
    if status == 404 and action == "read":
        return ObjectMissing(uri=uri)
    if status == 404:
        return BucketMissing(store=store, variable="GCS_BUCKET")
    return StoreRefused(store=store, action=f"{action} {uri or 'it'}", status=status, code="", reason=_words(reason))


def _words(text: str) -> str:
    """Google's own words, without what may be secret."""
    return redacted(text)[:300]


def _without_token(text: str, store: str) -> StorageError:
    lowered = text.lower()
    if "reasonable timeframe" in lowered or "token used too early" in lowered or "iat and exp" in lowered:
        return ClockSkewed(store=store)
    reason = "they have expired or were revoked" if "expired" in lowered or "invalid_grant" in lowered else "no token"
    return CredentialsRefused(store=store, reason=reason, remedy=_NEW_KEY)
