"""Objects in Google Cloud Storage, by google-cloud-storage.

Small files take one request, large ones a resumable session whose pieces are retried from where the connection broke.
Both carry the crc32c of the file, so that the server refuses other bytes. A response is a success only if its status,
size and crc32c prove it; after any other, the object itself is read back.
"""

import hashlib
import logging
from collections.abc import Iterator
from typing import BinaryIO

from comfypin.settings.errors import SettingMissing
from comfypin.storage.errors import (
    ChecksumMismatch,
    NotStored,
    ObjectMissing,
    PermissionMissing,
    PublicAccessImpossible,
)
from comfypin.storage.gcs_settings import GcsSettings
from comfypin.storage.interface import Payload, StoredObject
from comfypin.storage.object_keys import join_key
from comfypin.storage.payload_file import open_payload, require_as_hashed
from comfypin.storage.retry import StoreRetry

log = logging.getLogger(__name__)

_CREATE, _DELETE = "storage.objects.create", "storage.objects.delete"


class GcsStore:
    """Stores objects in a bucket, or below a prefix in it. Safe for threads."""

    def __init__(self, settings: GcsSettings, *, prefix: str = "", retry: StoreRetry | None = None) -> None:
        if settings.bucket is None:
            raise SettingMissing(variable="GCS_BUCKET", purpose="deliver to Google Cloud Storage")
        # Imported here, so that an ImportError means that the client library is not installed.
        from comfypin.storage.gcs_client import GcsClient

        self._settings = settings
        self._prefix = prefix
        self._retry = retry or StoreRetry(retries=settings.retries, base_sleep_s=settings.retry_base_sleep_s)
        self._client = GcsClient(settings)

    def put(self, key: str, payload: Payload) -> StoredObject:
        """Upload the file, then compare size and crc32c with what the server reports."""
        from comfypin.storage.gcs_client import RetriesExhausted

        object_key = join_key(self._prefix, key)
        object_uri = self._client.object_uri(object_key)
        with open_payload(payload) as payload_file:
            require_as_hashed(payload, payload_file)
            try:
                etag = self._retry.call(lambda: self._put_once(object_key, payload, payload_file), target=object_uri)
            except RetriesExhausted as exception:
                # The pieces were retried already, so the whole is not.
                raise exception.error from exception.error.__cause__
        return StoredObject(
            key=key, size_bytes=payload.size_bytes, uri=object_uri, metadata=dict(payload.metadata), etag=etag
        )

    def head(self, key: str) -> StoredObject | None:
        """Return size and metadata, from one request."""
        object_key = join_key(self._prefix, key)
        object_uri = self._client.object_uri(object_key)
        object_facts = self._retry.call(lambda: self._client.get_object_facts(object_key), target=object_uri)
        if object_facts is None:
            return None
        return StoredObject(
            key=key,
            size_bytes=object_facts.size_bytes,
            uri=object_uri,
            metadata=object_facts.metadata,
            etag=object_facts.etag,
        )

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the object's bytes as they arrive, in chunks of up to 1 MiB."""
        return self._client.read_chunks(join_key(self._prefix, key), offset=offset)

    def remove(self, key: str) -> None:
        """Remove the object."""
        object_key = join_key(self._prefix, key)
        self._retry.call(lambda: self._client.delete_object(object_key), target=self._client.object_uri(object_key))

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """Return a signed GET URL (version 4). Raises `SigningImpossible` without a service account's credentials."""
        return self._client.signed_url(join_key(self._prefix, key), ttl_s=ttl_s)

    def check(self, *, below: str = "") -> None:
        """Raise an error unless the bucket exists, takes objects, and can have public ones if GCS_PUBLIC is set.

        Only asks; writes nothing. Raises `BucketMissing`, `PermissionMissing`, `PublicAccessImpossible`,
        `CredentialsRefused`, `StoreUnreachable`.
        """
        if self._settings.validate:
            self._retry.call(self._require_permissions, target=f"gs://{self._client.bucket_name}")
        if self._settings.public:
            self._require_public_possible()

    def _put_once(self, object_key: str, payload: Payload, payload_file: BinaryIO) -> str | None:
        """Return the object's ETag, None if it had to be read back. Raises `StorageError`, `RetriesExhausted`."""
        from comfypin.storage.gcs_errors import SessionLost

        try:
            object_facts = self._client.upload_file(object_key, payload, payload_file, retry=self._retry)
        except SessionLost as exception:
            raise exception.error from exception.error.__cause__
        if object_facts is not None:
            return object_facts.etag
        self._require_stored(object_key, payload)
        return None

    def _require_stored(self, object_key: str, payload: Payload) -> None:
        """Raise `ChecksumMismatch` or `NotStored` unless the bucket holds what was sent; reads it all."""
        log.info("object read back", extra={"action": "gcs_read_back", "uri": self._client.object_uri(object_key)})
        hasher = hashlib.sha256()
        try:
            for chunk in self._client.read_chunks(object_key, action="read back"):
                hasher.update(chunk)
        except ObjectMissing:
            raise NotStored(uri=self._client.object_uri(object_key), status=200) from None
        if hasher.hexdigest() != payload.sha256.hex:
            raise ChecksumMismatch(
                uri=self._client.object_uri(object_key),
                kind="sha256",
                expected=payload.sha256.hex,
                actual=hasher.hexdigest(),
            )

    def _require_permissions(self) -> None:
        # This takes no permission, while bucket.get takes one that upload roles do not have.
        granted = self._client.granted_permissions([_CREATE, _DELETE])
        if _CREATE not in granted:
            raise PermissionMissing(
                store=f"gs://{self._client.bucket_name}",
                action="write objects",
                remedy="grant roles/storage.objectUser on the bucket",
            )
        if _DELETE not in granted:
            log.warning(
                "objects cannot be replaced; a job that is run again will fail (roles/storage.objectUser can)",
                extra={"action": "gcs_not_replaceable", "bucket": self._client.bucket_name},
            )

    def _require_public_possible(self) -> None:
        """Raise `PublicAccessImpossible` if single objects cannot be public here, `StorageError`.

        Only warns if the credentials may write but not read the bucket's settings: many upload roles are like that.
        """
        store_name = f"gs://{self._client.bucket_name}"
        try:
            is_uniform, is_prevented = self._retry.call(self._client.access_settings, target=store_name)
        except PermissionMissing:
            log.warning(
                "whether objects can be public shows at the first upload only (storage.buckets.get is not granted)",
                extra={"action": "gcs_public_unknown", "bucket": self._client.bucket_name},
            )
            return
        if is_uniform:
            raise PublicAccessImpossible(
                store=store_name, reason="it has uniform bucket-level access, so single objects cannot be made public"
            )
        if is_prevented:
            raise PublicAccessImpossible(store=store_name, reason="it enforces public access prevention")


Settings = GcsSettings


def open_store(settings: GcsSettings, *, prefix: str = "") -> GcsStore:
    """Open the bucket that the settings name, or a prefix in it."""
    return GcsStore(settings, prefix=prefix)
