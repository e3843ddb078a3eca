"""Objects in Google Cloud Storage, by Google's own client.

Small files go up in one request; large ones in one resumable session, which goes on where it broke. Both carry the
crc32c of the file, so that the server refuses other bytes, and the server's answer is compared once more.
"""

import base64
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from comfypin.digest import CHUNK_BYTES
from comfypin.errors.storage import (
    ChecksumMismatch,
    CredentialsMissing,
    PermissionMissing,
    PublicAccessImpossible,
    SdkMissing,
    SettingMissing,
    SigningImpossible,
)
from comfypin.objects.config import GcsConfig
from comfypin.objects.directory import open_payload, read_whole
from comfypin.objects.gate import ByteGate
from comfypin.objects.gcs_errors import RefusedRequest, explained
from comfypin.objects.gcs_session import TIMEOUT_S, SessionUpload, upload_adapter
from comfypin.objects.interface import Payload, StoredObject
from comfypin.objects.keys import joined_key
from comfypin.objects.redaction import redact_library_logs
from comfypin.objects.retry import Retry

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.auth.transport.requests import AuthorizedSession
    from google.cloud.storage import Blob, Client

log = logging.getLogger(__name__)

MIB = 1 << 20
WHOLE_BYTES = 8 * MIB  # one request up to here (and Google's own limit for it); a session above
IN_FLIGHT_BYTES = 24 * MIB
_CONNECTIONS = 32
_SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"


class GcsStore:
    """A bucket, or the part of it below a prefix."""

    def __init__(self, config: GcsConfig, *, prefix: str = "", retry: Retry | None = None) -> None:
        if config.bucket is None:
            raise SettingMissing(variable="GCS_BUCKET", purpose="deliver to Google Cloud Storage")
        redact_library_logs()
        self._name = config.bucket
        self._config = config
        self._endpoint = config.endpoint or "https://storage.googleapis.com"
        self._prefix = prefix
        self._retry = retry or Retry(retries=config.retries, base_sleep_s=config.retry_base_sleep_s)
        self._gate = ByteGate(IN_FLIGHT_BYTES)
        self._client, self._http, self._signer = _client(config)
        self._handle = self._client.bucket(config.bucket)

    def put(self, key: str, payload: Payload) -> StoredObject:
        """Upload the file, and compare size and crc32c as the server has them."""
        full = joined_key(self._prefix, key)
        with open_payload(payload) as file:
            if payload.size_bytes <= WHOLE_BYTES:
                facts = self._put_whole(full, payload, file)
            else:
                facts = self._put_in_session(full, payload, file)
        return StoredObject(
            key=key,
            size_bytes=payload.size_bytes,
            uri=self._uri(full),
            metadata=dict(payload.metadata),
            etag=facts.get("etag"),
        )

    def head(self, key: str) -> StoredObject | None:
        """Size and metadata, in one request."""
        full = joined_key(self._prefix, key)

        def ask() -> StoredObject | None:
            with self._failures_named("read", full):
                blob = self._handle.get_blob(full, timeout=TIMEOUT_S, retry=None)
            if blob is None:
                return None
            return StoredObject(
                key=key,
                size_bytes=int(blob.size),
                uri=self._uri(full),
                metadata=dict(blob.metadata or {}),
                etag=blob.etag,
            )

        return self._retry.call(ask, what=self._uri(full))

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """The object's bytes, as they come, in chunks of up to 1 MiB."""
        full = joined_key(self._prefix, key)
        url = f"{self._endpoint}/storage/v1/b/{self._name}/o/{quote(full, safe='')}?alt=media"
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}
        with (
            self._failures_named("read", full),
            self._http.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response,
        ):
            if response.status_code != (206 if offset else 200):
                raise RefusedRequest.from_response(response)
            yield from response.iter_content(CHUNK_BYTES)

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """A signed GET (version 4): offline with a service account's key, else by Google's signing service."""
        full = joined_key(self._prefix, key)
        with self._failures_named("sign for", full):
            url: str = self._handle.blob(full).generate_signed_url(
                version="v4", expiration=timedelta(seconds=ttl_s), method="GET", **self._signing_options()
            )
        return url

    def validate(self) -> None:
        """Make sure that the bucket is there, takes objects, and can have public ones if it must.

        Asks only; writes nothing. Raises `BucketMissing`, `PermissionMissing`, `PublicAccessImpossible`,
        `CredentialsRefused`, `StoreUnreachable`.
        """
        self._retry.call(self._validate_once, what=f"gs://{self._name}")

    def _validate_once(self) -> None:
        # Needs no permission of its own; bucket.get would, and roles that may only write do not have it.
        wanted = ["storage.objects.create", "storage.objects.delete"]
        with self._failures_named("look at", ""):
            granted = self._handle.test_iam_permissions(wanted, timeout=TIMEOUT_S, retry=None)
        if "storage.objects.create" not in granted:
            raise PermissionMissing(
                store=f"gs://{self._name}",
                action="write objects",
                remedy="grant roles/storage.objectUser on the bucket",
            )
        if "storage.objects.delete" not in granted:
            log.warning(
                "objects cannot be replaced; a job that is run again will fail (roles/storage.objectUser can)",
                extra={"action": "gcs_not_replaceable", "bucket": self._name},
            )
        if self._config.public:
            self.require_public_possible()

    def require_public_possible(self) -> None:
        """Make sure that single objects can be public here. Raises `PublicAccessImpossible`, `StorageError`.

        Only a warning where these credentials may write and not look at the bucket: many roles that can are such.
        """
        try:
            with self._failures_named("read the access settings of", ""):
                bucket = self._client.get_bucket(self._name, timeout=TIMEOUT_S, retry=None)
        except PermissionMissing:
            log.warning(
                "whether objects can be public shows at the first upload only (storage.buckets.get is not granted)",
                extra={"action": "gcs_public_unknown", "bucket": self._name},
            )
            return
        if bucket.iam_configuration.uniform_bucket_level_access_enabled:
            raise PublicAccessImpossible(
                store=f"gs://{self._name}",
                reason="it has uniform bucket-level access, so single objects cannot be made public",
            )
        if bucket.iam_configuration.public_access_prevention == "enforced":
            raise PublicAccessImpossible(store=f"gs://{self._name}", reason="it enforces public access prevention")

    def _put_whole(self, full: str, payload: Payload, file: BinaryIO) -> dict[str, str]:
        with self._gate.hold(payload.size_bytes):
            data = io.BytesIO(read_whole(payload, file))
            crc32c = crc32c_of(data)
            return self._retry.call(lambda: self._upload_whole(full, payload, data, crc32c), what=self._uri(full))

    def _upload_whole(self, full: str, payload: Payload, data: io.BytesIO, crc32c: str) -> dict[str, str]:
        if payload.pace is not None:
            payload.pace(payload.size_bytes)
        blob = self._blob(full, payload, crc32c)
        data.seek(0)
        with self._failures_named("write", full):
            blob.upload_from_file(
                data,
                size=payload.size_bytes,
                content_type=payload.media_type,
                predefined_acl=self._acl,
                checksum=None,  # `crc32c` already is what the server checks
                timeout=TIMEOUT_S,
                retry=None,
            )
        facts = {"size": str(blob.size), "crc32c": str(blob.crc32c), "etag": str(blob.etag)}
        self._confirm(full, payload, crc32c, facts)
        return facts

    def _put_in_session(self, full: str, payload: Payload, file: BinaryIO) -> dict[str, str]:
        crc32c = crc32c_of(file)

        def open_session() -> str:
            with self._failures_named("write", full):
                url: str = self._blob(full, payload, crc32c).create_resumable_upload_session(
                    content_type=payload.media_type,
                    size=payload.size_bytes,
                    checksum=None,
                    predefined_acl=self._acl,
                    timeout=TIMEOUT_S,
                    retry=None,
                )
            return url

        upload = SessionUpload(file, payload.size_bytes, http=self._http, open_session=open_session, pace=payload.pace)

        def attempt() -> dict[str, str]:
            with self._failures_named("write", full):
                facts = upload.go_on()
            try:
                self._confirm(full, payload, crc32c, facts)
            except ChecksumMismatch:
                upload.begin_anew()
                raise
            return facts

        return self._retry.call(attempt, what=self._uri(full), progress=lambda: upload.received)

    def _confirm(self, full: str, payload: Payload, crc32c: str, facts: dict[str, str]) -> None:
        if not self._config.validate:
            return
        for kind, expected in (("size", str(payload.size_bytes)), ("crc32c", crc32c)):
            if facts[kind] != expected:
                raise ChecksumMismatch(uri=self._uri(full), kind=kind, expected=expected, actual=facts[kind])

    def _blob(self, full: str, payload: Payload, crc32c: str) -> "Blob":
        blob: Blob = self._handle.blob(full)
        blob.metadata = dict(payload.metadata)
        blob.crc32c = crc32c
        return blob

    @property
    def _acl(self) -> str | None:
        return "publicRead" if self._config.public else None

    def _signing_options(self) -> dict[str, object]:
        """Arguments for signing: a key on this machine, or a token for Google's signing service."""
        from google.auth.transport.requests import Request

        credentials = self._signer
        if hasattr(credentials, "sign_bytes") and getattr(credentials, "signer_email", None):
            return {"credentials": credentials}
        if not getattr(credentials, "service_account_email", None):
            raise SigningImpossible(
                store=f"gs://{self._name}",
                reason="these are not a service account's credentials (GOOGLE_APPLICATION_CREDENTIALS)",
            )
        credentials.refresh(Request())
        return {
            "credentials": credentials,
            # Known only after the refresh, on a machine of Google's.
            "service_account_email": getattr(credentials, "service_account_email", None),
            "access_token": credentials.token,
        }

    def _uri(self, full: str) -> str:
        return f"gs://{self._name}/{full}"

    @contextmanager
    def _failures_named(self, action: str, full: str) -> Iterator[None]:
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import GoogleAuthError
        from requests import RequestException

        try:
            yield
        except (GoogleAPICallError, GoogleAuthError, RequestException, RefusedRequest) as exc:
            error, cause = explained(exc, bucket=self._name, action=action, uri=self._uri(full))
            # The original text may quote the address of an upload session; its cleaned words are the cause.
            raise error from cause


def crc32c_of(file: BinaryIO) -> str:
    """The crc32c of a file from its beginning, in base64 as the server gives it."""
    import google_crc32c

    checksum = google_crc32c.Checksum()
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        checksum.update(chunk)
    return base64.b64encode(checksum.digest()).decode("ascii")


def credentials_of(config: GcsConfig) -> tuple["Credentials", str | None]:
    """The credentials that the variables or the platform give, and the project that goes with them."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

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
    return found[0], found[1]


def _client(config: GcsConfig) -> tuple["Client", "AuthorizedSession", "Credentials"]:
    """Google's client, the connections it uses, and the credentials that sign URLs."""
    try:
        from google.auth.credentials import AnonymousCredentials
        from google.auth.transport.requests import AuthorizedSession
        from google.cloud.storage import Client
    except ImportError as exc:
        raise SdkMissing(store="Google Cloud Storage", extra="gcs") from exc

    nobody = AnonymousCredentials()
    bare = config.endpoint is not None and config.credentials_file is None
    signer, project = (nobody, None) if bare else credentials_of(config)
    # An emulator takes no tokens, and asking Google for one on its behalf would be odd.
    credentials = nobody if config.endpoint else signer
    http = AuthorizedSession(credentials)
    adapter = upload_adapter(connections=_CONNECTIONS)
    http.mount("https://", adapter)
    http.mount("http://", adapter)
    options = {"api_endpoint": config.endpoint} if config.endpoint else None
    client = Client(project=config.project or project, credentials=credentials, _http=http, client_options=options)
    return client, http, signer
