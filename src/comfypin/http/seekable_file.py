"""Reads parts of a file that lies on an HTTP server, such as the list of files at the end of a wheel."""

import io

from comfypin.http.client import HttpClient

# A zip's list of files is at its end; 64 KiB are usually enough for it.
TAIL_BYTES = 1 << 16
# It is read into memory: a directory of a wheel is a few megabytes.
_MOST_BYTES = 64 << 20


class SeekableHttpFile(io.RawIOBase):
    """Reads parts of a file on an HTTP server; fetches its end at once."""

    def __init__(self, http_client: HttpClient, url: str) -> None:
        self._http_client, self._url, self._at = http_client, url, 0
        # Closed undrained: it may be a whole wheel.
        with http_client.get(url, {"Range": f"bytes=-{TAIL_BYTES}"}) as response:
            total_text = response.headers.get("Content-Range", "").rpartition("/")[2]
            self.in_parts = response.status == 206 and total_text.isdigit()
            whole_bytes = (response.size_bytes or 0) if response.status == 200 else 0
            self.size_bytes = int(total_text) if self.in_parts else whole_bytes
            self._tail = response.read_bytes(TAIL_BYTES) if self.in_parts else b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start_offset = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size_bytes}[whence]
        if start_offset + offset < 0:
            raise ValueError("before the beginning of the file")
        self._at = start_offset + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        wanted_bytes = min(len(buffer), self.size_bytes - self._at)
        if wanted_bytes <= 0:
            return 0
        content = self._read_part(self._at, wanted_bytes)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def _read_part(self, start_offset: int, byte_count: int) -> bytes:
        tail_offset = start_offset - (self.size_bytes - len(self._tail))
        if tail_offset >= 0:
            return bytes(self._tail[tail_offset : tail_offset + byte_count])
        if byte_count > _MOST_BYTES:
            raise ValueError("a list of files larger than any wheel's")
        byte_range = f"bytes={start_offset}-{start_offset + byte_count - 1}"
        with self._http_client.get(self._url, {"Range": byte_range}) as response:
            if response.status != 206:
                raise OSError(f"HTTP {response.status} for a part of a file")
            return response.read_bytes(byte_count)
