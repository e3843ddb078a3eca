"""One file as an upload in equal parts, several of them at once; aborted when it is given up.

R2 takes only parts of one size: https://developers.cloudflare.com/r2/objects/multipart-objects/
"""

import hashlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, BinaryIO

from comfypin.errors import Cancelled, StorageError
from comfypin.storage.errors import StoreBusy, StoreRefused
from comfypin.storage.interface import Payload
from comfypin.storage.part_sizes import joined_etag, part_size
from comfypin.storage.retry import Retry
from comfypin.storage.s3_client import S3Client
from comfypin.storage.s3_errors import BODY, STATUS, code_in
from comfypin.storage.upload_body import UploadBody
from comfypin.storage.upload_notes import Left, UploadNotes

PARTS_AT_ONCE = 8


class PartsUpload:
    """An upload of one payload, which may be sent again from its beginning. Each part is retried by itself."""

    def __init__(self, client: S3Client, retry: Retry, key: str, payload: Payload, file: BinaryIO) -> None:
        self._client = client
        self._retry = retry
        self._key = key
        self._uri = client.uri(key)
        self._file = file
        self._given_up = threading.Event()
        self._payload = replace(payload, pace=self._pace(payload.pace))
        self.attributes: Mapping[str, Any] = {}
        self.notes = UploadNotes(None)
        self.expected_etag = ""

    def send(self, *, with_md5: bool) -> str | None:
        """Send all parts and have them joined; the object's ETag. `expected_etag` is then what md5 sums make of it."""
        self.notes.clear(self._client.name, self._abort_left)
        self._given_up.clear()
        with self.notes.of(self._client.name, self._key) as note:
            upload_id = self._begin()
            note.begun(upload_id)
            try:
                sent = self._send_all(upload_id, with_md5=with_md5)
                self.expected_etag = joined_etag([md5 for _, md5 in sent]) if with_md5 else ""
                etag = self._join(upload_id, [etag for etag, _ in sent])
            except BaseException:
                if self._give_up(upload_id):
                    note.ended()
                raise
            note.ended()
            return etag

    def _pace(self, pace: Callable[[int], None] | None) -> Callable[[int], None]:
        def go_on(count: int) -> None:
            self._require_going()
            if pace is not None:
                pace(count)

        return go_on

    def _require_going(self) -> None:
        if self._given_up.is_set():
            raise Cancelled("The upload was given up.")

    def _give_up(self, upload_id: str) -> bool:
        """Abort an upload; whether that could be done."""
        try:
            self._retry.call(lambda: self._abort(self._key, upload_id), what=self._uri)
        except StorageError:
            return False
        return True

    def _abort(self, key: str, upload_id: str) -> None:
        try:
            self._client.call("abort_multipart_upload", key, action="delete", UploadId=upload_id)
        except StoreBusy as exc:
            if exc.facts["code"] != "NoSuchUpload":
                raise

    def _abort_left(self, left: Left) -> bool:
        """Abort, in one try, what a killed process left; whether nothing more can be done about it."""
        try:
            self._abort(left.key, left.upload_id)
        except StorageError as exc:
            return int(str(exc.facts.get("status") or 500)) < 429
        return True

    def _begin(self) -> str:
        def ask() -> str:
            answer = self._client.call("create_multipart_upload", self._key, action="write", **self.attributes)
            upload_id = answer.get("UploadId")
            if not upload_id:
                raise StoreRefused(
                    store=self._uri, action="begin an upload", status=answer[STATUS], code="", reason="no upload id"
                )
            return str(upload_id)

        return self._retry.call(ask, what=self._uri)

    def _send_all(self, upload_id: str, *, with_md5: bool) -> list[tuple[str, str]]:
        """The ETag and md5 of every part, in order. After a failure no part is begun any more."""
        size, step = self._payload.size_bytes, part_size(self._payload.size_bytes)
        offsets = range(0, size, step)
        with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="comfypin-part") as pool:
            futures = [
                pool.submit(
                    self._send,
                    upload_id,
                    number,
                    UploadBody(self._payload, self._file.fileno(), offset=offset, size_bytes=min(step, size - offset)),
                    with_md5=with_md5,
                )
                for number, offset in enumerate(offsets, 1)
            ]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                # The first that failed by itself: others are cancelled because of it.
                failures = [exc for future in done if (exc := future.exception()) is not None]
                for failure in failures:
                    raise failure
            except BaseException:
                self._given_up.set()
                for future in futures:
                    future.cancel()
                raise
        return [future.result() for future in futures]

    def _send(self, upload_id: str, number: int, part: UploadBody, *, with_md5: bool) -> tuple[str, str]:
        def ask() -> tuple[str, str]:
            self._require_going()
            md5 = part.summing = hashlib.md5(usedforsecurity=False) if with_md5 else None
            answer = self._client.call(
                "upload_part", self._key, action="write", UploadId=upload_id, PartNumber=number, Body=part
            )
            etag = str(answer.get("ETag") or "")
            if answer[STATUS] != 200 or not etag or answer[BODY].strip():
                raise StoreBusy(
                    store=self._uri, status=answer[STATUS], code=code_in(answer[BODY]) or "no part's answer"
                )
            return etag, md5.hexdigest() if md5 is not None else ""

        return self._retry.call(ask, what=f"{self._uri} part {number}")

    def _join(self, upload_id: str, etags: list[str]) -> str | None:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]

        def ask() -> str | None:
            try:
                answer = self._client.call(
                    "complete_multipart_upload",
                    self._key,
                    action="write",
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},
                )
            except StoreBusy as exc:
                # It was joined by a request whose answer was lost, or removed by somebody: the object decides.
                if exc.facts["code"] == "NoSuchUpload":
                    return None
                raise
            return str(answer.get("ETag") or "").strip('"') or None

        return self._retry.call(ask, what=self._uri)
