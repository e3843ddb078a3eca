"""Keeps the outputs on this machine if their delivery fails."""

import logging
from pathlib import Path

from comfypin.errors import ComfypinError
from comfypin.outputs.folder import FolderSink
from comfypin.outputs.interface import Delivery, JobFacts, Output, OutputSink
from comfypin.outputs.key_template import safe_word

log = logging.getLogger(__name__)


class FallbackFolderSink:
    """Delivers through another sink; if that fails or is stopped, writes the outputs into a folder of the job.

    They are kept as the engine made them, unconverted: minutes of GPU time must not be lost to an unreachable bucket.
    """

    def __init__(self, sink: OutputSink, folder: Path) -> None:
        self.sink = sink
        self._folder = folder

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        """Deliver through the other sink; raise what it raises, once the outputs are kept here."""
        try:
            return await self.sink.deliver(job, outputs)
        # Also when the job is cancelled: its outputs have been made and paid for.
        except BaseException:
            await self._keep_outputs(job, outputs)
            raise

    async def _keep_outputs(self, job: JobFacts, outputs: tuple[Output, ...]) -> None:
        job_folder = self._folder / safe_word(job.job_id)
        try:
            kept_outputs = await FolderSink(job_folder).deliver(job, outputs)
        # The delivery's failure is the one to raise; this one is only logged.
        except ComfypinError as exception:
            log.warning("the outputs were not delivered, and could not be kept in %s: %s", job_folder, exception)
            return
        log.warning(
            "the delivery failed or was stopped, so the job's %s in %s",
            "output is kept" if len(kept_outputs) == 1 else f"{len(kept_outputs)} outputs are kept",
            job_folder,
            extra={
                "action": "outputs_kept",
                "job_id": job.job_id,
                "folder": str(job_folder),
                "outputs": len(kept_outputs),
            },
        )
