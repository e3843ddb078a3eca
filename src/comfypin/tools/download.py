"""One file by HTTP(S) or from this machine: verified while it is written, whole or absent."""

import hashlib
import os
import ssl
import urllib.request
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from comfypin.digest import CHUNK_BYTES, Digest
from comfypin.errors.tools import DownloadFailed, DownloadWrong
from comfypin.files import atomic_file

TIMEOUT_S = 120.0
RETRIES = 3
MAX_TEXT_BYTES = 64 << 20


def download(url: str, path: Path, allowed: Collection[Digest] = ()) -> Digest:
    """Bring a file to `path`, and say its digest, which is one of `allowed` where there are any.

    Raises `DownloadFailed`, or `DownloadWrong`; then nothing is written.
    """
    hasher = hashlib.sha256()
    with atomic_file(path, durable=False) as file:
        for chunk in _chunks(url):
            hasher.update(chunk)
            file.write(chunk)
        digest = Digest(hasher.hexdigest())
        if allowed and digest not in allowed:
            expected = " or ".join(item.hex for item in allowed)
            raise DownloadWrong(url=_shown(url), expected=expected, actual=digest.hex)
    return digest


def read_url(url: str) -> bytes:
    """A small answer as a whole. Raises `DownloadFailed`."""
    data = bytearray()
    for chunk in _chunks(url):
        data += chunk
        if len(data) > MAX_TEXT_BYTES:
            raise DownloadFailed(url=_shown(url), reason=f"the answer is larger than {MAX_TEXT_BYTES >> 20} MiB")
    return bytes(data)


def _chunks(url: str) -> Iterator[bytes]:
    import urllib3

    if url.startswith("file:"):
        yield from _local_chunks(url)
        return
    retries = urllib3.Retry(total=RETRIES, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
    try:
        with urllib3.PoolManager(
            cert_reqs="CERT_REQUIRED", ca_certs=ssl.get_default_verify_paths().cafile, retries=retries
        ) as pool:
            answer = pool.request("GET", url, timeout=TIMEOUT_S, preload_content=False)
            if answer.status != 200:
                raise DownloadFailed(url=_shown(url), reason=f"HTTP {answer.status}")
            yield from answer.stream(CHUNK_BYTES, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise DownloadFailed(url=_shown(url), reason=str(getattr(error, "reason", None) or error)) from error


def _local_chunks(url: str) -> Iterator[bytes]:
    try:
        with Path(urllib.request.url2pathname(urlsplit(url).path)).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise DownloadFailed(url=url, reason=error.strerror or os.strerror(error.errno or 0)) from error


def _shown(url: str) -> str:
    """The address without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
