"""Delivers outputs to the server's own disk: one folder a job, and an address of the server for every file."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from comfypin.atomic_files import contained_path
from comfypin.outputs.errors import OutputNotWritten
from comfypin.outputs.folder import FolderSink
from comfypin.outputs.interface import Delivery, JobFacts, Output


class ServedOutputFolder:
    """Delivers outputs into a folder served below `/outputs/`; a job that runs again replaces its files."""

    def __init__(self, root: Path, *, base_url: str) -> None:
        self._root = root
        self._base_url = base_url

    async def deliver(self, job: JobFacts, outputs: tuple[Output, ...]) -> tuple[Delivery, ...]:
        """Write the outputs. Raises `OutputNotWritten`, `OutputUnreadable`, `OutputChanged`."""
        try:
            job_folder = contained_path(self._root, job.job_id)
        except ValueError as exc:
            raise OutputNotWritten(
                filename=job.job_id,
                folder=self._root,
                reason="the job's id cannot name a folder",
                advice="",
                delivered=(),
            ) from exc
        # A job that runs again may save fewer files than before: old ones must not pass for its own.
        if job_folder.exists():
            await asyncio.to_thread(shutil.rmtree, job_folder, ignore_errors=True)
        try:
            deliveries = await FolderSink(job_folder).deliver(job, outputs)
        except OutputNotWritten as error:
            # A job's result shows no path of the server.
            written = [Path(path).relative_to(self._root).as_posix() for path in error.delivered]
            raise OutputNotWritten(
                filename=error.filename,
                folder=Path("the server's output folder"),
                reason=error.reason,
                advice="Tell whoever runs the server.",
                delivered=tuple(f"{self._base_url}/outputs/{quote(path)}" for path in written),
            ) from error
        return tuple(self._with_address(delivery) for delivery in deliveries)

    def _with_address(self, delivery: Delivery) -> Delivery:
        relative_path = Path(str(delivery.uri)).relative_to(self._root).as_posix()
        return replace(delivery, url=f"{self._base_url}/outputs/{quote(relative_path)}")
