"""The client of google-cloud-storage for one bucket, set up for our uploads; its failures become our errors."""

import base64
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any, BinaryIO, cast
from urllib.parse import quote

import google_crc32c
import requests
from google.api_core.exceptions import NotFound
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import DataCorruption
from urllib3.exceptions import HTTPError

from comfypin.digest import CHUNK_BYTES
from comfypin.errors import StorageError
from comfypin.storage.errors import PayloadUnreadable, TransientStorageError
from comfypin.storage.gcs_credentials import GoogleCredentials
from comfypin.storage.gcs_errors import (
    FAILURES,
    explain_failure,
    is_claimed_success,
    refuse_page,
    to_session_lost,
)
from comfypin.storage.gcs_settings import GcsSettings
from comfypin.storage.interface import Payload
from comfypin.storage.redaction import redact_library_logs
from comfypin.storage.retry import StoreRetry
from comfypin.storage.sdk_session import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, paced_sending

ONE_REQUEST_BYTES = 8 << 20  # google-cloud-storage sends one request up to here, and a session above
# Without a size of ours it would read 100 MiB at a time, and hold 256.
PIECE_BYTES = 16 << 20
# It is asked before the engine starts: a bucket that is away should be named soon.
CHECK_TIMEOUT_S = 30.0
_GOOGLE = "https://storage.googleapis.com"
_USUAL_TIMEOUT = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFacts:
    """Size, checksum and metadata of an object, as the server reports them."""

    size_bytes: int
    crc32c: str | None
    etag: str | None
    metadata: dict[str, str]


class RetriesExhausted(Exception):
    """Raised when a piece of an upload failed as often as it may; `error` is the last failure."""

    def __init__(self, error: StorageError) -> None:
        super().__init__(error.message)
        self.error = error


class GcsClient:
    """Sends requests to one bucket. Safe for threads."""

    def __init__(self, settings: GcsSettings) -> None:
        redact_library_logs()
        # Otherwise the library fetches the bucket's metadata in another thread, for traces that nobody collects.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        self.bucket_name = str(settings.bucket)
        self._settings = settings
        self._endpoint = settings.endpoint or _GOOGLE
        self._credentials = GoogleCredentials(settings)
        self._session = self._credentials.open_session(self._endpoint)
        # Google does not redirect these requests; the login page of a network would.
        self._session.max_redirects = 0
        # The session adds the tokens, so the client need not look up which universe the credentials belong to.
        client = Client(
            project=settings.project,
            credentials=AnonymousCredentials(),
            _http=self._session,
            client_options={"api_endpoint": self._endpoint},
        )
        self._bucket = client.bucket(self.bucket_name)
        self._acl = "publicRead" if settings.public else None

    def upload_file(
        self, object_key: str, payload: Payload, payload_file: BinaryIO, *, retry: StoreRetry
    ) -> ObjectFacts | None:
        """Upload a file and return its facts, or None if the server reports success but not the facts that prove it.

        A small file takes one request. The pieces of a large one are retried as `retry` says, until `RetriesExhausted`;
        raises `SessionLost` if the upload must start again, `StorageError`.
        """
        stream = PayloadStream(payload, payload_file)
        blob: Blob = cast("Any", _UploadBlob)(object_key, self._bucket, chunk_size=PIECE_BYTES)
        blob.metadata = dict(payload.metadata)
        is_large = payload.size_bytes > ONE_REQUEST_BYTES
        with self.translate_failures("write", object_key):
            try:
                with paced_sending(payload.pace, payload.size_bytes):
                    blob.upload_from_file(
                        stream,
                        size=payload.size_bytes,
                        content_type=payload.media_type,
                        predefined_acl=self._acl,
                        checksum="crc32c",
                        timeout=_USUAL_TIMEOUT,
                        # A small file is one request, which the store repeats as a whole.
                        retry=self._piece_retry_policy(object_key, retry) if is_large else None,
                    )
                object_facts = _to_object_facts(blob)
            except (DataCorruption, *FAILURES) as exception:
                if not is_claimed_success(exception):
                    raise
                refuse_page(exception, f"gs://{self.bucket_name}")
                return None
        # Of a session the library has compared the checksum.
        is_same = is_large or object_facts.crc32c == stream.crc32c
        return object_facts if is_same and object_facts.size_bytes == payload.size_bytes else None

    def get_object_facts(self, object_key: str) -> ObjectFacts | None:
        """Return the object's facts, or None if there is no such object. Raises `StorageError`."""
        with self.translate_failures("look at", object_key):
            blob = self._bucket.get_blob(object_key, timeout=_USUAL_TIMEOUT, retry=None)
            return None if blob is None else _to_object_facts(blob)

    def delete_object(self, object_key: str) -> None:
        """Delete the object, if there is one. Raises `StorageError`."""
        with self.translate_failures("delete", object_key), suppress(NotFound):
            self._bucket.blob(object_key).delete(timeout=_USUAL_TIMEOUT, retry=None)

    def read_chunks(self, object_key: str, *, offset: int = 0, action: str = "read") -> Iterator[bytes]:
        """Yield the object's bytes as they arrive, from one request. Raises `StorageError`."""
        # The library itself can only fill a file, or send a request for each piece.
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}
        url = f"{self._endpoint}/storage/v1{self._bucket.path}/o/{quote(object_key, safe='')}?alt=media"
        expected = HTTPStatus.PARTIAL_CONTENT if offset else HTTPStatus.OK
        with (
            self.translate_failures(action, object_key),
            self._session.get(url, headers=headers, stream=True, timeout=_USUAL_TIMEOUT) as response,
        ):
            if response.status_code != expected:
                if response.status_code < 300:
                    response.status_code = HTTPStatus.BAD_GATEWAY  # Google sends no other success status here
                raise requests.HTTPError(response=response)
            while chunk := response.raw.read(CHUNK_BYTES, decode_content=False):
                yield chunk

    def granted_permissions(self, permissions: Sequence[str]) -> list[str]:
        """Return those of the permissions that the credentials have on the bucket. Raises `StorageError`."""
        with self.translate_failures("look at", ""):
            granted = self._bucket.test_iam_permissions(list(permissions), timeout=CHECK_TIMEOUT_S, retry=None)
        return [str(permission) for permission in granted] if isinstance(granted, list) else []

    def access_settings(self) -> tuple[bool, bool]:
        """Return whether uniform bucket-level access is on, and whether public access prevention is enforced.

        Raises `StorageError`.
        """
        with self.translate_failures("read the access settings of", ""):
            self._bucket.reload(timeout=CHECK_TIMEOUT_S, retry=None)
            iam_configuration = self._bucket.iam_configuration
            return bool(
                iam_configuration.uniform_bucket_level_access_enabled
            ), iam_configuration.public_access_prevention == "enforced"

    def signed_url(self, object_key: str, *, ttl_s: int) -> str:
        """Return a signed GET URL (version 4). Raises `SigningImpossible`, `StorageError`."""
        signer = self._credentials.make_signer()
        with self._credentials.translate_failures():
            url: str = self._bucket.blob(object_key).generate_signed_url(
                version="v4",
                expiration=timedelta(seconds=ttl_s),
                method="GET",
                api_access_endpoint=self._endpoint,
                credentials=signer,
            )
        return url

    def object_uri(self, object_key: str) -> str:
        """Return the object's `gs://` address."""
        return f"gs://{self.bucket_name}/{object_key}"

    @contextmanager
    def translate_failures(self, action: str, object_key: str) -> Iterator[None]:
        """Raise our errors for what goes wrong inside the block."""
        try:
            yield
        except (HTTPError, DataCorruption, *FAILURES) as exception:
            error, cause = self._explain_failure(exception, action, object_key)
            raise error from cause

    def _explain_failure(self, exception: Exception, action: str, object_key: str) -> tuple[StorageError, Exception]:
        object_uri = self.object_uri(object_key) if object_key else ""
        proxy = self._settings.proxies.for_address(self._endpoint)
        return explain_failure(exception, bucket=self.bucket_name, action=action, object_uri=object_uri, proxy=proxy)

    def _piece_retry_policy(
        self, object_key: str, retry: StoreRetry
    ) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
        """Return what the library takes as a retry policy: a function that wraps each request of a session."""

        def call_once(request: Callable[[], Any]) -> Any:
            try:
                return request()
            except FAILURES as exception:
                if is_claimed_success(exception):
                    raise
                error, cause = self._explain_failure(exception, "write", object_key)
                raise to_session_lost(exception, error, store_name=f"gs://{self.bucket_name}") or error from cause

        def retry_policy(request: Callable[[], Any]) -> Callable[[], Any]:
            def call_with_retries() -> Any:
                try:
                    return retry.call(lambda: call_once(request), target=self.object_uri(object_key))
                except TransientStorageError as exception:
                    raise RetriesExhausted(exception) from exception

            return call_with_retries

        return retry_policy


class _UploadBlob(Blob):
    """A blob that is being uploaded."""

    def delete(self, *_args: Any, **_options: Any) -> None:
        """Delete nothing: the library would, if a checksum differs, and by then another worker may have stored it."""


class PayloadStream:
    """Gives the library a payload's file to read, once, from the beginning, and sums a small file's crc32c."""

    def __init__(self, payload: Payload, payload_file: BinaryIO) -> None:
        self._payload = payload
        self._descriptor = payload_file.fileno()
        self._position = 0
        self._checksum = google_crc32c.Checksum()

    @property
    def crc32c(self) -> str:
        """Return the checksum of a small file in base64, as Google writes it."""
        return base64.b64encode(self._checksum.digest()).decode("ascii")

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._position

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes, fewer only at the end. Raises `PayloadUnreadable`."""
        wanted_bytes = min(size, self._payload.size_bytes - self._position)
        pieces = []
        while wanted_bytes > 0:
            try:
                piece = os.pread(self._descriptor, wanted_bytes, self._position)
            except OSError as exception:
                raise self._unreadable_error((exception.strerror or str(exception)).lower()) from exception
            if not piece:
                raise self._unreadable_error("it became shorter while it was uploaded")
            pieces.append(piece)
            self._position += len(piece)
            wanted_bytes -= len(piece)
            if self._payload.size_bytes <= ONE_REQUEST_BYTES:
                self._checksum.update(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _unreadable_error(self, reason: str) -> PayloadUnreadable:
        return PayloadUnreadable(path=str(self._payload.path), reason=reason)


def _to_object_facts(blob: Blob) -> ObjectFacts:
    """Return the facts of a blob. Raises one of `NONSENSE` if the response does not describe an object."""
    metadata = blob.metadata or {}
    return ObjectFacts(
        size_bytes=int(blob.size),
        crc32c=blob.crc32c,
        etag=blob.etag,
        metadata={str(metadata_name): str(value) for metadata_name, value in metadata.items()},
    )
