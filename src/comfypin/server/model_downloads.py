"""Downloads of models that nobody's job waits for: begun by POST /models, followed at GET /models."""

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from comfypin.digest import JsonValue
from comfypin.errors import ComfypinError
from comfypin.jobs.job_input import ModelWish
from comfypin.jobs.model_files import ArrivingModel, to_wanted
from comfypin.jobs.result_json import model_to_json
from comfypin.models.interface import hide_secrets
from comfypin.models.job_models import BroughtModel, JobModels, JobModelUse
from comfypin.server.errors import TooManyDownloads

DownloadState = Literal["IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED"]
# They share one line; more at once only make each of them later.
_MAX_RUNNING = 8
# Clients ask for a download's end soon, or never.
_KEPT_ENDED = 100
# A bar that moves twice a second looks alive.
_TELL_EVERY_S = 0.5


@dataclass(slots=True)
class _Download:
    id: str
    wish: ModelWish
    use: JobModelUse
    state: DownloadState = "IN_PROGRESS"
    arriving: ArrivingModel = field(default_factory=ArrivingModel)
    model: BroughtModel | None = None
    failure: ComfypinError | None = None
    task: "asyncio.Task[None] | None" = field(default=None, repr=False)

    def to_json(self) -> Mapping[str, JsonValue]:
        wish = self.wish
        wish_json: dict[str, JsonValue] = {"folder": wish.folder, "filename": wish.filename, "sha256": wish.sha256}
        if wish.source is not None:
            wish_json["source"] = hide_secrets(wish.source)
        arrived = self.arriving.progress
        done_bytes, total_bytes = (0, None) if arrived is None else (arrived.done_bytes, arrived.total_bytes)
        if self.model is not None:
            done_bytes = total_bytes = self.model.size_bytes
        return {
            "id": self.id,
            "status": self.state,
            **{fact_name: value for fact_name, value in wish_json.items() if value is not None},
            "done_bytes": done_bytes,
            "total_bytes": total_bytes,
            **({} if self.model is None else {"model": model_to_json(self.model)}),
            **({} if self.failure is None else {"error": self.failure.message}),
        }


class ModelDownloads:
    """The downloads of one server, the newest last; used on the event loop alone."""

    def __init__(self, *, tell: Callable[[str, Mapping[str, JsonValue]], object] = lambda _id, _stands: None) -> None:
        self._tell = tell
        # Of their own, so that jobs do not wait for them.
        self._pool = ThreadPoolExecutor(_MAX_RUNNING, thread_name_prefix="models")
        self._downloads: OrderedDict[str, _Download] = OrderedDict()

    def begin(self, wish: ModelWish, models: JobModels) -> Mapping[str, JsonValue]:
        """Begin a download, and return how it stands. Raises `TooManyDownloads`."""
        if sum(download.state == "IN_PROGRESS" for download in self._downloads.values()) >= _MAX_RUNNING:
            raise TooManyDownloads(running=_MAX_RUNNING)
        download = _Download(id=str(uuid.uuid4()), wish=wish, use=models.begin_use())
        self._downloads[download.id] = download
        download.task = asyncio.create_task(self._run_and_report(download, models))
        self._forget_oldest()
        return download.to_json()

    def list_all(self) -> list[JsonValue]:
        """Return how every download stands."""
        return [dict(download.to_json()) for download in self._downloads.values()]

    def find(self, download_id: str) -> Mapping[str, JsonValue] | None:
        """Return how a download stands, or None if it is not known (any more)."""
        download = self._downloads.get(download_id)
        return None if download is None else download.to_json()

    def cancel(self, download_id: str) -> Mapping[str, JsonValue] | None:
        """Stop a download, if it goes on, and return how it stands; None if it is not known (any more)."""
        download = self._downloads.get(download_id)
        if download is not None and download.state == "IN_PROGRESS" and download.task is not None:
            download.state = "CANCELLED"
            download.task.cancel()
        return None if download is None else download.to_json()

    async def _run_and_report(self, download: _Download, models: JobModels) -> None:
        telling = asyncio.create_task(self._report_often(download))
        try:
            await self._run(download, models)
        finally:
            telling.cancel()
            self._tell(download.id, download.to_json())

    async def _report_often(self, download: _Download) -> None:
        last_status: Mapping[str, JsonValue] = {}
        while True:
            stands = download.to_json()
            if stands != last_status:
                last_status = stands
                self._tell(download.id, stands)
            await asyncio.sleep(_TELL_EVERY_S)

    async def _run(self, download: _Download, models: JobModels) -> None:
        loop = asyncio.get_running_loop()
        wanted_model = to_wanted(download.wish, "")
        try:
            report = download.arriving.report_for(wanted_model)
            download.model = await loop.run_in_executor(self._pool, models.bring, wanted_model, download.use, report)
            download.state = "COMPLETED"
        except ComfypinError as failure:
            download.state, download.failure = "FAILED", failure
        finally:
            # Not in the pool, whose threads may all be waiting for bytes.
            await asyncio.shield(asyncio.to_thread(download.use.end))

    def _forget_oldest(self) -> None:
        ended = [download.id for download in self._downloads.values() if download.state != "IN_PROGRESS"]
        for download_id in ended[: max(0, len(ended) - _KEPT_ENDED)]:
            del self._downloads[download_id]
