"""A net below a delivery that may fail: what was made stays on this machine."""

import logging
from pathlib import Path

from comfypin.errors import ComfypinError
from comfypin.outputs.folder import FolderSink
from comfypin.outputs.interface import Delivery, JobFacts, Output, OutputSink
from comfypin.outputs.key_template import safe_word

log = logging.getLogger(__name__)


class FallbackFolderSink:
    """Delivers by another sink; where that fails, or is stopped, it writes the outputs into a folder of the job.

    They are kept as the engine made them, unconverted: minutes of a GPU are not to be lost to a bucket that is away.
    """

    def __init__(self, sink: OutputSink, folder: Path) -> None:
        self.sink = sink
        self._folder = folder

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        """What the other sink does; raises what it raises, after the outputs are kept."""
        try:
            return await self.sink.deliver(job, outputs)
        except BaseException:
            await self._keep_outputs(job, outputs)
            raise

    async def _keep_outputs(self, job: JobFacts, outputs: tuple[Output, ...]) -> None:
        job_folder = self._folder / safe_word(job.job_id)
        try:
            kept_outputs = await FolderSink(job_folder).deliver(job, outputs)
        except ComfypinError as exception:
            log.warning("the outputs that were not delivered could not be kept in %s: %s", job_folder, exception)
            return
        log.warning(
            "the delivery did not end, so the job's %s in %s",
            "output is kept" if len(kept_outputs) == 1 else f"{len(kept_outputs)} outputs are kept",
            job_folder,
            extra={
                "action": "outputs_kept",
                "job_id": job.job_id,
                "folder": str(job_folder),
                "outputs": len(kept_outputs),
            },
        )
