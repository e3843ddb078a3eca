"""The routes of assets: upload, from-hash, by-hash, metadata, bytes, delete."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from comfypin.server.bucket_responses import respond_from_bucket
from comfypin.server.comfy_api.api import ComfyApi
from comfypin.server.comfy_api.asset_view import asset_to_json
from comfypin.server.comfy_api.assets import AssetLabel
from comfypin.server.comfy_api.blobs import IncomingFile, is_hash
from comfypin.server.comfy_api.errors import ApiFailure, invalid_request, not_found
from comfypin.server.comfy_api.links import Links
from comfypin.server.comfy_api.own_bucket import content_disposition
from comfypin.server.comfy_api.records import Asset
from comfypin.server.comfy_api.uploads import read_label, read_upload
from comfypin.server.errors import BodyTooBig, RequestInvalid, RequestTooComplex
from comfypin.server.file_responses import send_file
from comfypin.server.request_bodies import parse_json_body
from comfypin.server.responses import JsonResponse

# Of bytes that browsers may open: they are what others have uploaded, or what workflows of others made.
_UNTRUSTED = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}


def asset_routes(api: ComfyApi) -> APIRouter:
    """Return the routes of assets."""
    routes = APIRouter()

    @routes.post("/assets")
    async def upload(request: Request) -> Response:
        key = request.headers.get("idempotency-key")
        async with _drained(request) as chunks, _incoming(api) as incoming_file:
            await api.keys.check(key)
            content_type = request.headers.get("content-type", "")
            sent = await read_upload(content_type, chunks, incoming_file, most_bytes=api.limits.upload_bytes)
            if sent.expected_hash not in (None, sent.incoming.hash):
                message = f"The bytes that arrived are {sent.incoming.hash}, not the expected_hash; send them again."
                raise ApiFailure(409, "hash_mismatch", message)
            async with api.keys.claim(key):
                asset, is_new = await api.assets.mint(sent.incoming, sent.label, *api.keys.changes(key))
        return await _shown(api, request, asset, created_new=is_new, status=201 if is_new else 200)

    @routes.post("/assets/from-hash")
    async def from_hash(request: Request) -> Response:
        try:
            hash_, label = await asyncio.to_thread(_read_from_hash, await request.body())
        except (ApiFailure, RequestInvalid, RequestTooComplex) as exc:
            # The description knows no other refusal here.
            raise ApiFailure(404, "blob_not_found", exc.message) from exc
        asset, is_new = await api.assets.mint_over(hash_, label)
        return await _shown(api, request, asset, created_new=False, status=201 if is_new else 200)

    @routes.head("/assets/by-hash/{hash}")
    async def by_hash(hash: str) -> Response:
        return Response(status_code=200 if is_hash(hash) and await api.assets.has(hash) else 404)

    @routes.get("/assets/{asset_id}")
    async def metadata(request: Request, asset_id: str) -> Response:
        return await _shown(api, request, await api.assets.get(asset_id))

    @routes.delete("/assets/{asset_id}")
    async def delete(asset_id: str) -> Response:
        await api.assets.delete(asset_id)
        return Response(status_code=204)

    @routes.get("/assets/{asset_id}/content")
    async def content(request: Request, asset_id: str) -> Response:
        asset = await api.assets.get(asset_id)
        if asset.location is not None:
            return await _from_bucket(api, asset, request.headers.get("range"))
        path = api.assets.path(asset)
        headers = {"ETag": f'"{asset.hash}"', "Cache-Control": "private, max-age=3600, immutable", **_UNTRUSTED}
        file_name = (asset.file_path or asset.id).rpartition("/")[2]
        sent = await send_file(
            request, path, headers=headers, media_type="application/octet-stream", filename=file_name
        )
        if sent is None:
            raise not_found("asset", asset_id)
        return sent

    return routes


async def _from_bucket(api: ComfyApi, asset: Asset, wanted_range: str | None) -> Response:
    """Lead to what is in a bucket: by its address, or through the server if it has none that a client could open."""
    location = asset.location or ""
    bucket = api.bucket
    if bucket is None or not bucket.holds(location):
        if not location.startswith(("https://", "http://")):
            raise not_found("asset", asset.id)  # of a bucket that the server had once
        return RedirectResponse(location, 302)
    if (url := await asyncio.to_thread(bucket.make_url, location)) is not None:
        return RedirectResponse(url, 302)
    file_name = (asset.file_path or asset.id).rpartition("/")[2]
    headers = {"Content-Disposition": content_disposition(file_name), **_UNTRUSTED}
    answer = await respond_from_bucket(
        bucket, location, wanted_range, media_type="application/octet-stream", headers=headers, in_envelope=True
    )
    if answer is None:
        raise not_found("asset", asset.id)
    return answer


def _read_from_hash(request_body: bytes) -> tuple[str, AssetLabel]:
    document = parse_json_body(request_body)
    if not isinstance(document, dict) or not isinstance(hash_ := document.get("hash"), str):
        raise invalid_request("its body must be an object with `hash`")
    if not is_hash(hash_):
        raise invalid_request("`hash` must be blake3: and 64 hexadecimal digits")
    label = read_label(
        content_type="application/octet-stream",
        file_path=document.get("file_path"),
        tags=document.get("tags") or [],
        expires_in=document.get("expires_in"),
    )
    return hash_, label


@asynccontextmanager
async def _incoming(api: ComfyApi) -> AsyncIterator[IncomingFile]:
    """Give a file for bytes that come; it is removed unless it was given its place."""
    incoming_file = await api.assets.begin()
    try:
        yield incoming_file
    finally:
        await asyncio.to_thread(incoming_file.discard)


@asynccontextmanager
async def _drained(request: Request) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give a body; if it is refused, let the rest of it arrive: clients read answers when they have sent all."""
    chunks = request.stream()
    try:
        yield chunks
    except ApiFailure:
        with contextlib.suppress(BodyTooBig):
            async for _ in chunks:
                pass
        raise


async def _shown(
    api: ComfyApi, request: Request, asset: Asset, *, created_new: bool | None = None, status: int = 200
) -> JsonResponse:
    expires_at = asset.expires_at
    if asset.job_id is not None:
        expires_at = api.job_expires_at((await api.queue.read_record(asset.job_id)).row)
    links = Links.of(request, api.public_url)
    return JsonResponse(
        asset_to_json(asset, links, api.clock(), expires_at=expires_at, created_new=created_new), status
    )
