"""Finds the bytes of an output, wherever its job left them, and the headers under which a browser may have them."""

import asyncio
import base64
import binascii
import re
from pathlib import Path
from urllib.parse import quote

from starlette.responses import FileResponse, RedirectResponse, Response

from comfypin.server.comfy_api.assets import Assets
from comfypin.server.comfy_api.envelope import PREFIX
from comfypin.server.comfy_api.errors import ApiFailure
from comfypin.server.output_index import ListedOutput, OutputIndex
from comfypin.server.responses import failure_response

# Of outputs that browsers open: they are what workflows of others may have made.
UNTRUSTED_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'; img-src 'self'; media-src 'self'",
}
# A browser shows these and runs nothing of them; whatever else there is, it saves. SVG and HTML hold scripts.
_SHOWN = re.compile(r"image/(?!svg)[a-z0-9.+-]+|video/[a-z0-9.+-]+|audio/[a-z0-9.+-]+|text/plain")
_ASSET = re.compile(re.escape(PREFIX) + r"/assets/([0-9a-f-]{36})/content$")


class OutputFiles:
    """Reads outputs. `folder` is where this machine's are delivered to."""

    def __init__(self, index: OutputIndex, assets: Assets, folder: Path) -> None:
        self._index = index
        self._assets = assets
        self._folder = folder.resolve()

    async def locate(self, output: ListedOutput) -> Path | bytes | None:
        """Return an output's file or bytes; None if they are not on this machine. Raises `JobsNotStored`."""
        if output.facts.get("kept_as") == "base64":
            text = await self._index.read_base64(output)
            return None if text is None else await asyncio.to_thread(_decode, text)
        if (asset_path := await self._find_asset(output)) is not None:
            return asset_path
        return await asyncio.to_thread(self._find_file, output)

    async def respond(self, output: ListedOutput, *, is_download: bool) -> Response:
        """Return an output's bytes, or the way to the bucket that has them. Raises `JobsNotStored`."""
        media_type = str(output.facts.get("media_type") or "application/octet-stream")
        headers = {**untrusted_headers(media_type, output.filename, is_download=is_download)}
        headers["Cache-Control"] = "private, max-age=3600"
        found = await self.locate(output)
        if isinstance(found, bytes):
            return Response(found, headers=headers, media_type=media_type)
        if found is not None:
            return FileResponse(found, headers=headers, media_type=media_type)
        url = output.facts.get("url")
        if isinstance(url, str) and url.startswith(("https://", "http://")) and "://" in str(output.facts.get("uri")):
            return RedirectResponse(url, headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
        reason = f"The output is at {output.facts['uri']}." if output.facts.get("uri") else "The output is gone."
        return failure_response(404, reason)

    async def _find_asset(self, output: ListedOutput) -> Path | None:
        named = _ASSET.search(str(output.facts.get("url") or ""))
        if named is None:
            return None
        try:
            return self._assets.path(await self._assets.get(named[1]))
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
    name = filename.replace("\\", "/").rpartition("/")[2]
    disposition = f"{'inline' if is_shown else 'attachment'}; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
    return {**UNTRUSTED_HEADERS, "Content-Disposition": disposition}


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return None
