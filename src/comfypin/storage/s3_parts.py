"""One file as an upload in equal parts, several of them at once; aborted when it is given up.

R2 takes only parts of one size: https://developers.cloudflare.com/r2/objects/multipart-objects/
"""

import hashlib
import html
import re
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from comfypin.digest import CHUNK_BYTES
from comfypin.errors import StorageError
from comfypin.errors.storage import StoreBusy, StoreRefused
from comfypin.storage.body import FilePart, Text
from comfypin.storage.crew import Crew
from comfypin.storage.interface import Payload
from comfypin.storage.retry import Retry
from comfypin.storage.s3_http import S3Http
from comfypin.storage.sigv4 import UNSIGNED
from comfypin.storage.upload_notes import Left, UploadNotes

MIB = 1 << 20
PART_BYTES = 16 * MIB  # one PUT up to here; above, equal parts of this size
PARTS_AT_ONCE = 4
MOST_PARTS = 10_000


class PartsUpload:
    """An upload of one payload, which may be sent again from its beginning. Each part is retried by itself."""

    def __init__(self, http: S3Http, retry: Retry, key: str, payload: Payload, file: BinaryIO) -> None:
        self._http = http
        self._retry = retry
        self._key = key
        self._uri = http.uri(key)
        self._payload = payload
        self._file = file
        self.headers: Mapping[str, str] = {}
        self.notes = UploadNotes(None)
        self.expected_etag = ""

    def send(self, *, with_md5: bool) -> str | None:
        """Send all parts and have them joined; the object's ETag. `expected_etag` is then what md5 sums make of it."""
        self.notes.clear(self._http.name, self._abort_left)
        with self.notes.of(self._http.name, self._key) as note:
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

    def _give_up(self, upload_id: str) -> bool:
        """Abort an upload; whether that could be done."""
        try:
            self._retry.call(lambda: self._abort(upload_id), what=self._uri)
        except StorageError:
            return False
        return True

    def _abort_left(self, left: Left) -> bool:
        """Abort, in one try, what a killed process left; whether nothing more can be done about it."""
        try:
            answer = self._http.exchange("DELETE", left.key, query={"uploadId": left.upload_id})
        except StorageError:
            return False
        return answer.status < HTTPStatus.TOO_MANY_REQUESTS

    def _begin(self) -> str:
        def ask() -> str:
            answer = self._http.ask("POST", self._key, action="write", query={"uploads": ""}, headers=self.headers)
            upload_id = _tag("UploadId", answer.text)
            if not upload_id:
                raise StoreRefused(
                    store=self._uri, action="begin an upload", status=answer.status, code="", reason="no upload id"
                )
            return upload_id

        return self._retry.call(ask, what=self._uri)

    def _send_all(self, upload_id: str, *, with_md5: bool) -> list[tuple[str, str]]:
        """The ETag and md5 of every part, in order. After a failure no part is begun any more."""
        size, step = self._payload.size_bytes, part_size(self._payload.size_bytes)
        sizes = [min(step, size - offset) for offset in range(0, size, step)]
        sent: dict[int, tuple[str, str]] = {}
        waiting = iter(enumerate(sizes))
        taking = threading.Lock()

        def send_some() -> None:
            """One thread's share: whatever is next."""
            while True:
                with taking:
                    index, length = next(waiting, (-1, 0))
                if index < 0:
                    return
                part = self._part(index * step, length)
                sent[index] = self._send(upload_id, index + 1, part, with_md5=with_md5)

        with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="comfypin-part") as pool:
            self._crew = Crew(pool)
            self._crew.share(send_some, most=min(PARTS_AT_ONCE, len(sizes)))
        return [sent[index] for index in range(len(sizes))]

    def _part(self, offset: int, size_bytes: int) -> FilePart:
        part = FilePart(self._file.fileno(), offset=offset, size_bytes=size_bytes, path=str(self._payload.path))
        part.pace = self._pace
        return part

    def _pace(self, count: int) -> None:
        self._crew.go_on()
        if self._payload.pace is not None:
            self._payload.pace(count)

    def _send(self, upload_id: str, number: int, part: FilePart, *, with_md5: bool) -> tuple[str, str]:
        self._crew.go_on()
        # TLS notices every change on the way, and a second digest would cost as much as the sending.
        part.sha256 = UNSIGNED if self._http.is_encrypted else part.digest()
        query = {"partNumber": str(number), "uploadId": upload_id}

        def ask() -> tuple[str, str]:
            self._crew.go_on()
            md5 = hashlib.md5(usedforsecurity=False)
            part.summing = md5 if with_md5 else None
            answer = self._http.ask("PUT", self._key, action="write", query=query, body=part)
            return answer.headers.get("etag") or "", md5.hexdigest()

        return self._retry.call(ask, what=f"{self._uri} part {number}")

    def _join(self, upload_id: str, etags: list[str]) -> str | None:
        listed = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{html.escape(etag)}</ETag></Part>"
            for number, etag in enumerate(etags, 1)
        )
        body = Text.of(f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode())

        def ask() -> str | None:
            answer = self._http.exchange("POST", self._key, query={"uploadId": upload_id}, body=body)
            if "<Code>NoSuchUpload<" in answer.text:
                return None
            if answer.status >= 300 or "<Error>" in answer.text:
                self._http.refuse(answer, self._key, action="write")
            return _tag("ETag", answer.text).strip('"')

        etag = self._retry.call(ask, what=self._uri)
        # An upload that is gone was joined by a request whose answer was lost, or removed by somebody.
        return etag if etag is not None else self._joined_already()

    def _joined_already(self) -> str | None:
        answer = self._retry.call(lambda: self._http.exchange("HEAD", self._key), what=self._uri)
        digest = answer.headers.get("x-amz-meta-sha256")
        size = answer.headers.get("content-length")
        if answer.status == 200 and (digest, size) == (self._payload.sha256.hex, str(self._payload.size_bytes)):
            return (answer.headers.get("etag") or "").strip('"')
        raise StoreBusy(store=self._uri, status=answer.status, code="NoSuchUpload")

    def _abort(self, upload_id: str) -> None:
        answer = self._http.exchange("DELETE", self._key, query={"uploadId": upload_id})
        if answer.status != 404:
            self._http.require_success(answer, self._key, action="delete")


def part_size(size_bytes: int) -> int:
    """The size of all parts but the last one: 16 MiB, or more where 10,000 of them would not do."""
    wanted = max(PART_BYTES, -(-size_bytes // MOST_PARTS))
    return -(-wanted // MIB) * MIB


def joined_etag(md5s: list[str]) -> str:
    """The ETag that S3 gives an object of such parts: the md5 of the parts' md5 sums, and their number."""
    sums = b"".join(bytes.fromhex(md5) for md5 in md5s)
    return f"{hashlib.md5(sums, usedforsecurity=False).hexdigest()}-{len(md5s)}"


def etag_of_parts(path: Path, part_bytes: int) -> str:
    """The ETag that S3 gives a file in such parts."""
    md5s = []
    with path.open("rb", buffering=0) as file:
        part, left = hashlib.md5(usedforsecurity=False), part_bytes
        while chunk := file.read(min(CHUNK_BYTES, left)):
            part.update(chunk)
            left -= len(chunk)
            if left == 0:
                md5s.append(part.hexdigest())
                part, left = hashlib.md5(usedforsecurity=False), part_bytes
        if left < part_bytes:
            md5s.append(part.hexdigest())
    return joined_etag(md5s)


def _tag(name: str, text: str) -> str:
    found = re.search(rf"<{name}>([^<]*)</{name}>", text)
    return html.unescape(found[1].strip()) if found else ""
