"""Uploads one file in equal parts, several at once; aborts the upload if it fails.

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
from comfypin.storage.part_sizes import multipart_etag, part_size
from comfypin.storage.retry import StoreRetry
from comfypin.storage.s3_client import S3Client
from comfypin.storage.s3_errors import BODY, STATUS, error_code_in
from comfypin.storage.upload_body import UploadBody
from comfypin.storage.upload_notes import UnfinishedUpload, UploadNotes

# Half of what an upload of ten files may hold open; each holds a part's connection, not its bytes.
PARTS_AT_ONCE = 8


class S3PartsUpload:
    """Uploads one payload; may be started again from its beginning. Each part has its own retries."""

    def __init__(
        self, client: S3Client, retry: StoreRetry, object_key: str, payload: Payload, payload_file: BinaryIO
    ) -> None:
        self._client = client
        self._retry = retry
        self._key = object_key
        self._uri = client.object_uri(object_key)
        self._file = payload_file
        self._given_up = threading.Event()
        self._payload = replace(payload, pace=self._stoppable_pace(payload.pace))
        self.attributes: Mapping[str, Any] = {}
        self.notes = UploadNotes(None)
        self.expected_etag = ""

    def upload_file(self, *, with_md5: bool) -> str | None:
        """Send all parts, have them joined, and return the object's ETag.

        `expected_etag` is then the ETag that the md5 sums of the parts make.
        """
        self.notes.abort_unfinished(self._client.store_name, self._abort_left)
        # The upload may be started again after a failure.
        self._given_up.clear()
        with self.notes.open_note(self._client.store_name, self._key) as upload_note:
            upload_id = self._begin_upload()
            upload_note.note_begun(upload_id)
            try:
                sent_parts = self._send_parts(upload_id, with_md5=with_md5)
                self.expected_etag = multipart_etag([md5_hash for _, md5_hash in sent_parts]) if with_md5 else ""
                etag = self._join_parts(upload_id, [etag for etag, _ in sent_parts])
            except BaseException:
                if self._give_up(upload_id):
                    upload_note.note_ended()
                raise
            upload_note.note_ended()
            return etag

    def _stoppable_pace(self, pace: Callable[[int], None] | None) -> Callable[[int], None]:
        def pace_or_stop(count: int) -> None:
            self._require_not_stopped()
            if pace is not None:
                pace(count)

        return pace_or_stop

    def _require_not_stopped(self) -> None:
        if self._given_up.is_set():
            raise Cancelled("The upload was given up.")

    def _give_up(self, upload_id: str) -> bool:
        """Abort an upload and return whether that succeeded."""
        try:
            self._retry.call(lambda: self._abort_upload(self._key, upload_id), target=self._uri)
        except StorageError:
            return False
        return True

    def _abort_upload(self, object_key: str, upload_id: str) -> None:
        try:
            self._client.call_operation("abort_multipart_upload", object_key, action="delete", UploadId=upload_id)
        except StoreBusy as exception:
            if exception.facts["code"] != "NoSuchUpload":
                raise

    def _abort_left(self, unfinished: UnfinishedUpload) -> bool:
        """Abort, in one try, what a killed process left; return whether the note of it can be removed."""
        try:
            self._abort_upload(unfinished.key, unfinished.upload_id)
        except StorageError as exception:
            # With a 4xx below 429 the upload is gone, or not ours to abort: asking again would change nothing.
            return int(str(exception.facts.get("status") or 500)) < 429
        return True

    def _begin_upload(self) -> str:
        def begin_once() -> str:
            response = self._client.call_operation(
                "create_multipart_upload", self._key, action="write", **self.attributes
            )
            upload_id = response.get("UploadId")
            if not upload_id:
                raise StoreRefused(
                    store=self._uri, action="begin an upload", status=response[STATUS], code="", reason="no upload id"
                )
            return str(upload_id)

        return self._retry.call(begin_once, target=self._uri)

    def _send_parts(self, upload_id: str, *, with_md5: bool) -> list[tuple[str, str]]:
        """Return the ETag and md5 of every part, in order. After a failure no further part is started."""
        total_bytes, part_bytes = self._payload.size_bytes, part_size(self._payload.size_bytes)
        offsets = range(0, total_bytes, part_bytes)
        with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="comfypin-part") as thread_pool:
            futures = [
                thread_pool.submit(
                    self._send_part,
                    upload_id,
                    number,
                    UploadBody(
                        self._payload,
                        self._file.fileno(),
                        offset=offset,
                        size_bytes=min(part_bytes, total_bytes - offset),
                    ),
                    with_md5=with_md5,
                )
                for number, offset in enumerate(offsets, 1)
            ]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                # The first that failed by itself: others are cancelled because of it.
                failures = [exception for future in done if (exception := future.exception()) is not None]
                for failure in failures:
                    raise failure
            except BaseException:
                self._given_up.set()
                for future in futures:
                    future.cancel()
                raise
        return [future.result() for future in futures]

    def _send_part(self, upload_id: str, number: int, part_body: UploadBody, *, with_md5: bool) -> tuple[str, str]:
        def send_once() -> tuple[str, str]:
            # A retry of this part must not go on when another part has failed for good.
            self._require_not_stopped()
            md5_hash = part_body.summing = hashlib.md5(usedforsecurity=False) if with_md5 else None
            response = self._client.call_operation(
                "upload_part", self._key, action="write", UploadId=upload_id, PartNumber=number, Body=part_body
            )
            etag = str(response.get("ETag") or "")
            if response[STATUS] != 200 or not etag or response[BODY].strip():
                raise StoreBusy(
                    store=self._uri,
                    status=response[STATUS],
                    code=error_code_in(response[BODY]) or "not a response to a part",
                )
            return etag, md5_hash.hexdigest() if md5_hash is not None else ""

        return self._retry.call(send_once, target=f"{self._uri} part {number}")

    def _join_parts(self, upload_id: str, etags: list[str]) -> str | None:
        part_list = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]

        def join_once() -> str | None:
            try:
                response = self._client.call_operation(
                    "complete_multipart_upload",
                    self._key,
                    action="write",
                    UploadId=upload_id,
                    MultipartUpload={"Parts": part_list},
                )
            except StoreBusy as exception:
                # A request whose response was lost may have joined it, or somebody removed it: the object decides.
                if exception.facts["code"] == "NoSuchUpload":
                    return None
                raise
            return str(response.get("ETag") or "").strip('"') or None

        return self._retry.call(join_once, target=self._uri)
