"""Keys for API nodes, in memory alone: a job's key is never on the disk, and goes when the job has ended."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from comfypin.errors import WorkflowError
from comfypin.jobs.interface import Handle, JobOutcome, ProgressCallback, ignore_progress
from comfypin.jobs.result_json import failed_outcome
from comfypin.queue.live_jobs import LiveJob
from comfypin.server.comfy_api.records import Records

API_KEY_FIELD = "comfy_org_api_key"
FindLive = Callable[[str], LiveJob | None]
"""Returns a job that has not ended, or ended a short while ago."""


class ApiKeyGone(WorkflowError):
    """The server ended while the job waited, and keys are not kept."""

    def __init__(self) -> None:
        super().__init__(
            "The job came with a key for API nodes, which is never stored, and the server was restarted since; "
            "submit the job again."
        )


def is_of_other_api(live_job: LiveJob | None) -> bool:
    """Return whether a job surely came by another API: then nothing of it need be looked for on the disk."""
    return live_job is not None and live_job.description.api != "comfy"


class KeyLender(Protocol):
    """Has the key for API nodes reach whoever runs a job."""

    def lending(self, job_id: str, key: str | None) -> AbstractContextManager[Mapping[str, str]]:
        """Yield the fields that a job's input is to have for its key, while the job is taken in the block."""

    def wrap_handle(self, handle: Handle) -> Handle:
        """Return a handle that gives each job the key that it came with."""

    def sweep(self, is_pending: Callable[[str], bool]) -> None:
        """Forget the keys of jobs that ended before they began."""


class SealedKeys:
    """Implements `KeyLender` for a fleet: a key goes with its job's input, which the queue seals or refuses."""

    @contextlib.contextmanager
    def lending(self, job_id: str, key: str | None) -> Iterator[Mapping[str, str]]:
        """Yield the field that holds the key."""
        yield {} if key is None else {API_KEY_FIELD: key}

    def wrap_handle(self, handle: Handle) -> Handle:
        """Return the handle: the key is in the input."""
        return handle

    def sweep(self, is_pending: Callable[[str], bool]) -> None:
        """Do nothing: no key is kept here."""


class LentKeys:
    """Implements `KeyLender` on one machine: the keys of jobs that have not ended."""

    def __init__(self, records: Records, *, find_live: FindLive) -> None:
        self._records = records
        self._find_live = find_live
        self._keys: dict[str, str | None] = {}
        """The key of each job that was taken in this life of the server, or None."""

    @contextlib.contextmanager
    def lending(self, job_id: str, key: str | None) -> Iterator[Mapping[str, str]]:
        """Keep a key for a job that is taken in the block; a failure in it forgets the key. Yields no fields."""
        self._keys[job_id] = key
        try:
            yield {}
        except BaseException:
            self._keys.pop(job_id, None)
            raise

    def wrap_handle(self, handle: Handle) -> Handle:
        """Return a handle that gives each job the key that it came with."""

        async def handle_with_key(
            job_id: str, document: object, *, progress: ProgressCallback = ignore_progress
        ) -> JobOutcome:
            if job_id not in self._keys and await self._came_with_key(job_id):
                return failed_outcome(ApiKeyGone())
            key = self._keys.get(job_id)
            if key is not None and isinstance(document, dict):
                document = {**document, API_KEY_FIELD: key}
            try:
                return await handle(job_id, document, progress=progress)
            finally:
                self._keys.pop(job_id, None)

        return handle_with_key

    async def _came_with_key(self, job_id: str) -> bool:
        if is_of_other_api(self._find_live(job_id)):
            return False
        noted = await self._records.job(job_id)
        return noted is not None and noted.had_key

    def sweep(self, is_pending: Callable[[str], bool]) -> None:
        """Forget the keys of jobs that ended before they began."""
        self._keys = {job_id: key for job_id, key in self._keys.items() if is_pending(job_id)}
