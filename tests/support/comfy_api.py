"""Comfy API v2 in this process: its application over a queue of its own, without an engine or a socket."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from blake3 import blake3
from starlette.testclient import TestClient

from comfypin.jobs.handler import Handler
from comfypin.lock.model import UNPINNED
from comfypin.queue.job_runner import QueueLimits
from comfypin.queue.local_queue import LocalJobQueue
from comfypin.queue.sqlite import JobStore
from comfypin.queue.webhook import Webhooks
from comfypin.server.app import make_app
from comfypin.server.auth import AccessRules
from comfypin.server.comfy_api.api import ApiLimits, ComfyApi
from comfypin.server.comfy_api.assets import Assets
from comfypin.server.comfy_api.idempotency import IdempotencyKeys
from comfypin.server.comfy_api.lent_keys import LentKeys
from comfypin.server.comfy_api.output_assets import ForeignOutputs
from comfypin.server.comfy_api.records import Records
from comfypin.server.server_state import Site
from comfypin.settings.environment import Settings
from comfypin.wiring.page import open_page
from tests.support.services import a_service

UPLOAD_BYTES = 1_000_000


@dataclasses.dataclass
class SetClock:
    """A clock that stands until it is set."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclasses.dataclass(frozen=True)
class LocalApi:
    """A client of the application, and what stands behind it."""

    client: TestClient
    api: ComfyApi
    store: JobStore
    blobs: Path
    clock: SetClock

    def upload(
        self, data: bytes, *, file_path: str = "photo.png", status: int = 201, key: str | None = None, **fields: str
    ) -> dict[str, object]:
        """Upload bytes, and return what is answered."""
        answer = self.client.post(
            "/api/v2/assets",
            files={"file": (file_path, data)},
            data={"content_type": "image/png", "file_path": file_path, **fields},
            headers={} if key is None else {"Idempotency-Key": key},
        )
        assert answer.status_code == status, answer.text
        shown: dict[str, object] = answer.json()
        return shown

    def files(self) -> list[str]:
        """The names of all files that are stored or coming in."""
        return sorted(path.name for path in self.blobs.rglob("*") if path.is_file())

    def run(self, work: Callable[..., object], *arguments: object) -> object:
        """Call a coroutine function on the application's loop."""
        assert self.client.portal is not None
        return self.client.portal.call(work, *arguments)  # type: ignore[arg-type]


@contextlib.contextmanager
def local_api(
    folder: Path,
    clock: SetClock | None = None,
    *,
    waiting: int = 1000,
    ready: bool = True,
    streams: int = 10,
    blobs: Path | None = None,
) -> Iterator[LocalApi]:
    """The application over what lies in `folder`, where an earlier one may have left something; it runs no jobs."""
    clock = clock or SetClock()
    store = JobStore(folder / "jobs.sqlite")
    webhooks = Webhooks(secret=None, allow_private=True)
    queue = LocalJobQueue(store, webhooks, QueueLimits(max_waiting=waiting), worker_id="test", clock=clock)
    site = Site(queue, folder / "outputs", release=UNPINNED)
    if ready:
        service = a_service()
        site.open_for_jobs(service, Handler(service))
    records = Records(store)
    assets = Assets(records, blobs or folder / "assets", keep_s=3600, clock=clock)
    api = ComfyApi(
        site=site,
        queue=queue,
        records=records,
        assets=assets,
        secrets=LentKeys(records, find_live=queue.find_live),
        foreign=ForeignOutputs(assets, site.outputs),
        keys=IdempotencyKeys(records, clock=clock),
        limits=ApiLimits(upload_bytes=UPLOAD_BYTES, keep_s=3600, streams=streams),
        clock=clock,
    )
    rules = AccessRules(token=None, max_body_bytes=100_000, max_upload_bytes=UPLOAD_BYTES + 1_000_000)
    page = open_page(
        site,
        store,
        assets,
        bucket=api.bucket,
        lock=a_service().lock,
        settings=Settings({}),
        state_folder=folder,
        engine_kind="embedded",
        engine_url=None,
        sync_destination=None,
        prefix="",
        clock=clock,
    )
    try:
        with TestClient(make_app(site, rules, api, page), base_url="http://localhost") as client:
            yield LocalApi(client, api, store, blobs or folder / "assets", clock)
    finally:
        store.close()


def hash_of(data: bytes) -> str:
    """The hash as the API writes it."""
    return f"blake3:{blake3(data).hexdigest()}"
