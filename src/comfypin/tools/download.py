"""Downloads one file by HTTP(S), or copies it from this machine: verified while it is written, complete or absent."""

import hashlib
import os
import urllib.request
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from comfypin.atomic_files import atomic_file
from comfypin.digest import CHUNK_BYTES, Digest
from comfypin.plurals import format_limit
from comfypin.retry import RetryPolicy
from comfypin.tools.errors import DownloadFailed, DownloadWrong

if TYPE_CHECKING:
    from comfypin.http.proxies import Proxies

T = TypeVar("T")

# For a whole small file, such as an interpreter's archive over a slow line.
TIMEOUT_S = 120.0
# Long enough for a server's rate limit of a minute, too short to look hung.
DOWNLOAD_RETRIES = RetryPolicy(retries=3, longest_asked_s=120.0)
# Bounds memory if a server sends something other than the small file that is expected.
MAX_TEXT_BYTES = 64_000_000


def download_file(
    url: str, target_path: Path, allowed_digests: Collection[Digest] = (), *, proxies: "Proxies | None" = None
) -> Digest:
    """Download a file to `target_path`, and return its digest, which is one of `allowed_digests` if there are any.

    Raises `DownloadFailed`, or `DownloadWrong`; then nothing is written.
    """

    def write_pieces(content_pieces: Iterable[bytes]) -> Digest:
        hasher = hashlib.sha256()
        # Not durable: after a power cut the file is downloaded again, since it is checked by digest.
        with atomic_file(target_path, durable=False) as target_file:
            for content_piece in content_pieces:
                hasher.update(content_piece)
                target_file.write(content_piece)
            digest = Digest(hasher.hexdigest())
            if allowed_digests and digest not in allowed_digests:
                expected = " or ".join(allowed_digest.hex for allowed_digest in allowed_digests)
                raise DownloadWrong(url=_hide_secrets(url), expected=expected, actual=digest.hex)
        return digest

    return _consume_url(url, write_pieces, proxies)


def read_url(url: str, *, proxies: "Proxies | None" = None) -> bytes:
    """Return a small file as a whole. Raises `DownloadFailed`."""

    def collect_pieces(content_pieces: Iterable[bytes]) -> bytes:
        content = bytearray()
        for content_piece in content_pieces:
            content += content_piece
            if len(content) > MAX_TEXT_BYTES:
                raise DownloadFailed(
                    url=_hide_secrets(url), reason=f"the response is larger than {format_limit(MAX_TEXT_BYTES)}"
                )
        return bytes(content)

    return _consume_url(url, collect_pieces, proxies)


def _consume_url(url: str, consume: Callable[[Iterable[bytes]], T], proxies: "Proxies | None") -> T:
    if url.startswith("file:"):
        return consume(_read_local_pieces(url))
    # Imported late: the HTTP client loads urllib3 and TLS, which a `file:` URL does not need.
    from comfypin.http.client import HttpClient, HttpTransport
    from comfypin.http.errors import HttpError
    from comfypin.http.proxies import Proxies
    from comfypin.http.read_with_retries import iter_unless_stalled, read_with_retries

    http_client = HttpClient(transport=HttpTransport(proxies=proxies or Proxies(), timeout_s=TIMEOUT_S))
    try:
        return read_with_retries(
            http_client, url, lambda response: consume(iter_unless_stalled(response)), policy=DOWNLOAD_RETRIES
        )
    except HttpError as error:
        raise DownloadFailed(url=_hide_secrets(url), reason=error.reason) from error
    finally:
        http_client.close()


def _read_local_pieces(url: str) -> Iterator[bytes]:
    try:
        with Path(urllib.request.url2pathname(urlsplit(url).path)).open("rb") as local_file:
            while content_piece := local_file.read(CHUNK_BYTES):
                yield content_piece
    except OSError as error:
        raise DownloadFailed(url=url, reason=error.strerror or os.strerror(error.errno or 0)) from error


def _hide_secrets(url: str) -> str:
    """Return the address without what may be secret in it: user, password, query."""
    url_parts = urlsplit(url)
    return url_parts._replace(netloc=url_parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
