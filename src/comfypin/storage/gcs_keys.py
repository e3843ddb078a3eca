"""Who asks Google: tokens for requests and signatures for URLs, by Google's own library of credentials."""

import hashlib
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from comfypin.errors.storage import CredentialsMissing, SdkMissing, SigningImpossible, StoreUnreachable
from comfypin.storage.gcs_errors import without_token
from comfypin.storage.gcs_settings import GcsSettings

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

_SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"
_AUTHORITY = "https://oauth2.googleapis.com"
_ALGORITHM = "GOOG4-RSA-SHA256"


class GcsKeys:
    """The credentials of a bucket; none where an emulator is asked and no file is named. Safe for threads."""

    def __init__(self, config: GcsSettings) -> None:
        self._store = f"gs://{config.bucket}"
        bare = config.endpoint is not None and config.credentials_file is None
        self._credentials = None if bare else credentials_of(config)
        # An emulator takes no tokens, and asking Google for one on its behalf would be odd.
        self._gives_tokens = config.endpoint is None
        self._proxy = config.proxies.to(_AUTHORITY) if self._gives_tokens else None
        self._lock = threading.Lock()

    def headers(self, method: str, url: str) -> Mapping[str, str]:
        """Those that say who asks. Raises `StorageError` where no token can be had."""
        if self._credentials is None or not self._gives_tokens:
            return {}
        headers: dict[str, str] = {}
        with self._lock, self._failures_named():
            self._credentials.before_request(_transport(), method, url, headers)
        return headers

    def renew(self) -> bool:
        """Have a new token, if tokens are given at all: the one that there was is not accepted."""
        if self._credentials is None or not self._gives_tokens:
            return False
        with self._lock, self._failures_named():
            self._credentials.refresh(_transport())
        return True

    def signed_url(self, endpoint: str, path: str, *, ttl_s: int, now: datetime | None = None) -> str:
        """A signed GET (version 4): offline with a service account's key, else by Google's signing service.

        https://cloud.google.com/storage/docs/authentication/canonical-requests. Never logged.
        """
        when = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{when[:8]}/auto/storage/goog4_request"
        with self._failures_named():
            email, sign = self._signer()
            query = canonical_query(
                {
                    "X-Goog-Algorithm": _ALGORITHM,
                    "X-Goog-Credential": f"{email}/{scope}",
                    "X-Goog-Date": when,
                    "X-Goog-Expires": str(ttl_s),
                    "X-Goog-SignedHeaders": "host",
                }
            )
            host = urlsplit(endpoint).netloc
            canonical = f"GET\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
            hashed = hashlib.sha256(canonical.encode()).hexdigest()
            signature = sign(f"{_ALGORITHM}\n{when}\n{scope}\n{hashed}".encode())
        return f"{endpoint}{path}?{query}&X-Goog-Signature={signature.hex()}"

    def _signer(self) -> tuple[str, Callable[[bytes], bytes]]:
        """A service account's name, and what signs for it."""
        from google.auth import iam

        known = self._credentials
        if hasattr(known, "sign_bytes") and getattr(known, "signer_email", None):
            return str(known.signer_email), known.sign_bytes  # type: ignore[union-attr]
        if known is None or not getattr(known, "service_account_email", None):
            raise SigningImpossible(
                store=self._store,
                reason="these are not a service account's credentials (GOOGLE_APPLICATION_CREDENTIALS)",
            )
        known.refresh(_transport())
        # Known only after the refresh, on a machine of Google's.
        email = str(getattr(known, "service_account_email", ""))
        return email, iam.Signer(_transport(), known, email).sign

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        from google.auth.exceptions import GoogleAuthError

        try:
            yield
        except GoogleAuthError as exc:
            error, cause = without_token(exc, store=self._store, proxy=self._proxy)
            raise error from cause
        except TypeError as exc:
            # A web page where the token should be: Google's library takes the text for a mapping.
            raise StoreUnreachable(store="Google's token service", reason="it gives no token") from exc


def quoted_path(bucket: str, key: str) -> str:
    """Where an object lies on the endpoint, as it is signed."""
    return f"/{bucket}/{quote(key, safe='/~')}"


def _transport() -> Callable[..., object]:
    """What fetches tokens; the library that Google's credentials of all kinds know."""
    from google.auth.transport.requests import Request

    return Request()


def credentials_of(config: GcsSettings) -> "Credentials":
    """The credentials that the variables or the platform give."""
    try:
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError
    except ImportError as exc:
        raise SdkMissing(store="Google Cloud Storage", extra="gcs") from exc

    path = config.credentials_file
    try:
        if path is not None:
            if not path.is_file():
                raise CredentialsMissing(
                    store="Google Cloud Storage",
                    remedy=f"GOOGLE_APPLICATION_CREDENTIALS names {path}, which is no file",
                )
            with warnings.catch_warnings():
                # It warns of files from strangers; this one is the user's own.
                warnings.simplefilter("ignore", DeprecationWarning)
                found = google.auth.load_credentials_from_file(str(path), scopes=[_SCOPE])
        else:
            found = google.auth.default(scopes=[_SCOPE])
    except (DefaultCredentialsError, ValueError) as exc:
        remedy = (
            f"GOOGLE_APPLICATION_CREDENTIALS names {path}, which holds none"
            if path
            else "set GOOGLE_APPLICATION_CREDENTIALS to a service account's JSON file"
        )
        raise CredentialsMissing(store="Google Cloud Storage", remedy=remedy) from exc
    credentials: Credentials = found[0]
    return credentials


def canonical_query(query: Mapping[str, str]) -> str:
    """The query's names and values, encoded and sorted."""
    if not query:
        return ""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
