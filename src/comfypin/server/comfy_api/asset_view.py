"""Assets as the API shows them. Pure."""

import math
from datetime import UTC, datetime
from pathlib import PurePosixPath

from comfypin.digest import JsonValue
from comfypin.server.comfy_api.links import Links
from comfypin.server.comfy_api.records import Asset

_URL_S = 3600.0
"""The addresses do not end by themselves; the API wants to know when to ask for them again."""
_TYPES = {"image": "image", "video": "video", "audio": "audio", "text": "text", "latent": "latent"}


def shown_time(at: float) -> str:
    """Return a time as RFC 3339 writes it, in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def asset_to_json(
    asset: Asset, links: Links, now: float, *, expires_at: float | None, created_new: bool | None = None
) -> dict[str, JsonValue]:
    """Return an asset. `expires_at` is when it goes, for an output when its job does."""
    asset_json: dict[str, JsonValue] = {
        "id": asset.id,
        "hash": asset.hash or None,
        "size_bytes": asset.size_bytes,
        "content_type": asset.content_type,
        "file_path": asset.file_path,
        "created_at": shown_time(asset.created_at),
        "url": links.content(asset.id),
        "url_expires_at": shown_time(_url_expires_at(expires_at, now)),
        "expires_at": None if expires_at is None else shown_time(expires_at),
    }
    if created_new is not None:
        asset_json["created_new"] = created_new
    if asset.job_id is not None:
        asset_json["job_id"] = asset.job_id
    return asset_json


def output_to_json(asset: Asset, links: Links, now: float, *, expires_at: float | None) -> dict[str, JsonValue]:
    """Return an asset as one of its job's outputs."""
    return {
        "node_id": asset.node_id or "",
        "name": PurePosixPath(asset.file_path or asset.id).name,
        "type": _TYPES.get(asset.kind or "", "file"),
        "content_type": asset.content_type,
        "size_bytes": asset.size_bytes,
        "id": asset.id,
        "hash": asset.hash or None,
        "url": links.content(asset.id),
        "url_expires_at": shown_time(_url_expires_at(expires_at, now)),
        "job_id": asset.job_id,
    }


def _url_expires_at(expires_at: float | None, now: float) -> float:
    soonest = now + _URL_S
    return soonest if expires_at is None else max(math.ceil(now), min(soonest, expires_at))
