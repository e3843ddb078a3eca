"""Serves the file routes, /view and the uploads. No name leads out of the engine's folders."""

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
from comfypin.engine.embedded.folders import EngineFolders, split_annotation
from comfypin.engine.embedded.route_helpers import answer_trouble

# ComfyUI's own values for previews and masks.
_DEFAULT_QUALITY = 90
_SAVE_COMPRESSION = 4
_PREVIEW_FORMATS = ("webp", "jpeg")
# A browser would run these; they are only ever downloaded.
_ACTIVE_TYPES = {"text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css"}


class _RequestRefused(Exception):
    """Raised when the client may not have what it asks for."""


class FilesApi:
    """Reads and writes the engine's folders."""

    def __init__(self, folders: EngineFolders) -> None:
        self._folders = folders

    async def view_file(self, request: web.Request) -> web.StreamResponse:
        """Answer a file, a picture's preview, or one of its channels."""
        query = request.query
        if "filename" not in query:
            return web.Response(status=404)
        file_name, named_folder = split_annotation(query["filename"])
        folder = self._folders.folder_of_type(named_folder or query.get("type", "output"))
        # ComfyUI refuses these names before it looks at any folder, and clients know its 400.
        if not file_name or file_name.startswith("/") or ".." in file_name or folder is None:
            return web.Response(status=400)
        try:
            path = _path_inside(folder, query.get("subfolder", ""), Path(file_name).name)
        except _RequestRefused:
            return web.Response(status=403)
        if not path.is_file():
            return web.Response(status=404)
        headers = {"Content-Disposition": f'filename="{_header_safe(path.name)}"'}
        if "preview" in query:
            image_format, _, quality = query["preview"].partition(";")
            image_format = (
                image_format if image_format in _PREVIEW_FORMATS and "A" not in query.get("channel", "") else "webp"
            )
            number = int(quality) if quality.isdecimal() else _DEFAULT_QUALITY
            return await _render_picture(headers, image_format, lambda: _render_preview(path, image_format, number))
        if (channel := query.get("channel", "rgba")) in ("rgb", "a"):
            return await _render_picture(headers, "png", lambda: _render_channel(path, channel))
        guessed_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        content_type = "application/octet-stream" if guessed_type in _ACTIVE_TYPES else guessed_type
        return web.FileResponse(path, headers=headers | {"Content-Type": content_type})

    async def upload_image(self, request: web.Request) -> web.Response:
        """Store a file under a name that is free, or that already holds the same bytes."""
        return await self._store_upload(request, lambda data, _: data)

    async def upload_mask(self, request: web.Request) -> web.Response:
        """Store a copy of the picture that `original_ref` names, with the uploaded picture's alpha."""
        return await self._store_upload(request, self._apply_alpha)

    async def _store_upload(self, request: web.Request, prepare: Callable[[bytes, str], bytes]) -> web.Response:
        """Store what a form uploads, after `prepare` has changed its bytes."""
        with answer_trouble():
            form = await request.post()
        image = form.get("image")
        folder_type, subfolder = _form_text(form, "type") or "input", _form_text(form, "subfolder")
        target_folder = self._folders.folder_of_type(folder_type)
        if not isinstance(image, web.FileField) or not image.filename or target_folder is None:
            return web.Response(status=400)
        try:
            wanted_path = _path_inside(target_folder, subfolder, image.filename)
            picture_bytes = await asyncio.to_thread(prepare, image.file.read(), _form_text(form, "original_ref"))
            overwrite = _form_text(form, "overwrite") in ("true", "1")
            stored = await asyncio.to_thread(_store_bytes, wanted_path, picture_bytes, overwrite)
        except _RequestRefused:
            return web.Response(status=400)
        except OSError as problem:
            raise web.HTTPInternalServerError(text=f"cannot store {image.filename!r}: {problem.strerror}") from problem
        file_name = str(Path(image.filename).with_name(stored.name))
        return web.json_response({"name": file_name, "subfolder": subfolder, "type": folder_type})

    def _apply_alpha(self, picture_bytes: bytes, reference: str) -> bytes:
        """Return the picture that the form names, with the alpha of the uploaded one."""
        from PIL import Image, PngImagePlugin

        try:
            named_file = json.loads(reference)
            folder = self._folders.folder_of_type(named_file.get("type", "output"))
            if folder is None:
                raise _RequestRefused
            with Image.open(_path_inside(folder, named_file.get("subfolder", ""), named_file["filename"])) as original:
                texts = PngImagePlugin.PngInfo()
                for key, value in getattr(original, "text", {}).items():
                    texts.add_text(key, value)
                picture = original.convert("RGBA")
            with Image.open(io.BytesIO(picture_bytes)) as mask:
                picture.putalpha(mask.convert("RGBA").getchannel("A"))
        except (ValueError, KeyError, TypeError, AttributeError, OSError, Image.DecompressionBombError) as problem:
            raise _RequestRefused from problem
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", compress_level=_SAVE_COMPRESSION, pnginfo=texts)
        return buffer.getvalue()


def _path_inside(folder: Path, subfolder: str, file_name: str) -> Path:
    try:
        return contained_path(folder, os.path.normpath(f"{subfolder}/{file_name}" if subfolder else file_name))
    except (ValueError, OSError) as problem:
        raise _RequestRefused from problem


def _store_bytes(wanted_path: Path, picture_bytes: bytes, overwrite: bool) -> Path:  # noqa: FBT001
    """Write the bytes under the name, or under a numbered name if other bytes have it."""
    path, number = wanted_path, 0
    # An upload of the same bytes keeps its name: clients upload the same picture for every prompt.
    while not overwrite and path.exists():
        if path.is_file() and Digest.of_file(path) == Digest.of(picture_bytes):
            return path
        number += 1
        # ComfyUI's own pattern: `name (1).png`.
        path = wanted_path.with_name(f"{wanted_path.stem} ({number}){wanted_path.suffix}")
    write_atomically(path, picture_bytes, durable=False)
    return path


def _form_text(form: Any, field_name: str) -> str:
    value = form.get(field_name)
    return value if isinstance(value, str) else ""


def _header_safe(file_name: str) -> str:
    return "".join("_" if character in '"\\' or ord(character) < ord(" ") else character for character in file_name)


async def _render_picture(headers: dict[str, str], image_format: str, render: Callable[[], bytes]) -> web.Response:
    from PIL import Image

    try:
        picture_bytes = await asyncio.to_thread(render)
    except (OSError, ValueError, Image.DecompressionBombError) as problem:
        raise web.HTTPInternalServerError(text=f"this file cannot be shown as a picture: {problem}") from problem
    return web.Response(body=picture_bytes, content_type=f"image/{image_format}", headers=headers)


def _render_preview(path: Path, image_format: str, quality: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(path) as picture:
        rgb_picture = picture.convert("RGB") if image_format == "jpeg" else picture
        rgb_picture.save(buffer, format=image_format, quality=quality)
    return buffer.getvalue()


def _render_channel(path: Path, channel: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(path) as picture:
        if channel == "rgb":
            rgb_picture = picture.convert("RGB")
        else:
            alpha = picture.getchannel("A") if picture.mode == "RGBA" else Image.new("L", picture.size, 255)
            rgb_picture = Image.new("RGBA", picture.size)
            rgb_picture.putalpha(alpha)
        rgb_picture.save(buffer, format="PNG")
    return buffer.getvalue()
