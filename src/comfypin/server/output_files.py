"""Finds the bytes of an output, wherever its job left them, and the headers under which a browser may have them."""

import asyncio
import base64
import binascii
import logging
import re
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from comfypin.errors import ConfigError, StorageError
from comfypin.server.bucket_responses import respond_from_bucket
from comfypin.server.comfy_api.assets import Assets
from comfypin.server.comfy_api.envelope import PREFIX
from comfypin.server.comfy_api.errors import ApiFailure
from comfypin.server.comfy_api.own_bucket import OwnBucket
from comfypin.server.file_responses import send_file
from comfypin.server.output_index import ListedOutput, OutputIndex, origin_of
from comfypin.server.responses import failure_response
from comfypin.server.url_relay import UrlRelay

log = logging.getLogger(__name__)

# A thumbnail's original is held in memory; larger files are videos, which ffmpeg would need on disk.
_MOST_FETCHED_BYTES = 64 << 20
# Of outputs that browsers open: they are what workflows of others may have made.
UNTRUSTED_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'; img-src 'self'; media-src 'self'",
}
# A browser shows these and runs nothing of them; whatever else there is, it saves. SVG and HTML hold scripts.
_SHOWN = re.compile(r"image/(?!svg)[a-z0-9.+-]+|video/[a-z0-9.+-]+|audio/[a-z0-9.+-]+|text/plain")
BucketOwner = Literal["own", "other"]
_ASSET = re.compile(re.escape(PREFIX) + r"/assets/([0-9a-f-]{36})/content$")
_GONE = "The output is gone."


class OutputFiles:
    """Reads outputs. `folder` is where this machine's are delivered to, `bucket` the server's own if it has one."""

    def __init__(
        self, index: OutputIndex, assets: Assets, folder: Path, *, bucket: OwnBucket | None, relay: UrlRelay
    ) -> None:
        self._index = index
        self._assets = assets
        self._folder = folder.resolve()
        self._bucket = bucket
        self._relay = relay
        self._origin: str | None = None

    async def locate(self, output: ListedOutput) -> Path | bytes | None:
        """Return an output's file or bytes; None if they are not on this machine. Raises `JobsNotStored`."""
        if output.facts.get("kept_as") == "base64":
            base64_text = await self._index.read_base64(output)
            return None if base64_text is None else await asyncio.to_thread(_decode, base64_text)
        if (asset_path := await self._find_asset(output)) is not None:
            return asset_path
        return await asyncio.to_thread(self._find_file, output)

    async def bucket_origin(self) -> str | None:
        """Return where browsers are led to for what is in the server's bucket; None if they are not."""
        if self._origin is None and self._bucket is not None:
            bucket, uri = self._bucket, f"{self._bucket.addresses[0]}{self._bucket.prefix}/any"
            try:
                url = await asyncio.to_thread(bucket.make_url, uri)
            except (StorageError, ConfigError) as exc:
                log.warning("no addresses", extra={"action": "no_bucket_origin", "reason": exc.message})
                return None
            self._origin = None if url is None else origin_of(url)
        return self._origin

    def bucket_of(self, output: ListedOutput) -> BucketOwner | None:
        """Return whose bucket an output is in: the server's own, or another; None if it is on this machine."""
        uri = str(output.facts.get("uri") or "")
        if "://" not in uri:
            return None
        return "own" if self._bucket is not None and self._bucket.holds(uri) else "other"

    async def make_address(self, output: ListedOutput) -> str | None:
        """Return an output's address: of what is in the server's bucket a fresh one. Raises `StorageError`."""
        if self._bucket is not None and self.bucket_of(output) == "own":
            fresh_url = await asyncio.to_thread(self._bucket.make_url, str(output.facts["uri"]))
            if fresh_url is not None:
                return fresh_url
        return _web_address(output)

    async def fetch(self, output: ListedOutput) -> Path | bytes | None:
        """Return an output as `locate` does, out of a bucket too if it is small enough for a thumbnail.

        Raises `JobsNotStored`.
        """
        located_file, owner = await self.locate(output), self.bucket_of(output)
        size_bytes = output.facts.get("size_bytes")
        if located_file is not None or owner is None:
            return located_file
        if not isinstance(size_bytes, int) or not 0 < size_bytes <= _MOST_FETCHED_BYTES:
            return None
        uri, url = str(output.facts["uri"]), _web_address(output)
        if owner == "other" or self._bucket is None:
            return None if url is None else await asyncio.to_thread(self._relay.read, url, size_bytes)
        try:
            return await asyncio.to_thread(lambda bucket: b"".join(bucket.read(uri, range(size_bytes))), self._bucket)
        except (StorageError, ConfigError) as exc:
            log.warning("no thumbnail", extra={"action": "no_thumbnail", "uri": uri, "reason": exc.message})
            return None

    async def respond(
        self, request: Request, output: ListedOutput, *, is_download: bool, may_redirect: bool
    ) -> Response:
        """Return an output's bytes, or the way to the bucket that has them.

        A download is never redirected: another host's answer would be shown, not saved. Raises `JobsNotStored`,
        `StorageError`.
        """
        media_type = str(output.facts.get("media_type") or "application/octet-stream")
        headers = {**untrusted_headers(media_type, output.filename, is_download=is_download)}
        headers["Cache-Control"] = "private, max-age=3600"
        located_file = await self.locate(output)
        if isinstance(located_file, bytes):
            return Response(located_file, headers=headers, media_type=media_type)
        if located_file is not None:
            sent = await send_file(request, located_file, headers=headers, media_type=media_type)
            return sent or failure_response(404, _GONE)
        wanted_range = request.headers.get("range")
        uri, owner = str(output.facts.get("uri") or ""), self.bucket_of(output)
        if owner is None:
            return failure_response(404, _GONE)
        # A signed address of the job's end may have expired.
        if may_redirect and not is_download and (url := await self.make_address(output)) is not None:
            return _redirect(url)
        answer: Response | None = None
        if self._bucket is not None and owner == "own":
            answer = await respond_from_bucket(self._bucket, uri, wanted_range, media_type=media_type, headers=headers)
        elif (url := await self.make_address(output)) is not None:
            answer = await self._relay.respond(url, wanted_range, media_type=media_type, headers=headers)
        return answer or failure_response(404, f"The output was delivered to {uri}.")

    async def _find_asset(self, output: ListedOutput) -> Path | None:
        asset_match = _ASSET.search(str(output.facts.get("url") or ""))
        if asset_match is None:
            return None
        try:
            return self._assets.path(await self._assets.get(asset_match[1]))
        except ApiFailure:
            return None

    def _find_file(self, output: ListedOutput) -> Path | None:
        uri = output.facts.get("uri")
        if not isinstance(uri, str) or "://" in uri or "\0" in uri:
            return None
        path = Path(uri)
        return path if path.resolve().is_relative_to(self._folder) and path.is_file() else None


def untrusted_headers(media_type: str, filename: str, *, is_download: bool = False) -> dict[str, str]:
    """Return the headers of a file that a workflow made: sandboxed, and saved rather than shown if it could run."""
    is_shown = _SHOWN.fullmatch(media_type.lower()) is not None and not is_download
    file_name = filename.replace("\\", "/").rpartition("/")[2]
    disposition = (
        f"{'inline' if is_shown else 'attachment'}; filename*=UTF-8''{quote(file_name, safe='', errors='replace')}"
    )
    return {**UNTRUSTED_HEADERS, "Content-Disposition": disposition}


def _web_address(output: ListedOutput) -> str | None:
    url = output.facts.get("url")
    return url if isinstance(url, str) and url.startswith(("https://", "http://")) else None


def _redirect(url: str) -> Response:
    return RedirectResponse(url, headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})


def _decode(base64_text: str) -> bytes | None:
    try:
        return base64.b64decode(base64_text)
    except (binascii.Error, ValueError):
        return None
