"""Objects in a bucket behind the S3 protocol (AWS, Cloudflare R2, MinIO, Runpod volumes), by boto3's client.

Requests are counted because they cost money: one PUT for each object, no listing, no HEAD before a PUT. A response is a
success only if its status, body and ETag prove it; after any other, the object itself is read back.
"""

import base64
import hashlib
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from comfypin.digest import CHUNK_BYTES
from comfypin.errors import StorageError
from comfypin.storage.errors import (
    ChecksumMismatch,
    NotAStore,
    NotStored,
    ObjectMissing,
    SigningImpossible,
    TransientStorageError,
)
from comfypin.storage.interface import Payload, StoredObject
from comfypin.storage.object_keys import join_key
from comfypin.storage.part_sizes import PART_BYTES
from comfypin.storage.payload_file import open_payload, require_as_hashed
from comfypin.storage.retry import StoreRetry
from comfypin.storage.s3_settings import S3Settings
from comfypin.storage.upload_body import UploadBody
from comfypin.storage.upload_notes import UploadNotes

log = logging.getLogger(__name__)

# md5 costs more than twice what sha256 does, and more than the upload; above this size TLS or signatures must do.
ETAG_CHECKED_BYTES = 256 << 20
PROBE = ".comfypin-write-check"
_PROBE_BODY = b"comfypin asks whether it may write here"
# What servers call a body that does not match its digest.
_REFUSES_OTHER_BYTES = {"XAmzContentSHA256Mismatch", "BadDigest", "XAmzContentChecksumMismatch"}
# One odd ETag may be chance; three whose objects were read back and found right are the bucket's way.
_OPAQUE_AFTER = 3


class EtagTrust:
    """Learns whether a bucket's ETags are md5 sums: no longer asked when several differed and none ever matched.

    They are not on buckets with KMS keys, and on some servers never.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._seen_agreeing = False
        self._differing = 0

    @property
    def is_opaque(self) -> bool:
        """Return whether ETags prove nothing here."""
        return not self._seen_agreeing and self._differing >= _OPAQUE_AFTER

    def note_agreed(self) -> None:
        """Note that an ETag was the md5 of what was sent."""
        self._seen_agreeing = True

    def note_differed(self) -> None:
        """Note that an ETag was something else, though the bytes were right."""
        with self._lock:
            self._differing += 1
            if self._differing == _OPAQUE_AFTER and not self._seen_agreeing:
                log.info("etags are not checksums here", extra={"action": "etags_opaque", "store": self._store})


class S3Store:
    """Stores objects in a bucket, or below a prefix in it. Safe for threads."""

    def __init__(self, settings: S3Settings, *, prefix: str = "", retry: StoreRetry | None = None) -> None:
        from comfypin.storage.s3_client import S3Client

        self._client = S3Client(settings)
        self._prefix = prefix
        self._validate = settings.validate
        self._retry = retry or StoreRetry(retries=settings.retries)
        self._whole_bytes = settings.multipart_bytes or PART_BYTES
        self._trust = EtagTrust(self._client.store_name)
        self._digests_are_checked = False
        self._notes = UploadNotes(settings.notes)

    def put(self, key: str, payload: Payload) -> StoredObject:
        """Upload the file in one request, or in equal parts if it is large. Verified as the module says."""
        object_key = join_key(self._prefix, key)
        upload = self._put_parts if payload.size_bytes > self._whole_bytes else self._put_whole
        with open_payload(payload) as payload_file:
            # Without a stamp the digest that botocore signs is compared.
            if payload.stamp is not None or self._sends_checksum:
                require_as_hashed(payload, payload_file)
            etag = upload(object_key, payload, payload_file)
        object_uri = self._client.object_uri(object_key)
        return StoredObject(
            key=key, size_bytes=payload.size_bytes, uri=object_uri, metadata=dict(payload.metadata), etag=etag
        )

    def head(self, key: str) -> StoredObject | None:
        """Return size and metadata, from one HEAD."""
        object_key = join_key(self._prefix, key)
        object_head = self._retry.call(
            lambda: self._head_object(object_key), target=self._client.object_uri(object_key)
        )
        if object_head is None:
            return None
        return StoredObject(
            key=key,
            size_bytes=int(object_head.get("ContentLength") or 0),
            uri=self._client.object_uri(object_key),
            metadata=_from_metadata_headers(object_head),
            etag=unquote_etag(object_head.get("ETag")),
        )

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the object's bytes as they arrive, in chunks of up to 1 MiB."""
        return self._read_chunks(join_key(self._prefix, key), offset=offset)

    def remove(self, key: str) -> None:
        """Remove the object."""
        object_key = join_key(self._prefix, key)
        self._retry.call(
            lambda: self._client.call_operation("delete_object", object_key, action="delete"),
            target=self._client.object_uri(object_key),
        )

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """Return a presigned GET URL (signature version 4)."""
        if self._client.location.is_runpod_volume:
            raise SigningImpossible(store=self._client.store_name, reason="Runpod's volumes have no presigned URLs")
        return self._client.signed_url(join_key(self._prefix, key), ttl_s=ttl_s)

    def check(self, *, below: str = "") -> None:
        """Raise an error unless the bucket exists and takes objects below a prefix. Skipped if S3_VALIDATE is false.

        Sends one small object whose bytes do not match its signed digest: a server that checks digests refuses it and
        stores nothing. If a server accepts it, it is deleted again. Raises as `put` does.
        """
        if self._validate:
            # It is asked before the engine starts: a bucket that is away should be named in seconds.
            with self._client.with_short_timeouts():
                self._probe_write(join_key(self._prefix, f"{below}/{PROBE}" if below else PROBE))

    @property
    def _sends_checksum(self) -> bool:
        """Return whether the digest is sent in a checksum header, which the server checks and repeats.

        Services other than AWS refuse that header, or ignore it.
        """
        return self._client.is_aws and self._client.is_encrypted

    # -- before the first job

    def _probe_write(self, object_key: str) -> None:
        verdict = self._retry.call(
            lambda: self._send_other_bytes(object_key), target=self._client.object_uri(object_key)
        )
        if verdict == "checked":
            self._digests_are_checked = True
            return
        if verdict == "refused":
            # Some servers have other words for it: the right bytes decide.
            self._retry.call(
                lambda: self._client.call_operation("put_object", object_key, action="write", Body=_PROBE_BODY),
                target=self._client.object_uri(object_key),
            )
        self._remove_probe(object_key)

    def _send_other_bytes(self, object_key: str) -> str:
        from comfypin.storage.upload_body import TamperedBody

        try:
            self._client.call_operation("put_object", object_key, action="write", Body=TamperedBody(_PROBE_BODY))
        except StorageError as exception:
            if exception.facts.get("code") in _REFUSES_OTHER_BYTES:
                return "checked"
            # These say nothing of the digest: the first is tried again, the second is the user's to know.
            if isinstance(exception, TransientStorageError | NotAStore):
                raise
            return "refused"
        return "taken"

    def _remove_probe(self, object_key: str) -> None:
        try:
            self._client.call_operation("delete_object", object_key, action="delete")
        except StorageError as exception:
            object_uri = self._client.object_uri(object_key)
            log.info(
                "probe left behind", extra={"action": "probe_left", "uri": object_uri, "reason": exception.message}
            )

    # -- sending

    def _put_whole(self, object_key: str, payload: Payload, payload_file: BinaryIO) -> str | None:
        upload_body = UploadBody(payload, payload_file.fileno(), offset=0, size_bytes=payload.size_bytes)
        attributes = _object_attributes(payload)
        if self._sends_checksum:
            attributes["ChecksumSHA256"] = base64.b64encode(bytes.fromhex(payload.sha256.hex)).decode()

        def send_once() -> str | None:
            # Made anew for each try: a sum of half a body would be carried into the next.
            md5_hash = hashlib.md5(usedforsecurity=False) if self._compares_etag(payload) else None
            upload_body.summing = md5_hash
            response = self._client.call_operation(
                "put_object", object_key, action="write", Body=upload_body, **attributes
            )
            return self._confirm_whole(
                object_key, payload, response, md5_hash.hexdigest() if md5_hash is not None else None
            )

        return self._retry.call(send_once, target=self._client.object_uri(object_key))

    def _put_parts(self, object_key: str, payload: Payload, payload_file: BinaryIO) -> str | None:
        from comfypin.storage.s3_parts import S3PartsUpload

        upload = S3PartsUpload(self._client, self._retry, object_key, payload, payload_file)
        upload.attributes = _object_attributes(payload)
        upload.notes = self._notes

        def send_once() -> str | None:
            signed = self._digests_are_checked and not self._client.is_encrypted
            compared = not signed and payload.size_bytes <= ETAG_CHECKED_BYTES and not self._trust.is_opaque
            etag = upload.upload_file(with_md5=compared)
            return self._confirm_by_head(object_key, payload, etag, upload.expected_etag or None)

        return self._retry.call(send_once, target=self._client.object_uri(object_key))

    def _compares_etag(self, payload: Payload) -> bool:
        return not (self._sends_checksum or self._trust.is_opaque or payload.size_bytes > ETAG_CHECKED_BYTES)

    # -- believing

    def _confirm_whole(
        self, object_key: str, payload: Payload, answer: Mapping[str, Any], md5_etag: str | None
    ) -> str | None:
        """Raise `ChecksumMismatch` or `NotStored` unless the response, or the object itself, proves the upload."""
        from comfypin.storage.s3_errors import BODY, STATUS

        etag = unquote_etag(answer.get("ETag"))
        if answer[STATUS] != 200 or etag is None or answer[BODY].strip():
            # S3 does not respond to a PUT like that: this is a proxy, or another server.
            self._read_back(object_key, payload, status=answer[STATUS])
        elif md5_etag is not None and etag == md5_etag:
            self._trust.note_agreed()
        elif self._sends_checksum and _is_checksum(answer.get("ChecksumSHA256"), payload):
            pass
        elif md5_etag is None or self._digests_are_checked:
            self._confirm_by_head(object_key, payload, etag, None)
        else:
            self._read_back(object_key, payload, status=answer[STATUS])
            self._trust.note_differed()
        return etag

    def _confirm_by_head(self, object_key: str, payload: Payload, etag: str | None, md5_etag: str | None) -> str | None:
        """Raise an error unless the server has an object of this size and ETag; return the ETag.

        If it has another ETag, the bytes themselves decide.
        """
        object_head = self._retry.call(
            lambda: self._head_object(object_key), target=self._client.object_uri(object_key)
        )
        if object_head is None:
            raise NotStored(uri=self._client.object_uri(object_key), status=200)
        size, found_etag = object_head.get("ContentLength"), unquote_etag(object_head.get("ETag"))
        if size != payload.size_bytes:
            raise ChecksumMismatch(
                uri=self._client.object_uri(object_key), kind="size", expected=str(payload.size_bytes), actual=str(size)
            )
        if md5_etag is not None and found_etag == md5_etag:
            self._trust.note_agreed()
        elif md5_etag is not None or found_etag is None or found_etag != etag or not _has_digest(object_head, payload):
            self._read_back(object_key, payload, status=200)
            if md5_etag is not None:
                self._trust.note_differed()
        return found_etag

    def _read_back(self, object_key: str, payload: Payload, *, status: int) -> None:
        hasher = hashlib.sha256()
        try:
            for chunk in self._read_chunks(object_key, action="read back"):
                hasher.update(chunk)
        except ObjectMissing as exception:
            raise NotStored(uri=self._client.object_uri(object_key), status=status) from exception
        if hasher.hexdigest() != payload.sha256.hex:
            raise ChecksumMismatch(
                uri=self._client.object_uri(object_key),
                kind="sha256",
                expected=payload.sha256.hex,
                actual=hasher.hexdigest(),
            )

    # -- reading

    def _read_chunks(self, object_key: str, *, offset: int = 0, action: str = "read") -> Iterator[bytes]:
        from comfypin.storage.s3_errors import STATUS

        range_option = {"Range": f"bytes={offset}-"} if offset else {}
        with self._client.translate_failures(object_key, action):
            response = self._client.call_operation("get_object", object_key, action=action, **range_option)
            # Some servers ignore ranges, and `rclone serve s3` sends the range with status 200.
            is_ranged = response[STATUS] == 206 or "ContentRange" in response
            skip_bytes = 0 if is_ranged else offset
            with closing(response["Body"]) as response_body:
                for chunk in response_body.iter_chunks(CHUNK_BYTES):
                    if len(chunk) > skip_bytes:
                        yield chunk[skip_bytes:]
                    skip_bytes = max(0, skip_bytes - len(chunk))

    def _head_object(self, object_key: str) -> dict[str, Any] | None:
        try:
            return self._client.call_operation("head_object", object_key, action="read")
        except ObjectMissing:
            return None
        except TransientStorageError:
            raise
        except StorageError:
            # A refused HEAD has no words; a refused GET has.
            self._client.call_operation("get_object", object_key, action="read", Range="bytes=0-0")["Body"].close()
            raise


def unquote_etag(etag: str | None) -> str | None:
    """Return an ETag without its quotes; None if it is empty."""
    return (etag.strip().removeprefix("W/").strip('"') or None) if etag else None


def _is_checksum(returned_checksum: object, payload: Payload) -> bool:
    return returned_checksum == base64.b64encode(bytes.fromhex(payload.sha256.hex)).decode()


def _has_digest(object_head: Mapping[str, Any], payload: Payload) -> bool:
    """Return whether an object's metadata holds the payload's sha256; True if the payload has none."""
    expected_sha256 = payload.metadata.get("sha256")
    return expected_sha256 is None or _from_metadata_headers(object_head).get("sha256") == expected_sha256


def _object_attributes(payload: Payload) -> dict[str, Any]:
    metadata = {metadata_name: _to_header_value(value) for metadata_name, value in payload.metadata.items()}
    return {"ContentType": payload.media_type, "Metadata": metadata}


def _to_header_value(value: str) -> str:
    """Return a value as headers carry it: other characters than ASCII are percent-encoded, and decoded when read."""
    # Signatures are of headers with single spaces between words.
    safe_spaces = "" if "  " in value or value != value.strip() else " "
    return quote(value, safe=f"{safe_spaces}!#$&'()*+,/:;=?@[]^_`{{|}}~\"<>\\")


def _from_metadata_headers(object_head: Mapping[str, Any]) -> dict[str, str]:
    # Servers may change the case of the names.
    return {
        metadata_name.lower(): unquote(value) for metadata_name, value in (object_head.get("Metadata") or {}).items()
    }


Settings = S3Settings


def open_store(settings: S3Settings, *, prefix: str = "") -> S3Store:
    """Open the bucket that the settings name, or a prefix in it."""
    return S3Store(settings, prefix=prefix)
