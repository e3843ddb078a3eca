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
    from comfypin.http.seekable_file import TAIL_BYTES, SeekableHttpFile

    remote_wheel = SeekableHttpFile(http_client, url)
    if not remote_wheel.in_parts:
        return int(remote_wheel.size_bytes * UNPACKED_PER_WHEEL)
    return _size_from_listing(io.BufferedReader(remote_wheel, buffer_size=TAIL_BYTES))


def _size_from_listing(wheel_file: io.BufferedReader) -> int:
    """Return the size of a wheel's files, in whole blocks of a disk."""
    with wheel_file, zipfile.ZipFile(wheel_file) as wheel_zip:
        return sum(-(-zip_member.file_size // BLOCK_BYTES) * BLOCK_BYTES for zip_member in wheel_zip.infolist())
