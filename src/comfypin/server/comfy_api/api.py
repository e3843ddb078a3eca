"""What the routes of Comfy API v2 share."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from comfypin.queue.interface import JobRow, ServedQueue
from comfypin.server.comfy_api.assets import Assets
from comfypin.server.comfy_api.idempotency import IdempotencyKeys
from comfypin.server.comfy_api.lent_keys import KeyLender
from comfypin.server.comfy_api.output_assets import ForeignOutputs
from comfypin.server.comfy_api.own_bucket import OwnBucket
from comfypin.server.comfy_api.records import Records
from comfypin.server.server_state import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimits:
    """`upload_bytes` is the most of one asset; `keep_s` how long jobs are kept; `streams` how many may be followed."""

    upload_bytes: int
    keep_s: float
    streams: int = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class ComfyApi:
    """The queue, and what Comfy API v2 keeps beside it. `public_url` is how clients reach the server, if known;
    `bucket` is where outputs go, if not to this machine."""

    queue: ServedQueue
    records: Records
    assets: Assets
    keys: IdempotencyKeys
    secrets: KeyLender
    foreign: ForeignOutputs
    limits: ApiLimits
    site: Site
    clock: Callable[[], float] = time.time
    public_url: str | None = None
    bucket: OwnBucket | None = None

    def job_expires_at(self, row: JobRow) -> float:
        """Return until when a job is kept: from its end on, or from now if it has not ended."""
        return (self.clock() if row.ended_at is None else row.ended_at) + self.limits.keep_s
