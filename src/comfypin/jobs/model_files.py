"""Brings a job's models while its time lasts, shows how far they are, and keeps them until the job ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager

from comfypin.digest import Digest
from comfypin.jobs.events import ModelProgress, PhaseStarted, event_to_json
from comfypin.jobs.interface import ProgressCallback
from comfypin.jobs.job_input import ModelWish
from comfypin.models.errors import JobModelUnusable
from comfypin.models.job_models import BroughtModel, JobModels, Report, WantedModel

# Followers see each step of a bar, and not each packet.
_SHOW_EVERY_S = 0.25


class ArrivingModel:
    """How far the newest model is: set by the threads that fetch it, and read by whoever shows it."""

    def __init__(self) -> None:
        self.progress: ModelProgress | None = None

    def report_for(self, wanted_model: WantedModel) -> Report:
        """Return the callback that reports the bytes of one model."""
        file_name = wanted_model.filename or (wanted_model.source or "").partition("?")[0].rpartition("/")[2]

        def report(done_bytes: int, total_bytes: int | None) -> None:
            self.progress = ModelProgress(
                model=f"{wanted_model.folder}/{file_name}", done_bytes=done_bytes, total_bytes=total_bytes
            )

        return report

    async def show_changes(self, progress: ProgressCallback) -> None:
        """Show what is new, a few times a second, until cancelled."""
        last_change = None
        while True:
            await asyncio.sleep(_SHOW_EVERY_S)
            # The newest may be all that ever comes: a source can fall silent.
            if (newest := self.progress) is not None and newest is not last_change:
                last_change = newest
                progress({**event_to_json(newest), "progress": 0.0})


@asynccontextmanager
async def bring_job_models(
    wishes: Sequence[ModelWish],
    models: JobModels,
    *,
    pool: Executor,
    timeout_s: float | None,
    progress: ProgressCallback,
) -> AsyncIterator[tuple[BroughtModel, ...]]:
    """Yield the models at their places, where they stay until the block ends. Raises `JobModelUnusable`."""
    loop = asyncio.get_running_loop()
    use = models.begin_use()
    progress({**event_to_json(PhaseStarted(phase="models")), "progress": 0.0})

    arriving = ArrivingModel()
    showing = asyncio.create_task(arriving.show_changes(progress))

    def bring_all() -> tuple[BroughtModel, ...]:
        return tuple(
            models.bring(wanted_model, use, arriving.report_for(wanted_model))
            for wanted_model in (to_wanted(wish, f"models[{index}]") for index, wish in enumerate(wishes))
        )

    try:
        try:
            async with asyncio.timeout(timeout_s) as limit:
                brought = await loop.run_in_executor(pool, bring_all)
        except TimeoutError:
            if not limit.expired():
                raise
            reason = f"they did not arrive within the job's {timeout_s:g} s (`timeout_s`)"
            raise JobModelUnusable(field="models", reason=reason) from None
        finally:
            showing.cancel()
        yield brought
    finally:
        # In a thread, because leases are files. What is brought after this moment is let go as well.
        await asyncio.shield(loop.run_in_executor(pool, use.end))


def to_wanted(wish: ModelWish, label: str) -> WantedModel:
    """Return a model as models/ takes it; `label` is what messages call it."""
    return WantedModel(
        label=label,
        folder=wish.folder,
        source=wish.source,
        sha256=Digest(wish.sha256.lower()) if wish.sha256 is not None else None,
        filename=wish.filename,
    )
