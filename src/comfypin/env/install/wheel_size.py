"""How much disk packages take once unpacked: read from the end of each wheel, where it lists what it holds."""

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
BLOCK_BYTES = 4096
_TAIL_BYTES = 1 << 16
_MOST_BYTES = 64 << 20
_TIMEOUT_S = 10.0


def unpacked_sizes(packages: Sequence[PackagePin], *, offline: bool, proxies: "Proxies | None" = None) -> list[int]:
    """Return what the packages' files take on a disk, in bytes: read from their wheels, here or on their servers; 0 if
    nobody says. A server that gives only a whole wheel's size makes it an estimate.
    """
    from comfypin.http.client import HttpClient, HttpTransport
    from comfypin.http.errors import HttpError
    from comfypin.http.proxies import Proxies, ProxyInvalid

    def size(pin: PackagePin) -> int:
        parts = urlsplit(pin.url or "")
        try:
            if parts.scheme == "file":
                return _listed(Path(unquote(parts.path)).open("rb"))
            if offline or parts.scheme not in {"http", "https"}:
                return 0
            return _at_server(client, pin.url or "")
        except (OSError, ValueError, zipfile.BadZipFile, HttpError, ProxyInvalid):
            return 0

    client = HttpClient(transport=HttpTransport(proxies=proxies or Proxies(), timeout_s=_TIMEOUT_S))
    with closing(client), ThreadPoolExecutor(max_workers=16) as threads:
        return list(threads.map(size, packages))


def _at_server(client: "HttpClient", url: str) -> int:
    remote = RemoteFile(client, url)
    if not remote.in_parts:
        return int(remote.size_bytes * UNPACKED_PER_WHEEL)
    return _listed(io.BufferedReader(remote, buffer_size=_TAIL_BYTES))


def _listed(file: io.BufferedReader) -> int:
    """The size of a wheel's files, in whole blocks of a disk."""
    with file, zipfile.ZipFile(file) as wheel:
        return sum(-(-member.file_size // BLOCK_BYTES) * BLOCK_BYTES for member in wheel.infolist())


class RemoteFile(io.RawIOBase):
    """A file on an HTTP server, of which parts are read; its end is fetched at once."""

    def __init__(self, client: "HttpClient", url: str) -> None:
        self._client, self._url, self._at = client, url, 0
        # Closed undrained: it may be a whole wheel.
        with client.get(url, {"Range": f"bytes=-{_TAIL_BYTES}"}) as answer:
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            self.in_parts = answer.status == 206 and total.isdigit()
            whole = (answer.size_bytes or 0) if answer.status == 200 else 0
            self.size_bytes = int(total) if self.in_parts else whole
            self._tail = answer.read_bytes(_TAIL_BYTES) if self.in_parts else b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size_bytes}[whence]
        if start + offset < 0:
            raise ValueError("before the beginning of the file")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        wanted = min(len(buffer), self.size_bytes - self._at)
        if wanted <= 0:
            return 0
        data = self._part(self._at, wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _part(self, start: int, count: int) -> bytes:
        inside = start - (self.size_bytes - len(self._tail))
        if inside >= 0:
            return bytes(self._tail[inside : inside + count])
        if count > _MOST_BYTES:
            raise ValueError("a list of files larger than any wheel's")
        with self._client.get(self._url, {"Range": f"bytes={start}-{start + count - 1}"}) as answer:
            if answer.status != 206:
                raise OSError(f"HTTP {answer.status} for a part of a file")
            return answer.read_bytes(count)
