"""A network volume through its S3 API: the few requests that RunPod's gateway has, none of them presigned.

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
# Joining the parts of a large object takes RunPod's gateway minutes.
_ANSWER_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object or a part that the volume has."""

    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload in parts that was begun and not ended, and when (as the server writes it)."""

    key: str
    upload_id: str = field(repr=False)
    begun: str = ""


class VolumeBucket:
    """One volume. Safe for threads. `settings` name the volume, its endpoint, its region and keys."""

    def __init__(self, settings: S3Settings, *, retry: StoreRetry | None = None) -> None:
        try:
            from comfypin.storage.s3_client import S3Client
        except ImportError as exc:
            raise SdkMissing(store="RunPod's network volumes", extra="s3") from exc
        self._client = S3Client(settings, read_timeout_s=_ANSWER_TIMEOUT_S)
        self._retry = retry or StoreRetry(retries=5)

    @property
    def name(self) -> str:
        """The volume in words."""
        return self._client.store_name

    # -- objects

    def head(self, key: str) -> Stored | None:
        """An object's size and etag, or None."""
        try:
            facts = self._ask("head_object", key, action="read")
        except ObjectMissing:
            return None
        return Stored(key=key, size_bytes=int(facts.get("ContentLength") or 0), etag=_bare(facts))

    def get(self, key: str) -> bytes | None:
        """A small object's bytes, or None."""
        try:
            return self._retry.call(lambda: b"".join(self._chunks(key)), target=self._client.object_uri(key))
        except ObjectMissing:
            return None

    def sha256(self, key: str) -> str:
        """The digest of an object's bytes, all of them read."""

        def read() -> str:
            hasher = hashlib.sha256()
            for chunk in self._chunks(key):
                hasher.update(chunk)
            return hasher.hexdigest()

        return self._retry.call(read, target=self._client.object_uri(key))

    def put(self, key: str, body: bytes) -> None:
        """Write an object in one request, whole or not at all."""
        answer = self._ask("put_object", key, action="write", Body=body, ContentMD5=_content_md5(body))
        self._confirm(key, body, _bare(answer))

    def delete(self, key: str) -> None:
        """Remove one object; one that is gone is fine."""
        try:
            self._ask("delete_object", key, action="delete")
        except ObjectMissing:
            return

    def objects(self, prefix: str) -> Iterator[Stored]:
        """All objects whose keys begin so."""
        following: dict[str, Any] = {}
        while True:
            page = self._ask("list_objects_v2", action="list", Prefix=prefix, **following)
            for item in page.get("Contents", []):
                yield Stored(key=item["Key"], size_bytes=item["Size"], etag=_bare(item))
            if not page.get("IsTruncated") or not page.get("NextContinuationToken"):
                return
            following = {"ContinuationToken": page["NextContinuationToken"]}

    # -- uploads in parts

    def begin(self, key: str) -> str:
        """Begin an upload in parts; its id."""
        upload_id = self._ask("create_multipart_upload", key, action="write").get("UploadId")
        if not upload_id:
            raise StoreRefused(
                store=self.name, action=f"begin {key}", status=200, code="", reason="the answer holds no upload id"
            )
        return str(upload_id)

    def uploads(self, prefix: str) -> list[Upload]:
        """Uploads that were begun and not ended, of keys that begin so; none where the server does not list them."""
        try:
            page = self._ask("list_multipart_uploads", action="list", Prefix=prefix)
        except StoreRefused as refused:
            if refused.facts["status"] in (400, 405, 501):
                return []
            raise
        found = [
            Upload(key=item["Key"], upload_id=item["UploadId"], begun=str(item.get("Initiated", "")))
            for item in page.get("Uploads", [])
        ]
        return [upload for upload in found if upload.key.startswith(prefix)]

    def parts(self, key: str, upload_id: str) -> dict[int, Stored]:
        """The parts that are there, by number. Raises `UploadGone`."""
        found: dict[int, Stored] = {}
        following: dict[str, Any] = {}
        while True:
            page = self._ask("list_parts", key, action="list parts of", UploadId=upload_id, **following)
            for item in page.get("Parts", []):
                found[item["PartNumber"]] = Stored(key=key, size_bytes=item["Size"], etag=_bare(item))
            marker = page.get("NextPartNumberMarker")
            if not page.get("IsTruncated") or not marker or marker == following.get("PartNumberMarker"):
                return found
            following = {"PartNumberMarker": marker}

    def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        """Send a part; its etag. Raises `UploadGone`."""
        answer = self._ask(
            "upload_part",
            key,
            action="write",
            UploadId=upload_id,
            PartNumber=number,
            Body=body,
            ContentMD5=_content_md5(body),
        )
        etag = _bare(answer)
        self._confirm(key, body, etag)
        return etag

    def complete(self, key: str, upload_id: str, etags: Mapping[int, str]) -> None:
        """Join the parts into the object. Raises `UploadGone`, also where an earlier answer to this was lost."""
        parts = [{"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in sorted(etags.items())]
        self._ask("complete_multipart_upload", key, action="join", UploadId=upload_id, MultipartUpload={"Parts": parts})

    def abort(self, key: str, upload_id: str) -> None:
        """Give up an upload and its parts."""
        try:
            self._ask("abort_multipart_upload", key, action="delete", UploadId=upload_id)
        except (ObjectMissing, UploadGone):
            return

    # -- inside

    def _ask(self, operation: str, key: str = "", *, action: str, **parameters: Any) -> dict[str, Any]:
        return self._retry.call(
            lambda: self._explained(
                key, lambda: self._client.call_operation(operation, key, action=action, **parameters)
            ),
            target=self._client.object_uri(key),
        )

    def _chunks(self, key: str) -> Iterator[bytes]:
        answer = self._explained(key, lambda: self._client.call_operation("get_object", key, action="read"))
        with self._client.translate_failures(key, "read"), closing(answer["Body"]) as body:
            yield from body.iter_chunks(CHUNK_BYTES)

    def _explained(self, key: str, ask: Callable[[], T]) -> T:
        """What is asked, with the errors that are a volume's own."""
        try:
            return ask()
        except StoreBusy as exc:
            if exc.facts["code"] == "NoSuchUpload":
                raise UploadGone(uri=self._client.object_uri(key)) from exc
            raise
        except CredentialsRefused as exc:
            remedy = "check RUNPOD_S3_ACCESS_KEY and RUNPOD_S3_SECRET_KEY (console, Settings, S3 API Keys)"
            raise CredentialsRefused(store=self.name, reason=str(exc.facts["reason"]), remedy=remedy) from exc
        except BucketMissing as exc:
            raise BucketMissing(store=self.name, variable="the volume's data centre") from exc

    def _confirm(self, key: str, body: bytes, etag: str) -> None:
        """Where the etag is an md5, it has to be that of what was sent."""
        sent = md5_of(body)
        if _MD5.fullmatch(etag) and etag != sent:
            raise ChecksumMismatch(uri=self._client.object_uri(key), kind="md5", expected=sent, actual=etag)


def _content_md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def md5_of(body: bytes) -> str:
    """The md5 that S3 servers give as the etag of one request's bytes."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def same_part(there: Stored, body: bytes) -> bool:
    """Whether a part that is there holds these bytes: its size, and its md5 where the etag is one."""
    return there.size_bytes == len(body) and (not _MD5.fullmatch(there.etag) or there.etag == md5_of(body))


def _bare(facts: Mapping[str, Any]) -> str:
    return str(facts.get("ETag") or "").strip().removeprefix("W/").strip('"')
