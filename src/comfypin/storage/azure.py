"""Objects in a container of Azure Blob Storage, by azure-storage-blob.

Small files take one request, large ones equal blocks that are committed at the end; Azure removes blocks that never are
after a week. Each request carries the md5 of its bytes, so that the server refuses others. A response is a success only
if its status and md5 prove it (for a large file: size and ETag of the blob); after any other, the blob itself is read
back.
"""

import contextlib
import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote, unquote

from comfypin.errors import StorageError
from comfypin.settings.errors import SettingMissing
from comfypin.storage.azure_settings import AzureSettings
from comfypin.storage.errors import ChecksumMismatch, NotStored, ObjectMissing, PayloadUnreadable, SigningImpossible
from comfypin.storage.interface import Payload, StoredObject
from comfypin.storage.object_keys import join_key
from comfypin.storage.payload_file import open_payload, read_whole, require_as_hashed
from comfypin.storage.redaction import redact_library_logs
from comfypin.storage.retry import StoreRetry

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

log = logging.getLogger(__name__)
T = TypeVar("T")

WHOLE_BYTES = 8 << 20  # one request up to here
# Azure checks an md5 for each block; at 4 MiB a broken one is sent again in a moment.
BLOCK_BYTES = 4 << 20
# It is asked before the engine starts: a container that is away should be named soon.
CHECK_TIMEOUT_S = 30.0
PROBE = ".comfypin-write-check"
_MOST_BLOCKS = 50_000  # of Azure
# Each of these threads holds one block in memory.
_AT_ONCE = 4
# A key that is valid from now on is refused by a server whose clock is behind.
_CLOCKS_DIFFER = timedelta(minutes=5)


class AzureStore:
    """Stores objects in a container, or below a prefix in it. Safe for threads."""

    def __init__(self, settings: AzureSettings, *, prefix: str = "", retry: StoreRetry | None = None) -> None:
        if settings.bucket is None:
            raise SettingMissing(variable="AZURE_CONTAINER", purpose="deliver to Azure Blob Storage")
        # Imported here, so that an ImportError means that the client library is not installed.
        from comfypin.storage.azure_client import open_container

        redact_library_logs()
        self._settings = settings
        self._prefix = prefix
        self._retry = retry or StoreRetry(retries=settings.retries)
        self._container = open_container(settings)

    def put(self, key: str, payload: Payload) -> StoredObject:
        """Upload the file, then compare it with what the server reports."""
        object_key = join_key(self._prefix, key)
        blob_client = self._container.get_blob_client(object_key)
        with open_payload(payload) as payload_file:
            if payload.size_bytes <= WHOLE_BYTES:
                # The md5 goes ahead of the bytes, so a small file is held in memory.
                content = read_whole(payload, payload_file)
                etag = self._call_with_retries(lambda: self._put_whole(blob_client, payload, content), object_key)
            else:
                require_as_hashed(payload, payload_file)
                etag = self._call_with_retries(lambda: self._put_blocks(blob_client, payload, payload_file), object_key)
        object_uri = self._blob_uri(object_key)
        return StoredObject(
            key=key, size_bytes=payload.size_bytes, uri=object_uri, metadata=dict(payload.metadata), etag=etag
        )

    def head(self, key: str) -> StoredObject | None:
        """Return size and metadata, from one request."""
        object_key = join_key(self._prefix, key)
        try:
            properties = self._call_with_retries(lambda: self._blob_properties(object_key), object_key)
        except ObjectMissing:
            return None
        return StoredObject(
            key=key,
            size_bytes=int(properties.size),
            uri=self._blob_uri(object_key),
            metadata=_from_blob_metadata(properties.metadata),
            etag=_unquote_etag(properties.etag),
        )

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the blob's bytes in chunks of up to 8 MiB; each chunk costs a request."""
        return self._read_chunks(join_key(self._prefix, key), offset=offset)

    def remove(self, key: str) -> None:
        """Remove the object."""
        object_key = join_key(self._prefix, key)
        with contextlib.suppress(ObjectMissing):
            self._call_with_retries(lambda: self._delete_blob(object_key), object_key)

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """Return a SAS URL, signed with the account's key or with a key that Azure lends to identities.

        Raises `SigningImpossible` if the credentials are themselves a SAS token, `StorageError`.
        """
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        object_key = join_key(self._prefix, key)
        blob_client = self._container.get_blob_client(object_key)
        expires_at = datetime.now(UTC) + timedelta(seconds=ttl_s)
        with self._translate_failures("sign", object_key):
            signature = generate_blob_sas(
                str(blob_client.account_name),
                blob_client.container_name,
                blob_client.blob_name,
                permission=BlobSasPermissions(read=True),
                expiry=expires_at,
                **self._signing_key(expires_at),
            )
        return f"{blob_client.url.partition('?')[0]}?{signature}"

    def check(self, *, below: str = "") -> None:
        """Raise an error unless the container exists and takes blobs below a prefix.

        Sends a small blob with a wrong md5: Azure refuses it and stores nothing. If a server accepts it, it is deleted
        again. Raises as `put` does.
        """
        if not self._settings.validate:
            return
        object_key = join_key(self._prefix, f"{below}/{PROBE}" if below else PROBE)
        blob_client = self._container.get_blob_client(object_key)
        if self._retry.call(lambda: self._refuses_probe(blob_client), target=self._blob_uri(object_key)):
            return
        try:
            with self._translate_failures("delete", object_key):
                blob_client.delete_blob()
        except StorageError as exception:
            log.info(
                "probe left behind",
                extra={"action": "probe_left", "uri": self._blob_uri(object_key), "reason": exception.message},
            )

    def _refuses_probe(self, blob_client: "BlobClient") -> bool:
        """Send the probe and return whether it was refused for its md5, as a sound service does."""
        from azure.storage.blob import ContentSettings

        wrong_md5 = bytearray(hashlib.md5(b"other bytes", usedforsecurity=False).digest())
        try:
            with self._translate_failures("write", blob_client.blob_name):
                blob_client.upload_blob(
                    b"comfypin asks whether it may write here",
                    overwrite=True,
                    content_settings=ContentSettings(content_md5=wrong_md5),
                    connection_timeout=CHECK_TIMEOUT_S,
                    read_timeout=CHECK_TIMEOUT_S,
                )
        except ChecksumMismatch:
            return True
        return False

    def _put_whole(self, blob_client: "BlobClient", payload: Payload, content: bytes) -> str | None:
        from azure.storage.blob import ContentSettings

        from comfypin.storage.sdk_session import paced_sending

        md5_digest = bytearray(hashlib.md5(content, usedforsecurity=False).digest())
        settings = ContentSettings(content_type=payload.media_type, content_md5=md5_digest)
        metadata = _to_blob_metadata(payload.metadata)

        def send_blob() -> Mapping[str, Any]:
            with paced_sending(payload.pace, len(content)):
                return blob_client.upload_blob(content, overwrite=True, metadata=metadata, content_settings=settings)

        response = self._response_or_none(send_blob, blob_client)
        if response is not None and response.get("content_md5") == md5_digest:
            return _unquote_etag(response.get("etag"))
        self._require_stored(blob_client, payload)
        return None

    def _put_blocks(self, blob_client: "BlobClient", payload: Payload, payload_file: BinaryIO) -> str | None:
        from azure.storage.blob import BlobBlock, ContentSettings

        # Small blocks are cheap to send again; only a file of about 200 GB needs larger ones.
        block_bytes = max(BLOCK_BYTES, math.ceil(payload.size_bytes / _MOST_BLOCKS))
        offsets = range(0, payload.size_bytes, block_bytes)
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="comfypin-azure")
        try:
            block_ids = pool.map(
                lambda offset: self._put_block(blob_client, payload, payload_file, offset, block_bytes), offsets
            )
            blocks = [BlobBlock(block_id=block_id) for block_id in block_ids]
        finally:
            # After a failure the blocks that wait are not sent: Azure drops those that came within a week.
            pool.shutdown(cancel_futures=True)
        content = ContentSettings(content_type=payload.media_type)
        metadata = _to_blob_metadata(payload.metadata)
        response = self._response_or_none(
            lambda: blob_client.commit_block_list(blocks, content_settings=content, metadata=metadata), blob_client
        )
        # The blocks were checked one by one, the list of them was not: size and ETag of the blob decide.
        with contextlib.suppress(ObjectMissing):
            properties = self._blob_properties(blob_client.blob_name)
            if response is not None and (properties.size, properties.etag) == (
                payload.size_bytes,
                response.get("etag"),
            ):
                return _unquote_etag(properties.etag)
        self._require_stored(blob_client, payload)
        return None

    def _put_block(
        self, blob_client: "BlobClient", payload: Payload, payload_file: BinaryIO, offset: int, size_bytes: int
    ) -> str:
        """Send one block; return its name."""
        from comfypin.storage.sdk_session import paced_sending

        # All block ids of a blob must have one length.
        block_id = f"{offset:016}"
        content = os.pread(payload_file.fileno(), min(size_bytes, payload.size_bytes - offset), offset)
        if len(content) != min(size_bytes, payload.size_bytes - offset):
            raise PayloadUnreadable(path=str(payload.path), reason="it became shorter while it was uploaded")

        def send_block() -> None:
            with self._translate_failures("write", blob_client.blob_name), paced_sending(payload.pace, len(content)):
                blob_client.stage_block(block_id, content, length=len(content), validate_content=True)

        self._call_with_retries(send_block, blob_client.blob_name)
        return block_id

    def _response_or_none(
        self, send: Callable[[], Mapping[str, Any]], blob_client: "BlobClient"
    ) -> Mapping[str, Any] | None:
        """Return the response, or None if the server reports success in a form that Azure never sends.

        Raises `StorageError`.
        """
        from comfypin.storage.azure_client import is_claimed_success

        with self._translate_failures("write", blob_client.blob_name):
            try:
                return send()
            except Exception as exception:
                if not is_claimed_success(exception):
                    raise
                return None

    def _require_stored(self, blob_client: "BlobClient", payload: Payload) -> None:
        """Raise `ChecksumMismatch` or `NotStored` unless the container holds what was sent; reads it all."""
        object_uri = self._blob_uri(blob_client.blob_name)
        log.info("blob read back", extra={"action": "azure_read_back", "uri": object_uri})
        hasher = hashlib.sha256()
        try:
            for chunk in self._read_chunks(blob_client.blob_name):
                hasher.update(chunk)
        except ObjectMissing:
            raise NotStored(uri=object_uri, status=201) from None
        if hasher.hexdigest() != payload.sha256.hex:
            raise ChecksumMismatch(
                uri=object_uri, kind="sha256", expected=payload.sha256.hex, actual=hasher.hexdigest()
            )

    def _blob_properties(self, object_key: str) -> Any:
        with self._translate_failures("read", object_key):
            return self._container.get_blob_client(object_key).get_blob_properties()

    def _delete_blob(self, object_key: str) -> None:
        with self._translate_failures("delete", object_key):
            self._container.get_blob_client(object_key).delete_blob()

    def _read_chunks(self, object_key: str, *, offset: int = 0) -> Iterator[bytes]:
        with self._translate_failures("read", object_key):
            blob_client = self._container.get_blob_client(object_key)
            # More than one request at a time would fill memory for a reader that takes one chunk at a time.
            yield from blob_client.download_blob(offset=offset or None, max_concurrency=1).chunks()

    def _signing_key(self, expires_at: datetime) -> dict[str, Any]:
        """Return the account's key, or one that Azure lends to an identity until `expires_at`."""
        from comfypin.storage.azure_client import open_service

        credential = self._container.credential
        if (key := getattr(credential, "account_key", None)) is not None:
            return {"account_key": key}
        if not hasattr(credential, "get_token"):
            raise SigningImpossible(
                store=self._blob_uri(""), reason="a SAS token signs nothing else; AZURE_STORAGE_KEY would"
            )
        starts_at = datetime.now(UTC) - _CLOCKS_DIFFER
        return {"user_delegation_key": open_service(self._settings).get_user_delegation_key(starts_at, expires_at)}

    def _call_with_retries(self, operation: Callable[[], T], object_key: str) -> T:
        return self._retry.call(operation, target=self._blob_uri(object_key))

    def _blob_uri(self, object_key: str) -> str:
        return f"az://{self._settings.bucket}/{object_key}".rstrip("/")

    @contextmanager
    def _translate_failures(self, action: str, object_key: str) -> Iterator[None]:
        """Raise our errors for what goes wrong inside the block."""
        from comfypin.storage.azure_client import FAILURES, explain_failure

        try:
            yield
        except FAILURES as exception:
            error, cause = explain_failure(
                exception, settings=self._settings, action=action, object_uri=self._blob_uri(object_key)
            )
            raise error from cause


def _to_blob_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata as Azure takes it: C# identifiers as names, ASCII values; the rest is percent-encoded."""
    return {metadata_name.replace("-", "_"): _to_header_value(value) for metadata_name, value in metadata.items()}


def _to_header_value(value: str) -> str:
    # Servers take spaces at the ends, and all but one of a row, for nothing.
    spaces = "" if "  " in value or value != value.strip() else " "
    return quote(value, safe=f"{spaces}!#$&'()*+,/:;=?@[]^_`{{|}}~")


def _from_blob_metadata(attributes: Mapping[str, str] | None) -> dict[str, str]:
    return {
        metadata_name.lower().replace("_", "-"): unquote(value) for metadata_name, value in (attributes or {}).items()
    }


def _unquote_etag(etag: str | None) -> str | None:
    """Return an ETag without its quotes."""
    return etag.strip('"') if etag else None


Settings = AzureSettings


def open_store(settings: AzureSettings, *, prefix: str = "") -> AzureStore:
    """Open the container that the settings name, or a prefix in it."""
    return AzureStore(settings, prefix=prefix)
