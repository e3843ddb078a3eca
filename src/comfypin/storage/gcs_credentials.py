"""Google's credentials, from whatever google-auth knows: a file, JSON in a variable, or the platform.

The project of the credentials is never looked up: no request of ours needs it, and the lookup takes a service
(cloudresourcemanager.googleapis.com) that many networks block.
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
from comfypin.storage.gcs_errors import GIVES_TOKENS, explain_missing_token
from comfypin.storage.gcs_settings import GcsSettings
from comfypin.storage.network_errors import StoreProxyFailed
from comfypin.storage.sdk_session import make_session

_SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"
_TOKENS_FROM = "https://oauth2.googleapis.com"
_ASKS_FOR_PROJECT = re.compile(r"https://cloudresourcemanager\.|.*/computeMetadata/v1/project/")
_STORE = "Google Cloud Storage"


class GoogleCredentials:
    """Finds the credentials of a bucket; an emulator without a key needs none. Safe for threads."""

    def __init__(self, settings: GcsSettings) -> None:
        self._settings = settings
        self._store = f"gs://{settings.bucket}"
        self._request = _TokenRequest(settings)
        # An emulator takes no tokens, so none is fetched from Google for it.
        self._gives_tokens = settings.endpoint is None
        is_bare = not self._gives_tokens and settings.credentials_file is None and settings.credentials_info is None
        with self.translate_failures():
            self._known = None if is_bare else _find_credentials(settings, self._request)

    def open_session(self, origin: str) -> requests.Session:
        """Return a session that adds tokens to the requests to an origin, and renews them while they are needed."""
        session: requests.Session = requests.Session()
        if self._known is not None and self._gives_tokens:
            session = _AuthorizedSession(self._known, self._request, self.translate_failures)
        return make_session(self._settings.proxies, ca_bundle=self._settings.ca_bundle, origin=origin, session=session)

    def make_signer(self) -> Signing:
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
        with self.translate_failures():
            # On a machine of Google's the account's name is known only after this.
            self._known.refresh(self._request)
        return _SigningService(self._known, self._request)

    @contextmanager
    def translate_failures(self) -> Iterator[None]:
        """Raise our errors for google-auth's inside the block. Raises `StorageError`."""
        try:
            yield
        except StoreProxyFailed as exception:
            raise exception.to_storage_error(GIVES_TOKENS) from None
        except GoogleAuthError as exception:
            proxy = self._settings.proxies.for_address(_TOKENS_FROM)
            error, cause = explain_missing_token(exception, store_name=self._store, proxy=proxy)
            raise error from cause
        except TypeError as exception:
            # A web page instead of a token: google-auth takes the text for a mapping.
            raise StoreUnreachable(store=GIVES_TOKENS, reason="it gives no token") from exception


class _AuthorizedSession(AuthorizedSession):
    """Adds tokens to requests. Token failures are named at once, so that nobody takes them for the store's."""

    def __init__(
        self, credentials: Credentials, request: Request, translate_failures: Callable[[], AbstractContextManager[None]]
    ) -> None:
        # Renewals take the same way as the first token: through the settings' proxy.
        super().__init__(credentials, auth_request=request)  # type: ignore[no-untyped-call]
        self._named = translate_failures

    def request(self, *args: Any, **options: Any) -> Any:
        """Send a request. Raises `StorageError` if there is no token for it, `requests.RequestException`."""
        with self._named():
            return super().request(*args, **options)  # type: ignore[no-untyped-call]


class _TokenRequest(Request):
    """Sends google-auth's requests through the settings' proxy, but those to the metadata server directly."""

    def __init__(self, settings: GcsSettings) -> None:
        super().__init__(make_session(settings.proxies, ca_bundle=settings.ca_bundle))
        # The metadata server is on the machine's own link: a proxy would reach another machine's.
        self._to_metadata = Request(make_session(Proxies()))

    def __call__(self, url: str, *args: Any, **options: Any) -> Any:
        if _ASKS_FOR_PROJECT.match(url):
            return _NoProjectResponse()
        if "/computeMetadata/" in url or _is_ping(url):
            return self._to_metadata(url, *args, **options)
        return super().__call__(url, *args, **options)  # type: ignore[no-untyped-call]


class _NoProjectResponse:
    """The response that leaves google-auth without a project, which it accepts."""

    status = HTTPStatus.NOT_FOUND
    headers: Mapping[str, str] = {}
    data = b"{}"


class _SigningService(Signing):
    """Signs for a service account whose key Google keeps."""

    def __init__(self, credentials: Credentials, request: Request) -> None:
        self._email = str(getattr(credentials, "service_account_email", ""))
        self._signer = iam.Signer(request, credentials, self._email)

    def sign_bytes(self, message: bytes) -> bytes:
        """Sign a message. Raises `GoogleAuthError`."""
        return bytes(self._signer.sign(message))

    @property
    def signer_email(self) -> str:
        """Return the service account's name."""
        return self._email

    @property
    def signer(self) -> iam.Signer:
        """Return the object that signs."""
        return self._signer


def _find_credentials(settings: GcsSettings, request: Request) -> Credentials:
    """Return the credentials that the variables or the platform give.

    Raises `CredentialsMissing`, `GoogleAuthError`.
    """
    description = settings.credentials_named
    try:
        with warnings.catch_warnings():
            # google-auth warns of files from strangers; this one is the user's own.
            warnings.simplefilter("ignore")
            if description is None:
                credentials, _ = google.auth.default(scopes=[_SCOPE], request=request)
            else:
                # Without scopes the project is not looked up.
                unscoped, _ = google.auth.load_credentials_from_dict(_read_credentials_info(settings), request=request)
                credentials = with_scopes_if_required(unscoped, [_SCOPE])
    except (DefaultCredentialsError, ValueError, AttributeError, TypeError, KeyError):
        # The original may quote what it was given.
        remedy = f"{description}, but it is no kind of key that google-auth knows" if description else _HOW_TO_SET
        raise CredentialsMissing(store=_STORE, remedy=remedy) from None
    return credentials


_HOW_TO_SET = (
    "set GOOGLE_APPLICATION_CREDENTIALS to the JSON file of a service account or of workload identity, or to what such "
    "a file holds"
)


def _read_credentials_info(settings: GcsSettings) -> Mapping[str, Any]:
    """Return what the user's file or variable holds. Raises `CredentialsMissing`, `ValueError`."""
    if settings.credentials_info is not None:
        return settings.credentials_info
    credentials_path = settings.credentials_file
    assert credentials_path is not None
    if not credentials_path.is_file():
        raise CredentialsMissing(
            store=_STORE, remedy=f"GOOGLE_APPLICATION_CREDENTIALS names {credentials_path}, which does not exist"
        )
    credentials_info = json.loads(credentials_path.read_bytes())
    if not isinstance(credentials_info, dict):
        raise TypeError
    return credentials_info


def _is_ping(url: str) -> bool:
    """Return whether the request only asks if a metadata server exists."""
    return url.count("/") == 2 and url.startswith("http://")
