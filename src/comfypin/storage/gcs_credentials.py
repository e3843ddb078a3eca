"""Who asks Google: whatever google-auth knows, from a file, from JSON in a variable, or from the platform.

The project that credentials belong to is never asked for: no request of ours needs it, and looking it up takes a
service (cloudresourcemanager.googleapis.com) that many networks do not let through.
"""

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http import HTTPStatus
from typing import Any

import google.auth
import requests
from google.auth import iam
from google.auth.credentials import Credentials, Signing, with_scopes_if_required
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.auth.transport.requests import AuthorizedSession, Request

from comfypin.http.proxies import Proxies
from comfypin.storage.errors import CredentialsMissing, SigningImpossible, StoreUnreachable
from comfypin.storage.gcs_errors import GIVES_TOKENS, without_token
from comfypin.storage.gcs_settings import GcsSettings
from comfypin.storage.network_errors import ProxyFailed
from comfypin.storage.sdk_session import session_for

_SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"
_TOKENS_FROM = "https://oauth2.googleapis.com"
_ASKS_FOR_PROJECT = re.compile(r"https://cloudresourcemanager\.|.*/computeMetadata/v1/project/")
_STORE = "Google Cloud Storage"


class GoogleCredentials:
    """The credentials of a bucket; none if an emulator is asked and no key is given. Safe for threads."""

    def __init__(self, settings: GcsSettings) -> None:
        self._settings = settings
        self._store = f"gs://{settings.bucket}"
        self._request = _TokenRequest(settings)
        # An emulator takes no tokens, and asking Google for one on its behalf would be odd.
        self._gives_tokens = settings.endpoint is None
        is_bare = not self._gives_tokens and settings.credentials_file is None and settings.credentials_info is None
        with self.failures_named():
            self._known = None if is_bare else _find_credentials(settings, self._request)

    def session(self, origin: str) -> requests.Session:
        """Return a session that adds tokens to the requests to an origin, and renews them while they are needed."""
        session: requests.Session = requests.Session()
        if self._known is not None and self._gives_tokens:
            session = _AuthorizedSession(self._known, self._request, self.failures_named)
        return session_for(self._settings.proxies, ca_bundle=self._settings.ca_bundle, origin=origin, session=session)

    def signer(self) -> Signing:
        """Return what signs URLs: a service account's key, else Google's signing service.

        Raises `SigningImpossible` if these are not a service account's credentials, `StorageError`.
        """
        if isinstance(self._known, Signing):
            return self._known
        if self._known is None or not getattr(self._known, "service_account_email", None):
            raise SigningImpossible(
                store=self._store,
                reason="these are not a service account's credentials (GOOGLE_APPLICATION_CREDENTIALS)",
            )
        with self.failures_named():
            # On a machine of Google's the account's name is known only after this.
            self._known.refresh(self._request)
        return _SigningService(self._known, self._request)

    @contextmanager
    def failures_named(self) -> Iterator[None]:
        """Make errors of ours of google-auth's within. Raises `StorageError`."""
        try:
            yield
        except ProxyFailed as exc:
            raise exc.error(GIVES_TOKENS) from None
        except GoogleAuthError as exc:
            proxy = self._settings.proxies.for_address(_TOKENS_FROM)
            error, cause = without_token(exc, store=self._store, proxy=proxy)
            raise error from cause
        except TypeError as exc:
            # A web page instead of a token: google-auth takes the text for a mapping.
            raise StoreUnreachable(store=GIVES_TOKENS, reason="it gives no token") from exc


class _AuthorizedSession(AuthorizedSession):
    """A session with tokens. What goes wrong with those is named at once, so that nobody takes it for the store's."""

    def __init__(self, known: Credentials, request: Request, named: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__(known, auth_request=request)  # type: ignore[no-untyped-call]
        self._named = named

    def request(self, *args: Any, **options: Any) -> Any:
        """Send a request. Raises `StorageError` if there is no token for it, `requests.RequestException`."""
        with self._named():
            return super().request(*args, **options)  # type: ignore[no-untyped-call]


class _TokenRequest(Request):
    """How google-auth sends its requests: by the settings' proxy, except to the machine's own metadata server."""

    def __init__(self, settings: GcsSettings) -> None:
        super().__init__(session_for(settings.proxies, ca_bundle=settings.ca_bundle))
        self._to_metadata = Request(session_for(Proxies()))

    def __call__(self, url: str, *args: Any, **options: Any) -> Any:
        if _ASKS_FOR_PROJECT.match(url):
            return _NotAsked()
        if "/computeMetadata/" in url or _is_ping(url):
            return self._to_metadata(url, *args, **options)
        return super().__call__(url, *args, **options)  # type: ignore[no-untyped-call]


class _NotAsked:
    """The answer that leaves google-auth without a project, which it takes as it is."""

    status = HTTPStatus.NOT_FOUND
    headers: Mapping[str, str] = {}
    data = b"{}"


class _SigningService(Signing):
    """Signs as a service account whose key Google keeps."""

    def __init__(self, known: Credentials, request: Request) -> None:
        self._email = str(getattr(known, "service_account_email", ""))
        self._signer = iam.Signer(request, known, self._email)

    def sign_bytes(self, message: bytes) -> bytes:
        """Sign a message. Raises `GoogleAuthError`."""
        return bytes(self._signer.sign(message))

    @property
    def signer_email(self) -> str:
        """The service account's name."""
        return self._email

    @property
    def signer(self) -> iam.Signer:
        """What signs."""
        return self._signer


def _find_credentials(settings: GcsSettings, request: Request) -> Credentials:
    """Return the credentials that the variables or the platform give.

    Raises `CredentialsMissing`, `GoogleAuthError`.
    """
    named = settings.credentials_named
    try:
        with warnings.catch_warnings():
            # google-auth warns of files from strangers; this one is the user's own.
            warnings.simplefilter("ignore")
            if named is None:
                found, _ = google.auth.default(scopes=[_SCOPE], request=request)
            else:
                # Without scopes the project is not looked up.
                unscoped, _ = google.auth.load_credentials_from_dict(_info(settings), request=request)
                found = with_scopes_if_required(unscoped, [_SCOPE])
    except (DefaultCredentialsError, ValueError, AttributeError, TypeError, KeyError):
        # The original may quote what it was given.
        remedy = f"{named}, which holds none of a kind that google-auth knows" if named else _HOW_TO_SET
        raise CredentialsMissing(store=_STORE, remedy=remedy) from None
    return found


_HOW_TO_SET = (
    "set GOOGLE_APPLICATION_CREDENTIALS to the JSON file of a service account or of workload identity, or to what such "
    "a file holds"
)


def _info(settings: GcsSettings) -> Mapping[str, Any]:
    """Return what the user's file or variable holds. Raises `CredentialsMissing`, `ValueError`."""
    if settings.credentials_info is not None:
        return settings.credentials_info
    path = settings.credentials_file
    assert path is not None
    if not path.is_file():
        raise CredentialsMissing(store=_STORE, remedy=f"GOOGLE_APPLICATION_CREDENTIALS names {path}, which is no file")
    info = json.loads(path.read_bytes())
    if not isinstance(info, dict):
        raise TypeError
    return info


def _is_ping(url: str) -> bool:
    """Whether this asks if a metadata server is there at all."""
    return url.count("/") == 2 and url.startswith("http://")
