"""Objects in a bucket behind the S3 protocol: AWS, Cloudflare R2, MinIO, RunPod volumes.

Requests are counted because they cost money: one PUT an object, no listing, no HEAD before a PUT. The checksum headers
of newer AWS clients are not sent, because R2 and others refuse them: what arrives is proved by the signed digest of the
body, by TLS, and by the ETag.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import quote, unquote

from comfypin.digest import CHUNK_BYTES
from comfypin.errors import StorageError
from comfypin.errors.storage import ChecksumMismatch, SettingMissing, SigningImpossible, StoreUnreachable
from comfypin.storage.body import FilePart, Text
from comfypin.storage.interface import Payload, StoredObject
from comfypin.storage.keys import joined_key
from comfypin.storage.payload_file import open_payload, require_as_hashed
from comfypin.storage.retry import Retry
from comfypin.storage.s3_errors import S3Place
from comfypin.storage.s3_http import S3Http
from comfypin.storage.s3_keys import KeySource
from comfypin.storage.s3_parts import PART_BYTES, PartsUpload
from comfypin.storage.s3_proof import Proof
from comfypin.storage.s3_settings import S3Settings
from comfypin.storage.upload_notes import UploadNotes
from comfypin.storage.wire import Answer

log = logging.getLogger(__name__)

# md5 costs more than twice what sha256 does, and more than the upload; above this size TLS or signatures must do.
ETAG_CHECKED_BYTES = 256 << 20
# One request up to here, where the endpoint is plain http: parts would have to be hashed, each once more.
PLAIN_WHOLE_BYTES = 1 << 30
PROBE = ".comfypin-write-check"
_PROBE_BODY = b"comfypin asks whether it may write here"
_OTHER_BODY = b"comfypin asks whether digests are checked"
_REFUSES_OTHER_BYTES = {"XAmzContentSHA256Mismatch", "BadDigest", "XAmzContentChecksumMismatch"}


class _LineBroke(Exception):
    """A large file did not get through in one request."""


class S3Store:
    """A bucket, or the part of it below a prefix."""

    def __init__(self, config: S3Settings, *, prefix: str = "", retry: Retry | None = None) -> None:
        if config.bucket is None:
            raise SettingMissing(variable="S3_BUCKET", purpose="deliver to S3 or R2")
        self._prefix = prefix
        self._validate = config.validate
        self._place = S3Place(bucket=config.bucket, endpoint=config.endpoint, region=config.region)
        self._retry = retry or Retry(retries=config.retries)
        self._http = S3Http(config, self._place, KeySource(config))
        self._whole_bytes = config.multipart_bytes or (PART_BYTES if self._http.is_encrypted else PLAIN_WHOLE_BYTES)
        # Large files that are one request only because that is cheaper are not worth a second one.
        parted = config.multipart_bytes is None and self._retry.retries
        self._parted_bytes = PART_BYTES if parted else self._whole_bytes
        self._proof = Proof(self._place.name)
        self._notes = UploadNotes(config.notes)

    def put(self, key: str, payload: Payload) -> StoredObject:
        """Upload the file: one request, or equal parts where it is large. Verified as the module says."""
        full = joined_key(self._prefix, key)
        upload = self._put_parts if payload.size_bytes > self._whole_bytes else self._put_whole
        with open_payload(payload) as file:
            try:
                etag = upload(full, payload, file)
            except _LineBroke as exc:
                log.warning(
                    "upload goes on in parts",
                    extra={"action": "storage_parted", "what": self._http.uri(full), "reason": str(exc)},
                )
                self._retry.sleep(self._retry.pause_s(0))
                etag = self._put_parts(full, payload, file)
        return StoredObject(
            key=key, size_bytes=payload.size_bytes, uri=self._http.uri(full), metadata=dict(payload.metadata), etag=etag
        )

    def head(self, key: str) -> StoredObject | None:
        """Size and metadata, in one HEAD."""
        full = joined_key(self._prefix, key)
        answer = self._retry.call(lambda: self._facts(full), what=self._http.uri(full))
        if answer is None:
            return None
        return StoredObject(
            key=key,
            size_bytes=int(answer.headers.get("content-length") or 0),
            uri=self._http.uri(full),
            metadata=_metadata(answer.headers),
            etag=bare(answer.headers.get("etag")),
        )

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """The object's bytes, as they come, in chunks of up to 1 MiB."""
        full = joined_key(self._prefix, key)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        skip = 0
        for ranged, chunk in self._http.stream(full, headers=headers, chunk_bytes=CHUNK_BYTES):
            if not chunk:
                skip = 0 if ranged else offset  # some servers have no ranges
                continue
            if len(chunk) > skip:
                yield chunk[skip:]
            skip = max(0, skip - len(chunk))

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """A presigned GET (signature version 4)."""
        if self._place.is_runpod_volume:
            raise SigningImpossible(store=self._place.name, reason="RunPod's volumes have no presigned URLs")
        return self._http.signed_url(joined_key(self._prefix, key), ttl_s=ttl_s)

    def check(self, *, below: str = "") -> None:
        """Make sure that the bucket is there and takes objects below a prefix.

        Sends one small object whose bytes are not those of its signed digest: a server that checks digests refuses it
        and stores nothing, and its ETags need not be asked later. One that takes it has it removed again. Raises as
        `put` does.
        """
        if not self._validate:
            return
        with self._http.hurried():
            self._ask_to_write(joined_key(self._prefix, f"{below}/{PROBE}" if below else PROBE))

    def _ask_to_write(self, full: str) -> None:
        other = Text(data=_OTHER_BODY[: len(_PROBE_BODY)], sha256=Text.of(_PROBE_BODY).sha256)
        answer = self._retry.call(lambda: self._probed(full, other), what=self._http.uri(full))
        if answer.status < 300:
            self._remove_probe(full)
        elif any(f"<Code>{code}<" in answer.text for code in _REFUSES_OTHER_BYTES):
            self._proof.digests_are_checked = True
        else:
            # Some servers have other words for it: the right bytes decide.
            right = Text.of(_PROBE_BODY)
            self._retry.call(lambda: self._http.ask("PUT", full, action="write", body=right), what=self._http.uri(full))
            self._remove_probe(full)

    def _probed(self, full: str, body: Text) -> Answer:
        answer = self._http.exchange("PUT", full, body=body)
        if answer.status >= 429 or answer.status < 300:
            self._http.require_success(answer, full, action="write")
        return answer

    def _remove_probe(self, full: str) -> None:
        try:
            self._http.ask("DELETE", full, action="delete")
        except StorageError as exc:
            log.info(
                "probe left behind", extra={"action": "probe_left", "uri": self._http.uri(full), "reason": exc.message}
            )

    def _put_whole(self, full: str, payload: Payload, file: BinaryIO) -> str | None:
        require_as_hashed(payload, file)
        body = FilePart(file.fileno(), offset=0, size_bytes=payload.size_bytes, path=str(payload.path))
        body.pace = payload.pace
        body.sha256 = payload.sha256.hex

        def attempt() -> str | None:
            unproven = self._proof.wants_etag and not self._proof.digests_are_checked
            compared = unproven and payload.size_bytes <= ETAG_CHECKED_BYTES
            md5 = body.summing = hashlib.md5(usedforsecurity=False) if compared else None
            try:
                answer = self._http.ask("PUT", full, action="write", headers=_attributes(payload), body=body)
            except StoreUnreachable as exc:
                if payload.size_bytes > self._parted_bytes:
                    raise _LineBroke(exc.message) from exc
                raise
            etag = bare(answer.headers.get("etag"))
            if md5 is not None:
                self._confirm(full, payload, etag, md5.hexdigest())
            return etag

        return self._retry.call(attempt, what=self._http.uri(full))

    def _put_parts(self, full: str, payload: Payload, file: BinaryIO) -> str | None:
        upload = PartsUpload(self._http, self._retry, full, payload, file)
        upload.headers = _attributes(payload)
        upload.notes = self._notes

        def attempt() -> str | None:
            signed = self._proof.digests_are_checked and not self._http.is_encrypted
            compared = self._proof.wants_etag and not signed and payload.size_bytes <= ETAG_CHECKED_BYTES
            etag = upload.send(with_md5=compared)
            self._confirm_joined(full, payload)
            if compared:
                self._confirm(full, payload, etag, upload.expected_etag)
            return etag

        return self._retry.call(attempt, what=self._http.uri(full))

    def _confirm_joined(self, full: str, payload: Payload) -> None:
        """Ask the server for the size of what it joined: the one request beyond those that carry the bytes."""
        answer = self._retry.call(lambda: self._http.ask("HEAD", full, action="read"), what=self._http.uri(full))
        size = answer.headers.get("content-length")
        if size != str(payload.size_bytes):
            raise ChecksumMismatch(
                uri=self._http.uri(full), kind="size", expected=str(payload.size_bytes), actual=str(size)
            )

    def _confirm(self, full: str, payload: Payload, etag: str | None, expected: str) -> None:
        """Compare the ETag with the md5 it usually is; where it differs, the bytes themselves decide.

        An ETag is no md5 on buckets with KMS keys, and on some servers never.
        """
        if etag == expected:
            self._proof.etag_agreed()
            return
        actual = self._digest_as_stored(full)
        if actual != payload.sha256.hex:
            raise ChecksumMismatch(uri=self._http.uri(full), kind="sha256", expected=payload.sha256.hex, actual=actual)
        self._proof.etag_differed()

    def _digest_as_stored(self, full: str) -> str:
        hasher = hashlib.sha256()
        for _, chunk in self._http.stream(full, headers={}, chunk_bytes=CHUNK_BYTES, action="read back"):
            hasher.update(chunk)
        return hasher.hexdigest()

    def _facts(self, full: str) -> Answer | None:
        answer = self._http.exchange("HEAD", full)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        if answer.status >= 300:
            # A refused HEAD has no words; a refused GET has.
            with closing(self._http.stream(full, headers={"Range": "bytes=0-0"}, chunk_bytes=1)) as refused:
                next(refused)
        self._http.require_success(answer, full, action="read")
        return answer


def bare(etag: str | None) -> str | None:
    """An ETag without its quotes."""
    return etag.strip().removeprefix("W/").strip('"') if etag else None


def _attributes(payload: Payload) -> dict[str, str]:
    return {
        "Content-Type": payload.media_type,
        **{f"x-amz-meta-{name}": _header(value) for name, value in payload.metadata.items()},
    }


def _header(value: str) -> str:
    """Headers are ASCII; other characters travel as percent codes, and come back as what they were."""
    # Signatures are of headers with single spaces between words.
    spaces = "" if "  " in value or value != value.strip() else " "
    return quote(value, safe=f"{spaces}!#$&'()*+,/:;=?@[]^_`{{|}}~\"<>\\")


def _metadata(headers: Mapping[str, str]) -> dict[str, str]:
    found = ((re.fullmatch(r"x-amz-meta-(.+)", name.lower()), value) for name, value in headers.items())
    return {match[1]: unquote(value) for match, value in found if match}


Settings = S3Settings


def open_store(settings: S3Settings, *, prefix: str = "") -> S3Store:
    """The bucket that the settings name, or the part of it below a prefix."""
    return S3Store(settings, prefix=prefix)
