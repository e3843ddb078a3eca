"""A resumable upload to GCS: all bytes in one request, and after a failure only those that the server lacks.

https://cloud.google.com/storage/docs/performing-resumable-uploads. Google's client sends a session in chunks, and
keeps each in memory; a session takes one request of any length, streamed.
"""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from comfypin.objects.gcs_errors import RefusedRequest

if TYPE_CHECKING:
    from requests import Response, Session
    from requests.adapters import HTTPAdapter

Pace: TypeAlias = Callable[[int], None]

TIMEOUT_S = (10, 300)
_BLOCK_BYTES = 1 << 20
_STEP_BYTES = 256 * 1024  # what a session keeps is a multiple of this
_LOST = {400, 404, 410}


class SessionUpload:
    """One file on its way. `received` is how much of it the server is known to have."""

    def __init__(
        self,
        file: BinaryIO,
        size_bytes: int,
        *,
        http: "Session",
        open_session: Callable[[], str],
        pace: Pace | None = None,
    ) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._http = http
        self._open_session = open_session
        self._pace = pace
        self._url: str | None = None  # whoever knows it may write the object: never shown
        self.received = 0

    def go_on(self) -> dict[str, str]:
        """Bring the upload to its end; the object's size, crc32c and etag as the server has them.

        Raises `RefusedRequest`, or what the HTTP library raises; may then be called again.
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

    def _ask(self, url: str) -> dict[str, str] | None:
        """Learn how much arrived; the object's facts where all did."""
        headers = {"Content-Range": f"bytes */{self._size_bytes}", "Content-Length": "0"}
        response = self._http.put(url, headers=headers, timeout=TIMEOUT_S)
        if response.status_code in {200, 201}:
            return _facts(response)
        if response.status_code in _LOST:
            self.begin_anew()
            self._url = self._open_session()
            return None
        if response.status_code != 308:
            raise RefusedRequest.from_response(response)
        last = re.fullmatch(r"bytes=0-(\d+)", response.headers.get("Range", ""))
        received = int(last[1]) + 1 if last else 0
        self.received = received - received % _STEP_BYTES
        return None

    def _send(self, url: str) -> dict[str, str]:
        start, size = self.received, self._size_bytes
        headers = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        body: Any = _Rest(self._file, start, size, pace=self._pace)  # wider than the annotations of requests
        response = self._http.put(url, data=body, headers=headers, timeout=TIMEOUT_S)
        if response.status_code not in {200, 201}:
            if response.status_code in _LOST:
                self.begin_anew()
            raise RefusedRequest.from_response(response)
        return _facts(response)


class _Rest:
    """A file from an offset to its end, as a request's body of known length, read into one buffer."""

    def __init__(self, file: BinaryIO, start: int, end: int, *, pace: Pace | None) -> None:
        self._file = file
        self._left = end - start
        self._length = end - start
        self._pace = pace
        self._buffer = memoryview(bytearray(_BLOCK_BYTES))
        file.seek(start)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[memoryview]:
        return iter(lambda: self.read(_BLOCK_BYTES), memoryview(b""))

    def read(self, size: int) -> memoryview:
        """The next bytes; valid until the next call."""
        room = self._buffer[: min(size, self._left, _BLOCK_BYTES)]
        count = self._file.readinto(room)  # type: ignore[attr-defined]  # opened raw
        self._left -= count
        if self._pace is not None and count:
            self._pace(count)
        return room[:count]


def upload_adapter(*, connections: int) -> "HTTPAdapter":
    """What carries requests: a pool for all threads, and blocks large enough for uploads."""
    from requests.adapters import HTTPAdapter

    class UploadAdapter(HTTPAdapter):
        def init_poolmanager(self, *args: object, **options: object) -> None:
            super().init_poolmanager(*args, **options, blocksize=_BLOCK_BYTES)  # type: ignore[arg-type]

    return UploadAdapter(pool_maxsize=connections)


def _facts(response: "Response") -> dict[str, str]:
    try:
        described = response.json()
    except ValueError as exc:
        raise RefusedRequest(status=502, reason="the answer is not JSON") from exc
    return {name: str(described.get(name)) for name in ("size", "crc32c", "etag")}
