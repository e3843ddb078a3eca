"""Brings a job's models while its time lasts, shows how far they are, and keeps them until the job ends."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager

from comfypin.digest import Digest
from comfypin.jobs.events import ModelProgress, PhaseStarted, event_to_json
from comfypin.jobs.interface import ProgressCallback
from comfypin.jobs.request import ModelWish
from comfypin.models.errors import JobModelUnusable
from comfypin.models.job_models import BroughtModel, JobModels, Report, WantedModel

# Followers see each step of a bar, and not each packet.
_SHOW_EVERY_S = 0.5


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

    def show(event: ModelProgress) -> None:
        if not use.stop.is_set():
            loop.call_soon_threadsafe(progress, {**event_to_json(event), "progress": 0.0})

    def bring_all() -> tuple[BroughtModel, ...]:
        return tuple(
            models.bring(wanted, use, make_report(wanted, show))
            for wanted in (to_wanted(wish, f"models[{index}]") for index, wish in enumerate(wishes))
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


def make_report(wanted: WantedModel, show: Callable[[ModelProgress], None]) -> Report:
    """Return what is told of the bytes of one model, and shows them now and then."""
    name = wanted.filename or (wanted.source or "").partition("?")[0].rpartition("/")[2]
    lock = threading.Lock()
    shown_at_s = -_SHOW_EVERY_S

    def report(done_bytes: int, total_bytes: int | None) -> None:
        nonlocal shown_at_s
        now_s = time.monotonic()
        with lock:
            if now_s - shown_at_s < _SHOW_EVERY_S and done_bytes != total_bytes:
                return
            shown_at_s = now_s
        show(ModelProgress(model=f"{wanted.folder}/{name}", done_bytes=done_bytes, total_bytes=total_bytes))

    return report
