"""The routes that deal in files: /view and the uploads. No name leads out of the engine's folders."""

import asyncio
import io
import json
import mimetypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from comfypin.atomic_files import contained_path, write_atomically
from comfypin.digest import Digest
from comfypin.engine.embedded.folders import Folders, split_annotation
from comfypin.engine.embedded.http import trouble

_DEFAULT_QUALITY = 90
_SAVE_COMPRESSION = 4
_PREVIEW_FORMATS = ("webp", "jpeg")
# A browser would run these; they are only ever downloaded.
_ACTIVE_TYPES = {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"}


class _Refused(Exception):
    """The client asks for what it may not have."""


class FilesApi:
    """Reads and writes the engine's folders."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders

    async def view(self, request: web.Request) -> web.StreamResponse:
        """A file, or a picture's preview or one of its channels."""
        query = request.query
        if "filename" not in query:
            return web.Response(status=404)
        name, annotated = split_annotation(query["filename"])
        folder = self._folders.named(annotated or query.get("type", "output"))
        if not name or name.startswith("/") or ".." in name or folder is None:
            return web.Response(status=400)
        try:
            place = _inside(folder, query.get("subfolder", ""), Path(name).name)
        except _Refused:
            return web.Response(status=403)
        if not place.is_file():
            return web.Response(status=404)
        headers = {"Content-Disposition": f'filename="{_header_safe(place.name)}"'}
        if "preview" in query:
            kind, _, quality = query["preview"].partition(";")
            kind = kind if kind in _PREVIEW_FORMATS and "A" not in query.get("channel", "") else "webp"
            number = int(quality) if quality.isdecimal() else _DEFAULT_QUALITY
            return await _rendered(headers, kind, lambda: _preview(place, kind, number))
        if (channel := query.get("channel", "rgba")) in ("rgb", "a"):
            return await _rendered(headers, "png", lambda: _channel(place, channel))
        guessed = mimetypes.guess_type(place.name)[0] or "application/octet-stream"
        content_type = "application/octet-stream" if guessed in _ACTIVE_TYPES else guessed
        return web.FileResponse(place, headers=headers | {"Content-Type": content_type})

    async def upload_image(self, request: web.Request) -> web.Response:
        """Store a file under a name that is free, or that already holds the same bytes."""
        return await self._upload(request, lambda data, _: data)

    async def upload_mask(self, request: web.Request) -> web.Response:
        """Store a copy of the picture that `original_ref` names, with the uploaded picture's alpha."""
        return await self._upload(request, self._with_alpha)

    async def _upload(self, request: web.Request, prepare: Callable[[bytes, str], bytes]) -> web.Response:
        with trouble():
            form = await request.post()
        image = form.get("image")
        kind, subfolder = _text(form, "type") or "input", _text(form, "subfolder")
        root = self._folders.named(kind)
        if not isinstance(image, web.FileField) or not image.filename or root is None:
            return web.Response(status=400)
        try:
            wanted = _inside(root, subfolder, image.filename)
            data = await asyncio.to_thread(prepare, image.file.read(), _text(form, "original_ref"))
            overwrite = _text(form, "overwrite") in ("true", "1")
            stored = await asyncio.to_thread(_store, wanted, data, overwrite)
        except _Refused:
            return web.Response(status=400)
        except OSError as problem:
            raise web.HTTPInternalServerError(text=f"cannot store {image.filename!r}: {problem.strerror}") from problem
        name = str(Path(image.filename).with_name(stored.name))
        return web.json_response({"name": name, "subfolder": subfolder, "type": kind})

    def _with_alpha(self, data: bytes, reference: str) -> bytes:
        from PIL import Image, PngImagePlugin

        try:
            named = json.loads(reference)
            folder = self._folders.named(named.get("type", "output"))
            if folder is None:
                raise _Refused
            with Image.open(_inside(folder, named.get("subfolder", ""), named["filename"])) as original:
                texts = PngImagePlugin.PngInfo()
                for key, value in getattr(original, "text", {}).items():
                    texts.add_text(key, value)
                picture = original.convert("RGBA")
            with Image.open(io.BytesIO(data)) as mask:
                picture.putalpha(mask.convert("RGBA").getchannel("A"))
        except (ValueError, KeyError, TypeError, AttributeError, OSError, Image.DecompressionBombError) as problem:
            raise _Refused from problem
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", compress_level=_SAVE_COMPRESSION, pnginfo=texts)
        return buffer.getvalue()


def _inside(folder: Path, subfolder: str, name: str) -> Path:
    try:
        return contained_path(folder, os.path.normpath(f"{subfolder}/{name}" if subfolder else name))
    except (ValueError, OSError) as problem:
        raise _Refused from problem


def _store(wanted: Path, data: bytes, overwrite: bool) -> Path:  # noqa: FBT001
    """Write the bytes under the name, or the name with a number where other bytes have it."""
    path, number = wanted, 0
    while not overwrite and path.exists():
        if path.is_file() and Digest.of_file(path) == Digest.of(data):
            return path
        number += 1
        path = wanted.with_name(f"{wanted.stem} ({number}){wanted.suffix}")
    write_atomically(path, data, durable=False)
    return path


def _text(form: Any, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""


def _header_safe(name: str) -> str:
    return "".join("_" if letter in '"\\' or ord(letter) < ord(" ") else letter for letter in name)


async def _rendered(headers: dict[str, str], kind: str, render: Callable[[], bytes]) -> web.Response:
    from PIL import Image

    try:
        body = await asyncio.to_thread(render)
    except (OSError, ValueError, Image.DecompressionBombError) as problem:
        raise web.HTTPInternalServerError(text=f"this file cannot be shown as a picture: {problem}") from problem
    return web.Response(body=body, content_type=f"image/{kind}", headers=headers)


def _preview(path: Path, kind: str, quality: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(path) as picture:
        shown = picture.convert("RGB") if kind == "jpeg" else picture
        shown.save(buffer, format=kind, quality=quality)
    return buffer.getvalue()


def _channel(path: Path, channel: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(path) as picture:
        if channel == "rgb":
            shown = picture.convert("RGB")
        else:
            alpha = picture.getchannel("A") if picture.mode == "RGBA" else Image.new("L", picture.size, 255)
            shown = Image.new("RGBA", picture.size)
            shown.putalpha(alpha)
        shown.save(buffer, format="PNG")
    return buffer.getvalue()
