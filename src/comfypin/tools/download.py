"""One file by HTTP(S) or from this machine: verified while it is written, whole or absent."""

import hashlib
import os
import urllib.request
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from comfypin.atomic_files import atomic_file
from comfypin.digest import CHUNK_BYTES, Digest
from comfypin.retry import RetryPolicy
from comfypin.tools.errors import DownloadFailed, DownloadWrong

if TYPE_CHECKING:
    from comfypin.http.proxies import Proxies

T = TypeVar("T")

TIMEOUT_S = 120.0
DOWNLOAD_RETRIES = RetryPolicy(retries=3, longest_asked_s=120.0)
MAX_TEXT_BYTES = 64 << 20


def download(url: str, path: Path, allowed: Collection[Digest] = (), *, proxies: "Proxies | None" = None) -> Digest:
    """Bring a file to `path`, and return its digest, which is one of `allowed` if there are any.

    Raises `DownloadFailed`, or `DownloadWrong`; then nothing is written.
    """

    def write(pieces: Iterable[bytes]) -> Digest:
        hasher = hashlib.sha256()
        with atomic_file(path, durable=False) as file:
            for piece in pieces:
                hasher.update(piece)
                file.write(piece)
            digest = Digest(hasher.hexdigest())
            if allowed and digest not in allowed:
                expected = " or ".join(item.hex for item in allowed)
                raise DownloadWrong(url=_shown(url), expected=expected, actual=digest.hex)
        return digest

    return _consumed(url, write, proxies)


def read_url(url: str, *, proxies: "Proxies | None" = None) -> bytes:
    """Return a small file as a whole. Raises `DownloadFailed`."""

    def collect(pieces: Iterable[bytes]) -> bytes:
        data = bytearray()
        for piece in pieces:
            data += piece
            if len(data) > MAX_TEXT_BYTES:
                raise DownloadFailed(url=_shown(url), reason=f"the answer is larger than {MAX_TEXT_BYTES >> 20} MiB")
        return bytes(data)

    return _consumed(url, collect, proxies)


def _consumed(url: str, consume: Callable[[Iterable[bytes]], T], proxies: "Proxies | None") -> T:
    if url.startswith("file:"):
        return consume(_local_pieces(url))
    from comfypin.http.client import HttpClient, HttpTransport
    from comfypin.http.errors import HttpError
    from comfypin.http.patient import iter_unless_stalled, read_with_retries
    from comfypin.http.proxies import Proxies

    client = HttpClient(transport=HttpTransport(proxies=proxies or Proxies(), timeout_s=TIMEOUT_S))
    try:
        return read_with_retries(
            client, url, lambda response: consume(iter_unless_stalled(response)), policy=DOWNLOAD_RETRIES
        )
    except HttpError as error:
        raise DownloadFailed(url=_shown(url), reason=error.reason) from error
    finally:
        client.close()


def _local_pieces(url: str) -> Iterator[bytes]:
    try:
        with Path(urllib.request.url2pathname(urlsplit(url).path)).open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                yield piece
    except OSError as error:
        raise DownloadFailed(url=url, reason=error.strerror or os.strerror(error.errno or 0)) from error


def _shown(url: str) -> str:
    """The address without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
