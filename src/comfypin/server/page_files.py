"""Serves the files of the page from memory, with the headers that keep foreign code out of it."""

import gzip
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
_PAGE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    # Asked each time, and answered 304: after an upgrade no browser mixes old modules with new ones.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFile:
    """One file of the page."""

    media_type: str
    body: bytes
    zipped: bytes
    etag: str


class _Readable(Protocol):
    @property
    def name(self) -> str: ...

    def is_dir(self) -> bool: ...

    def iterdir(self) -> "Iterable[_Readable]": ...

    def read_bytes(self) -> bytes: ...


def load_page_files() -> Mapping[str, PageFile]:
    """Read all files of the page, by their path below server/page."""
    return dict(_walk(files("comfypin.server").joinpath("page"), ""))


def _walk(folder: _Readable, prefix: str) -> Iterable[tuple[str, PageFile]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif (media_type := _MEDIA_TYPES.get(PurePosixPath(entry.name).suffix)) is not None:
            page_bytes = entry.read_bytes()
            etag = f'"{hashlib.sha256(page_bytes).hexdigest()[:20]}"'
            zipped = gzip.compress(page_bytes, mtime=0)
            yield f"{prefix}{entry.name}", PageFile(media_type=media_type, body=page_bytes, zipped=zipped, etag=etag)


def page_policy(picture_origin: str | None = None) -> str:
    """Return the content security policy: the page's own files, and pictures of the bucket that holds outputs."""
    origin = "" if picture_origin is None else f" {picture_origin}"
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src 'self' blob: data:{origin}; media-src 'self' blob:{origin}; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )


def page_response(request: Request, page_file: PageFile, *, picture_origin: str | None = None) -> Response:
    """Return a file of the page, 304 if the browser has it already."""
    headers = {**_PAGE_HEADERS, "ETag": page_file.etag, "Vary": "Accept-Encoding"}
    if page_file.media_type.startswith("text/html"):
        headers["Content-Security-Policy"] = page_policy(picture_origin)
    if request.headers.get("if-none-match") == page_file.etag:
        return Response(status_code=304, headers=headers)
    page_bytes = page_file.body
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        page_bytes = page_file.zipped
    return Response(page_bytes, headers=headers, media_type=page_file.media_type)
