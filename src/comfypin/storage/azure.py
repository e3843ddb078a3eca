"""Objects in a container of Azure Blob Storage, by azure-storage-blob.

Small files go up in one request, large ones in equal blocks that are committed at the end; blocks that never were go
away by themselves after a week. Each request carries the md5 of its bytes, so that the server refuses others. An answer
is success only if its status and md5 say so (of a large file: size and ETag of the blob); of any other answer the blob
itself is read back.
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
from comfypin.storage.keys import joined_key
from comfypin.storage.payload_file import open_payload, read_whole, require_as_hashed
from comfypin.storage.redaction import redact_library_logs
from comfypin.storage.retry import Retry

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

log = logging.getLogger(__name__)
T = TypeVar("T")

WHOLE_BYTES = 8 << 20  # one request up to here
BLOCK_BYTES = 4 << 20
CHECK_TIMEOUT_S = 30.0
PROBE = ".comfypin-write-check"
_MOST_BLOCKS = 50_000  # of Azure
_AT_ONCE = 4
_CLOCKS_DIFFER = timedelta(minutes=5)


class AzureStore:
    """A container, or the part of it below a prefix. Safe for threads."""

    def __init__(self, settings: AzureSettings, *, prefix: str = "", retry: Retry | None = None) -> None:
        if settings.bucket is None:
            raise SettingMissing(variable="AZURE_CONTAINER", purpose="deliver to Azure Blob Storage")
        from comfypin.storage.azure_client import open_container

        redact_library_logs()
        self._settings = settings
        self._prefix = prefix
        self._retry = retry or Retry(retries=settings.retries)
        self._container = open_container(settings)

    def put(self, key: str, payload: Payload) -> StoredObject:
        """Upload the file, and compare what the server says it has."""
        full = joined_key(self._prefix, key)
        blob = self._container.get_blob_client(full)
        with open_payload(payload) as file:
            if payload.size_bytes <= WHOLE_BYTES:
                data = read_whole(payload, file)
                etag = self._retried(lambda: self._put_whole(blob, payload, data), full)
            else:
                require_as_hashed(payload, file)
                etag = self._retried(lambda: self._put_blocks(blob, payload, file), full)
        uri = self._uri(full)
        return StoredObject(key=key, size_bytes=payload.size_bytes, uri=uri, metadata=dict(payload.metadata), etag=etag)

    def head(self, key: str) -> StoredObject | None:
        """Size and metadata, in one request."""
        full = joined_key(self._prefix, key)
        try:
            facts = self._retried(lambda: self._facts(full), full)
        except ObjectMissing:
            return None
        return StoredObject(
            key=key,
            size_bytes=int(facts.size),
            uri=self._uri(full),
            metadata=_metadata(facts.metadata),
            etag=_bare(facts.etag),
        )

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """The blob's bytes, in chunks of up to 8 MiB, each a request of its own."""
        return self._chunks(joined_key(self._prefix, key), offset=offset)

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """An address with a signature (SAS), made with the account's key, or with one that Azure lends to identities.

        Raises `SigningImpossible` if the credentials are a signature themselves, `StorageError`.
        """
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        full = joined_key(self._prefix, key)
        blob = self._container.get_blob_client(full)
        until = datetime.now(UTC) + timedelta(seconds=ttl_s)
        with self._failures_named("sign", full):
            signature = generate_blob_sas(
                str(blob.account_name),
                blob.container_name,
                blob.blob_name,
                permission=BlobSasPermissions(read=True),
                expiry=until,
                **self._signing_key(until),
            )
        return f"{blob.url.partition('?')[0]}?{signature}"

    def check(self, *, below: str = "") -> None:
        """Make sure that the container is there and takes blobs below a prefix.

        Sends a small blob whose bytes are not those of its md5: Azure refuses it, and stores nothing. A server that
        takes it has it removed again. Raises as `put` does.
        """
        if not self._settings.validate:
            return
        full = joined_key(self._prefix, f"{below}/{PROBE}" if below else PROBE)
        blob = self._container.get_blob_client(full)
        if self._retry.call(lambda: self._refuses_probe(blob), what=self._uri(full)):
            return
        try:
            with self._failures_named("delete", full):
                blob.delete_blob()
        except StorageError as exc:
            log.info("probe left behind", extra={"action": "probe_left", "uri": self._uri(full), "reason": exc.message})

    def _refuses_probe(self, blob: "BlobClient") -> bool:
        """Send the probe; return whether it was refused for its md5, which is what a sound service does."""
        from azure.storage.blob import ContentSettings

        other = bytearray(hashlib.md5(b"other bytes", usedforsecurity=False).digest())
        try:
            with self._failures_named("write", blob.blob_name):
                blob.upload_blob(
                    b"comfypin asks whether it may write here",
                    overwrite=True,
                    content_settings=ContentSettings(content_md5=other),
                    connection_timeout=CHECK_TIMEOUT_S,
                    read_timeout=CHECK_TIMEOUT_S,
                )
        except ChecksumMismatch:
            return True
        return False

    def _put_whole(self, blob: "BlobClient", payload: Payload, data: bytes) -> str | None:
        from azure.storage.blob import ContentSettings

        from comfypin.storage.sdk_session import sending

        md5 = bytearray(hashlib.md5(data, usedforsecurity=False).digest())
        settings = ContentSettings(content_type=payload.media_type, content_md5=md5)
        metadata = _attributes(payload.metadata)

        def send() -> Mapping[str, Any]:
            with sending(payload.pace, len(data)):
                return blob.upload_blob(data, overwrite=True, metadata=metadata, content_settings=settings)

        answer = self._claimed(send, blob)
        if answer is not None and answer.get("content_md5") == md5:
            return _bare(answer.get("etag"))
        self._require_stored(blob, payload)
        return None

    def _put_blocks(self, blob: "BlobClient", payload: Payload, file: BinaryIO) -> str | None:
        from azure.storage.blob import BlobBlock, ContentSettings

        block_bytes = max(BLOCK_BYTES, math.ceil(payload.size_bytes / _MOST_BLOCKS))
        offsets = range(0, payload.size_bytes, block_bytes)
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="comfypin-azure")
        try:
            sent = pool.map(lambda at: self._put_block(blob, payload, file, at, block_bytes), offsets)
            blocks = [BlobBlock(block_id=name) for name in sent]
        finally:
            pool.shutdown(cancel_futures=True)
        content = ContentSettings(content_type=payload.media_type)
        metadata = _attributes(payload.metadata)
        answer = self._claimed(
            lambda: blob.commit_block_list(blocks, content_settings=content, metadata=metadata), blob
        )
        with contextlib.suppress(ObjectMissing):
            facts = self._facts(blob.blob_name)
            if answer is not None and (facts.size, facts.etag) == (payload.size_bytes, answer.get("etag")):
                return _bare(facts.etag)
        self._require_stored(blob, payload)
        return None

    def _put_block(self, blob: "BlobClient", payload: Payload, file: BinaryIO, offset: int, size_bytes: int) -> str:
        """Send one block; return its name."""
        from comfypin.storage.sdk_session import sending

        name = f"{offset:016}"
        data = os.pread(file.fileno(), min(size_bytes, payload.size_bytes - offset), offset)
        if len(data) != min(size_bytes, payload.size_bytes - offset):
            raise PayloadUnreadable(path=str(payload.path), reason="it became shorter while it was uploaded")

        def send() -> None:
            with self._failures_named("write", blob.blob_name), sending(payload.pace, len(data)):
                blob.stage_block(name, data, length=len(data), validate_content=True)

        self._retried(send, blob.blob_name)
        return name

    def _claimed(self, send: Callable[[], Mapping[str, Any]], blob: "BlobClient") -> Mapping[str, Any] | None:
        """Send; return the answer, None if it says that all is well, but not as Azure does. Raises `StorageError`."""
        from comfypin.storage.azure_client import is_claimed_success

        with self._failures_named("write", blob.blob_name):
            try:
                return send()
            except Exception as exc:
                if not is_claimed_success(exc):
                    raise
                return None

    def _require_stored(self, blob: "BlobClient", payload: Payload) -> None:
        """Make sure that the container has what was sent, by reading it. Raises `ChecksumMismatch`, `NotStored`."""
        uri = self._uri(blob.blob_name)
        log.info("blob read back", extra={"action": "azure_read_back", "uri": uri})
        hasher = hashlib.sha256()
        try:
            for chunk in self._chunks(blob.blob_name):
                hasher.update(chunk)
        except ObjectMissing:
            raise NotStored(uri=uri, status=201) from None
        if hasher.hexdigest() != payload.sha256.hex:
            raise ChecksumMismatch(uri=uri, kind="sha256", expected=payload.sha256.hex, actual=hasher.hexdigest())

    def _facts(self, full: str) -> Any:
        with self._failures_named("read", full):
            return self._container.get_blob_client(full).get_blob_properties()

    def _chunks(self, full: str, *, offset: int = 0) -> Iterator[bytes]:
        with self._failures_named("read", full):
            blob = self._container.get_blob_client(full)
            yield from blob.download_blob(offset=offset or None, max_concurrency=1).chunks()

    def _signing_key(self, until: datetime) -> dict[str, Any]:
        """Return what signs: the account's key, or one that Azure lends to an identity for as long."""
        from comfypin.storage.azure_client import open_service

        known = self._container.credential
        if (key := getattr(known, "account_key", None)) is not None:
            return {"account_key": key}
        if not hasattr(known, "get_token"):
            raise SigningImpossible(
                store=self._uri(""), reason="a SAS token signs nothing else; AZURE_STORAGE_KEY would"
            )
        since = datetime.now(UTC) - _CLOCKS_DIFFER
        return {"user_delegation_key": open_service(self._settings).get_user_delegation_key(since, until)}

    def _retried(self, operation: Callable[[], T], full: str) -> T:
        return self._retry.call(operation, what=self._uri(full))

    def _uri(self, full: str) -> str:
        return f"az://{self._settings.bucket}/{full}".rstrip("/")

    @contextmanager
    def _failures_named(self, action: str, full: str) -> Iterator[None]:
        """Make errors of ours of what goes wrong within."""
        from comfypin.storage.azure_client import FAILURES, explained

        try:
            yield
        except FAILURES as exc:
            error, cause = explained(exc, settings=self._settings, action=action, uri=self._uri(full))
            raise error from cause


def _attributes(metadata: Mapping[str, str]) -> dict[str, str]:
    """Names are identifiers of C# there, and values ASCII; other characters travel as percent codes."""
    return {name.replace("-", "_"): _header(value) for name, value in metadata.items()}


def _header(value: str) -> str:
    # Servers take spaces at the ends, and all but one of a row, for nothing.
    spaces = "" if "  " in value or value != value.strip() else " "
    return quote(value, safe=f"{spaces}!#$&'()*+,/:;=?@[]^_`{{|}}~")


def _metadata(attributes: Mapping[str, str] | None) -> dict[str, str]:
    return {name.lower().replace("_", "-"): unquote(value) for name, value in (attributes or {}).items()}


def _bare(etag: str | None) -> str | None:
    """An ETag without its quotes."""
    return etag.strip('"') if etag else None


Settings = AzureSettings


def open_store(settings: AzureSettings, *, prefix: str = "") -> AzureStore:
    """The container that the settings name, or the part of it below a prefix."""
    return AzureStore(settings, prefix=prefix)
