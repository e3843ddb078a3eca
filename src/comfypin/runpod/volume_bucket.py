"""Speaks a network volume's S3 API: the few requests that Runpod's gateway has, none of them presigned.

Its limits: an object in one request stays below 500 MB, parts have 5 MB to 500 MB, there is no DeleteObjects.
https://docs.runpod.io/storage/s3-api
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from comfypin.digest import CHUNK_BYTES
from comfypin.runpod.errors import UploadGone
from comfypin.storage.errors import (
    BucketMissing,
    ChecksumMismatch,
    CredentialsRefused,
    ObjectMissing,
    SdkMissing,
    StoreBusy,
    StoreRefused,
)
from comfypin.storage.retry import StoreRetry
from comfypin.storage.s3_settings import S3Settings

T = TypeVar("T")
_MD5 = re.compile(r"[0-9a-f]{32}")
# Joining the parts of a large object takes Runpod's gateway minutes.
_ANSWER_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeObject:
    """One object, or one part, that the volume has."""

    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipartUpload:
    """One upload in parts that was begun and not completed, and when (as the server writes it)."""

    key: str
    upload_id: str = field(repr=False)
    begun: str = ""


class VolumeBucket:
    """One volume. Safe for threads. `settings` name the volume, its endpoint, its region and keys."""

    def __init__(self, settings: S3Settings, *, retry: StoreRetry | None = None) -> None:
        try:
            from comfypin.storage.s3_client import S3Client
        except ImportError as exc:
            raise SdkMissing(store="Runpod's network volumes", extra="s3") from exc
        self._client = S3Client(settings, read_timeout_s=_ANSWER_TIMEOUT_S)
        self._retry = retry or StoreRetry(retries=5)

    @property
    def name(self) -> str:
        """Return the volume's name for messages."""
        return self._client.store_name

    # -- objects

    def head_object(self, object_key: str) -> VolumeObject | None:
        """Return an object's size and etag, or None."""
        try:
            response_facts = self._call_with_retries("head_object", object_key, action="read")
        except ObjectMissing:
            return None
        return VolumeObject(
            key=object_key, size_bytes=int(response_facts.get("ContentLength") or 0), etag=_bare_etag(response_facts)
        )

    def read_object(self, object_key: str) -> bytes | None:
        """Return a small object's bytes, or None."""
        try:
            return self._retry.call(
                lambda: b"".join(self._read_chunks(object_key)), target=self._client.object_uri(object_key)
            )
        except ObjectMissing:
            return None

    def read_sha256(self, object_key: str) -> str:
        """Return the digest of an object by reading all its bytes."""

        def hash_object() -> str:
            hasher = hashlib.sha256()
            for chunk in self._read_chunks(object_key):
                hasher.update(chunk)
            return hasher.hexdigest()

        return self._retry.call(hash_object, target=self._client.object_uri(object_key))

    def put_object(self, object_key: str, content: bytes) -> None:
        """Write an object in one request, whole or not at all."""
        response = self._call_with_retries(
            "put_object", object_key, action="write", Body=content, ContentMD5=_content_md5(content)
        )
        self._require_same_md5(object_key, content, _bare_etag(response))

    def delete_object(self, object_key: str) -> None:
        """Remove one object; one that is gone is fine."""
        try:
            self._call_with_retries("delete_object", object_key, action="delete")
        except ObjectMissing:
            return

    def list_objects(self, key_prefix: str) -> Iterator[VolumeObject]:
        """Yield all objects whose keys begin with `key_prefix`."""
        page_arguments: dict[str, Any] = {}
        while True:
            list_page = self._call_with_retries("list_objects_v2", action="list", Prefix=key_prefix, **page_arguments)
            for listed in list_page.get("Contents", []):
                yield VolumeObject(key=listed["Key"], size_bytes=listed["Size"], etag=_bare_etag(listed))
            if not list_page.get("IsTruncated") or not list_page.get("NextContinuationToken"):
                return
            page_arguments = {"ContinuationToken": list_page["NextContinuationToken"]}

    # -- uploads in parts

    def begin_upload(self, object_key: str) -> str:
        """Begin an upload in parts and return its id."""
        upload_id = self._call_with_retries("create_multipart_upload", object_key, action="write").get("UploadId")
        if not upload_id:
            raise StoreRefused(
                store=self.name,
                action=f"begin {object_key}",
                status=200,
                code="",
                reason="the answer holds no upload id",
            )
        return str(upload_id)

    def list_uploads(self, key_prefix: str) -> list[MultipartUpload]:
        """Return the unfinished uploads of keys that begin with `key_prefix`; none if the server does not list them."""
        try:
            list_page = self._call_with_retries("list_multipart_uploads", action="list", Prefix=key_prefix)
        except StoreRefused as refused:
            # Not every gateway implements this request.
            if refused.facts["status"] in (400, 405, 501):
                return []
            raise
        found_uploads = [
            MultipartUpload(key=listed["Key"], upload_id=listed["UploadId"], begun=str(listed.get("Initiated", "")))
            for listed in list_page.get("Uploads", [])
        ]
        # A gateway may ignore the prefix.
        return [multipart_upload for multipart_upload in found_uploads if multipart_upload.key.startswith(key_prefix)]

    def list_parts(self, object_key: str, upload_id: str) -> dict[int, VolumeObject]:
        """Return the parts that the volume has, by number. Raises `UploadGone`."""
        found_parts: dict[int, VolumeObject] = {}
        page_arguments: dict[str, Any] = {}
        while True:
            list_page = self._call_with_retries(
                "list_parts", object_key, action="list parts of", UploadId=upload_id, **page_arguments
            )
            for listed in list_page.get("Parts", []):
                found_parts[listed["PartNumber"]] = VolumeObject(
                    key=object_key, size_bytes=listed["Size"], etag=_bare_etag(listed)
                )
            marker = list_page.get("NextPartNumberMarker")
            # The last test: a gateway that ignores the marker would send the first page for ever.
            if not list_page.get("IsTruncated") or not marker or marker == page_arguments.get("PartNumberMarker"):
                return found_parts
            page_arguments = {"PartNumberMarker": marker}

    def put_part(self, object_key: str, upload_id: str, number: int, content: bytes) -> str:
        """Send a part and return its etag. Raises `UploadGone`."""
        response = self._call_with_retries(
            "upload_part",
            object_key,
            action="write",
            UploadId=upload_id,
            PartNumber=number,
            Body=content,
            ContentMD5=_content_md5(content),
        )
        etag = _bare_etag(response)
        self._require_same_md5(object_key, content, etag)
        return etag

    def complete_upload(self, object_key: str, upload_id: str, etags: Mapping[int, str]) -> None:
        """Join the parts into the object. Raises `UploadGone`, also if an earlier response to this was lost."""
        parts = [{"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in sorted(etags.items())]
        self._call_with_retries(
            "complete_multipart_upload", object_key, action="join", UploadId=upload_id, MultipartUpload={"Parts": parts}
        )

    def abort_upload(self, object_key: str, upload_id: str) -> None:
        """Give up an upload and its parts."""
        try:
            self._call_with_retries("abort_multipart_upload", object_key, action="delete", UploadId=upload_id)
        except (ObjectMissing, UploadGone):
            return

    # -- inside

    def _call_with_retries(
        self, operation: str, object_key: str = "", *, action: str, **parameters: Any
    ) -> dict[str, Any]:
        return self._retry.call(
            lambda: self._with_volume_errors(
                object_key, lambda: self._client.call_operation(operation, object_key, action=action, **parameters)
            ),
            target=self._client.object_uri(object_key),
        )

    def _read_chunks(self, object_key: str) -> Iterator[bytes]:
        response = self._with_volume_errors(
            object_key, lambda: self._client.call_operation("get_object", object_key, action="read")
        )
        with self._client.translate_failures(object_key, "read"), closing(response["Body"]) as content:
            yield from content.iter_chunks(CHUNK_BYTES)

    def _with_volume_errors(self, object_key: str, ask: Callable[[], T]) -> T:
        """Call `ask`, and raise target a volume's own errors are instead of S3's."""
        try:
            return ask()
        # Our S3 client takes NoSuchUpload for a passing error; for an upload of our own it is final.
        except StoreBusy as exc:
            if exc.facts["code"] == "NoSuchUpload":
                raise UploadGone(uri=self._client.object_uri(object_key)) from exc
            raise
        except CredentialsRefused as exc:
            remedy = "check RUNPOD_S3_ACCESS_KEY and RUNPOD_S3_SECRET_KEY (console, Settings, S3 API Keys)"
            raise CredentialsRefused(store=self.name, reason=str(exc.facts["reason"]), remedy=remedy) from exc
        except BucketMissing as exc:
            raise BucketMissing(store=self.name, variable="the volume's data centre") from exc

    def _require_same_md5(self, object_key: str, content: bytes, etag: str) -> None:
        """Raise `ChecksumMismatch` if the etag is an md5 and not that of the bytes sent."""
        sent_md5 = md5_of(content)
        if _MD5.fullmatch(etag) and etag != sent_md5:
            raise ChecksumMismatch(uri=self._client.object_uri(object_key), kind="md5", expected=sent_md5, actual=etag)


def _content_md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def md5_of(content: bytes) -> str:
    """Return the md5 that S3 servers give as the etag of one request's bytes."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def is_same_part(stored_part: VolumeObject, content: bytes) -> bool:
    """Return whether a stored part holds these bytes, by its size, and by its md5 if the etag is one."""
    return stored_part.size_bytes == len(content) and (
        not _MD5.fullmatch(stored_part.etag) or stored_part.etag == md5_of(content)
    )


def _bare_etag(response_facts: Mapping[str, Any]) -> str:
    # S3 puts etags in quotes, and some gateways mark them as weak.
    return str(response_facts.get("ETag") or "").strip().removeprefix("W/").strip('"')
