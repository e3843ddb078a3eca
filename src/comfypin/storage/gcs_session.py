"""A resumable upload to GCS: all bytes in two requests, and after a failure only those that the server lacks.

https://cloud.google.com/storage/docs/performing-resumable-uploads. The file is summed while it is sent, so the last
bytes travel by themselves: their request carries the sum of all.
"""

import re
from collections.abc import Callable
from typing import Any, BinaryIO

from comfypin.storage.body import FilePart, Text
from comfypin.storage.gcs_errors import RefusedRequest
from comfypin.storage.gcs_http import GcsHttp, facts_in
from comfypin.storage.interface import Payload
from comfypin.storage.wire import Answer

_STEP_BYTES = 256 * 1024  # what a session keeps is a multiple of this
_LOST = {400, 404, 410}
_INCOMPLETE = 308


class SessionUpload:
    """One file on its way. `received` is how much of it the server is known to have."""

    def __init__(
        self,
        file: BinaryIO,
        payload: Payload,
        *,
        http: GcsHttp,
        open_session: Callable[[], str],
        crc32c: Callable[[], str],
    ) -> None:
        self._file = file
        self._payload = payload
        self._size_bytes = payload.size_bytes
        self._http = http
        self._open_session = open_session
        self._url: str | None = None  # whoever knows it may write the object: never shown
        self._crc32c = crc32c
        self.received = 0

    def go_on(self) -> dict[str, Any]:
        """Bring the upload to its end; the object's facts as the server has them.

        Raises `RefusedRequest`, `OSError`, `StorageError`; may then be called again.
        """
        facts = None
        if self._url is None:
            self._url = self._open_session()
        else:
            facts = self._ask(self._url)
        return facts or self._send(self._url)

    def begin_anew(self) -> None:
        """Forget the session: what it made is not what was sent."""
        self._url, self.received = None, 0

    def _ask(self, url: str) -> dict[str, Any] | None:
        """Learn how much arrived; the object's facts where all did."""
        answer = self._http.ask("PUT", url, headers={"Content-Range": f"bytes */{self._size_bytes}"})
        if answer.status in _LOST:
            self.begin_anew()
            self._url = self._open_session()
            return None
        if answer.status != _INCOMPLETE:
            return facts_in(answer)
        self._learn(answer)
        return None

    def _send(self, url: str) -> dict[str, Any]:
        tail = (self._size_bytes - 1) // _STEP_BYTES * _STEP_BYTES
        while self.received < tail:
            before = self.received
            answer = self._put(url, before, self._part(before, tail - before))
            if answer.status != _INCOMPLETE:
                return self._ended(answer)
            self._learn(answer)
            if self.received <= before:
                raise RefusedRequest(status=503, reason="the session does not grow")
        return self._ended(self._put_last(url, self.received))

    def _part(self, start: int, size_bytes: int) -> FilePart:
        part = FilePart(self._file.fileno(), offset=start, size_bytes=size_bytes, path=str(self._payload.path))
        part.pace = self._payload.pace
        return part

    def _put_last(self, url: str, start: int) -> Answer:
        self._file.seek(start)
        data = self._file.read(self._size_bytes - start)
        if self._payload.pace is not None:
            self._payload.pace(len(data))
        return self._put(url, start, Text(data=data), {"X-Goog-Hash": f"crc32c={self._crc32c()}"})

    def _put(self, url: str, start: int, body: FilePart | Text, headers: dict[str, str] | None = None) -> Answer:
        sent = f"bytes {start}-{start + body.size_bytes - 1}/{self._size_bytes}"
        return self._http.ask("PUT", url, headers={"Content-Range": sent, **(headers or {})}, body=body)

    def _ended(self, answer: Answer) -> dict[str, Any]:
        if answer.status in _LOST:
            self.begin_anew()
        return facts_in(answer)

    def _learn(self, answer: Answer) -> None:
        last = re.fullmatch(r"bytes=0-(\d+)", answer.headers.get("range", ""))
        received = int(last[1]) + 1 if last else 0
        self.received = min(received - received % _STEP_BYTES, (self._size_bytes - 1) // _STEP_BYTES * _STEP_BYTES)
