"""Reads how much disk packages take once unpacked from the end of each wheel, which lists its files."""

import io
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from comfypin.lock.model import PackagePin

if TYPE_CHECKING:
    from comfypin.http.client import HttpClient
    from comfypin.http.proxies import Proxies

# Where a server gives no parts of files, by experience with 42 packages.
UNPACKED_PER_WHEEL = 3.5
# Every file takes whole blocks, which adds up for thousands of small ones.
BLOCK_BYTES = 4096
# A zip's list of files is at its end; 64 KiB are usually enough for it.
_TAIL_BYTES = 1 << 16
# The directory of the largest wheel is a few megabytes; more than this is no wheel.
_MOST_BYTES = 64 << 20
# It only estimates: an index that answers late must not delay the download itself.
_TIMEOUT_S = 10.0


def unpacked_sizes(packages: Sequence[PackagePin], *, offline: bool, proxies: "Proxies | None" = None) -> list[int]:
    """Return the bytes that each package takes on a disk, read from its wheel, here or on its server; 0 if unknown.

    If a server only gives a whole wheel's size, the result is an estimate.
    """
    from comfypin.http.client import HttpClient, HttpTransport
    from comfypin.http.errors import HttpError
    from comfypin.http.proxies import Proxies, ProxyInvalid

    def unpacked_size(package_pin: PackagePin) -> int:
        url_parts = urlsplit(package_pin.url or "")
        try:
            if url_parts.scheme == "file":
                return _size_from_listing(Path(unquote(url_parts.path)).open("rb"))
            if offline or url_parts.scheme not in {"http", "https"}:
                return 0
            return _size_at_server(http_client, package_pin.url or "")
        except (OSError, ValueError, zipfile.BadZipFile, HttpError, ProxyInvalid):
            return 0

    http_client = HttpClient(transport=HttpTransport(proxies=proxies or Proxies(), timeout_s=_TIMEOUT_S))
    # Dozens of small requests: the time is all latency.
    with closing(http_client), ThreadPoolExecutor(max_workers=16) as threads:
        return list(threads.map(unpacked_size, packages))


def _size_at_server(http_client: "HttpClient", url: str) -> int:
    remote_wheel = RemoteWheel(http_client, url)
    if not remote_wheel.in_parts:
        return int(remote_wheel.size_bytes * UNPACKED_PER_WHEEL)
    return _size_from_listing(io.BufferedReader(remote_wheel, buffer_size=_TAIL_BYTES))


def _size_from_listing(wheel_file: io.BufferedReader) -> int:
    """Return the size of a wheel's files, in whole blocks of a disk."""
    with wheel_file, zipfile.ZipFile(wheel_file) as wheel_zip:
        return sum(-(-zip_member.file_size // BLOCK_BYTES) * BLOCK_BYTES for zip_member in wheel_zip.infolist())


class RemoteWheel(io.RawIOBase):
    """Reads parts of a file on an HTTP server; fetches its end at once."""

    def __init__(self, http_client: "HttpClient", url: str) -> None:
        self._http_client, self._url, self._at = http_client, url, 0
        # Closed undrained: it may be a whole wheel.
        with http_client.get(url, {"Range": f"bytes=-{_TAIL_BYTES}"}) as response:
            total_text = response.headers.get("Content-Range", "").rpartition("/")[2]
            self.in_parts = response.status == 206 and total_text.isdigit()
            whole_bytes = (response.size_bytes or 0) if response.status == 200 else 0
            self.size_bytes = int(total_text) if self.in_parts else whole_bytes
            self._tail = response.read_bytes(_TAIL_BYTES) if self.in_parts else b""

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
