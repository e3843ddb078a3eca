"""The jobs of all APIs as Comfy API v2 sees them: with outputs, their workflow, their cancellation, a list."""

import asyncio
import base64
import json
from collections.abc import Mapping

from comfypin.digest import JsonValue
from comfypin.queue.interface import JobRecord, JobRow
from comfypin.queue.live_jobs import LiveJob
from comfypin.queue.status_bodies import is_pending
from comfypin.server.comfy_api.api import ComfyApi
from comfypin.server.comfy_api.asset_view import output_to_json, shown_time
from comfypin.server.comfy_api.errors import ApiFailure, not_found, not_ready
from comfypin.server.comfy_api.job_view import all_done, job_to_json, progress_to_json, status_of
from comfypin.server.comfy_api.links import Links
from comfypin.server.comfy_api.records import Asset, ComfyJob
from comfypin.server.errors import NotReady
from comfypin.server.ran_workflow import read_ran_workflow
from comfypin.workflow.errors import WorkflowNotFound

# Most jobs are cancelled by then, so the answer can say so instead of `canceling`.
_CANCEL_SEEN_WITHIN_S = 0.5
_PAGE, _LARGEST_PAGE = 50, 100


class Jobs:
    """The jobs of one server."""

    def __init__(self, api: ComfyApi) -> None:
        self._api = api
        self._canceling: set[asyncio.Task[object]] = set()

    async def show(self, job_id: str, links: Links) -> dict[str, JsonValue]:
        """Return a job. Raises `JobUnknown`, `JobsNotStored`."""
        # Together: each is a way to the store's thread and back.
        record, (noted, made) = await asyncio.gather(
            self._api.queue.read_record(job_id), self._api.records.job_and_outputs(job_id)
        )
        return await self._shown(record, noted, made, links)

    async def show_new(self, job_id: str, noted: ComfyJob, links: Links) -> dict[str, JsonValue]:
        """Return a job that was just taken, without asking the disk for what is known. Raises as `show`."""
        record = await self._api.queue.read_record(job_id)
        if not is_pending(record.row.state):
            return await self.show(job_id, links)
        return await self._shown(record, noted, [], links)

    async def _shown(
        self, record: JobRecord, noted: ComfyJob | None, made: list[Asset], links: Links
    ) -> dict[str, JsonValue]:
        job_id = record.row.id
        status = self.status(record.row)
        outputs = await self._outputs(record, noted, made)
        expires_at = self._api.job_expires_at(record.row)
        now = self._api.clock()
        return job_to_json(
            record,
            links,
            status=status,
            expires_at=expires_at,
            queue_position=self._api.queue.waiting_place(job_id) if status == "queued" else None,
            progress=self._progress(job_id, status, noted),
            outputs=[output_to_json(output, links, now, expires_at=expires_at) for output in outputs],
            labels={} if noted is None else noted.labels,
        )

    def status(self, row: JobRow) -> str:
        """Return a job's status in the API's words."""
        live = self._api.queue.find_live(row.id)
        return status_of(row, is_canceling=live is not None and is_canceling(live))

    def _progress(self, job_id: str, status: str, noted: ComfyJob | None) -> dict[str, JsonValue] | None:
        live = self._api.queue.find_live(job_id)
        shown_progress = progress_to_json(live.progress) if live is not None and status != "queued" else None
        if status != "succeeded":
            return shown_progress
        if shown_progress is not None and isinstance(total := shown_progress["nodes_total"], int):
            return all_done(total)
        return all_done(len(noted.workflow)) if noted is not None and noted.workflow is not None else None

    async def _outputs(self, record: JobRecord, noted: ComfyJob | None, outputs: list[Asset]) -> list[Asset]:
        # What jobs of this API leave becomes assets while they run here; in a fleet they run elsewhere.
        is_made_here = noted is not None and self._api.queue.runs_here
        if outputs or is_made_here or record.row.state != "COMPLETED":
            return outputs
        return await self._api.foreign.bring(record)

    async def workflow(self, job_id: str) -> dict[str, JsonValue]:
        """Return the workflow that a job ran. Raises `JobUnknown`, `JobsNotStored`, `ApiFailure` if it is not kept."""
        await self._api.queue.read_record(job_id)
        noted = await self._api.records.job(job_id)
        workflow = await self._sent_workflow(job_id, noted) if noted is not None else await self._ran_workflow(job_id)
        if not workflow:
            raise not_found("kept workflow of the job", job_id)
        is_graph = not isinstance(workflow.get("nodes"), list)
        return {"workflow": dict(workflow), "format": "api" if is_graph else "save"}

    async def _sent_workflow(self, job_id: str, noted: ComfyJob) -> Mapping[str, JsonValue] | None:
        """Return the workflow of a job of this API, which draws nothing: what was sent, with its ids of assets."""
        if noted.workflow is not None:
            return noted.workflow
        job_input = await self._api.queue.read_input(job_id)
        workflow = job_input.get("workflow") if isinstance(job_input, Mapping) else None
        return workflow if isinstance(workflow, Mapping) else None

    async def _ran_workflow(self, job_id: str) -> Mapping[str, JsonValue] | None:
        try:
            return await read_ran_workflow(self._api.site, job_id)
        except NotReady as exc:
            raise not_ready(exc) from exc
        except WorkflowNotFound:
            return None

    async def cancel(self, job_id: str) -> None:
        """Ask a job to end, and wait a moment for it. Raises `JobUnknown`, `JobsNotStored`."""
        # A task of its own: the request is answered after a moment, and the cancellation goes on.
        task: asyncio.Task[object] = asyncio.ensure_future(self._api.queue.cancel_job(job_id))
        self._canceling.add(task)
        task.add_done_callback(self._forget_cancel)
        done, _ = await asyncio.wait([task], timeout=_CANCEL_SEEN_WITHIN_S)
        if done:
            task.result()

    def _forget_cancel(self, task: "asyncio.Task[object]") -> None:
        self._canceling.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked has been answered; the job ends as soon as the disk takes it

    async def page(
        self, links: Links, *, cursor: str | None, limit: str | None, labels: Mapping[str, str]
    ) -> dict[str, JsonValue]:
        """Return jobs, newest first, those with all of the labels. Raises `ApiFailure`, `JobsNotStored`."""
        size = _page_size(limit)
        # One more than is shown says whether there is a next page.
        page_rows = await self._api.records.page(before=_before(cursor), labels=labels, limit=size + 1)
        listed_jobs: list[JsonValue] = []
        for _, facts, kept_labels in page_rows[:size]:
            job_id, state, created_at, started_at, ended_at, ttl_s = facts
            row = JobRow(
                id=job_id, state=state, created_at=created_at, started_at=started_at, ended_at=ended_at, ttl_s=ttl_s
            )
            listed_jobs.append(
                {
                    "id": job_id,
                    "status": self.status(row),
                    "create_time": shown_time(created_at),
                    "update_time": shown_time(ended_at or started_at or created_at),
                    "metadata": json.loads(kept_labels or "{}"),
                    "urls": links.job(job_id),
                }
            )
        page: dict[str, JsonValue] = {"jobs": listed_jobs}
        if len(page_rows) > size:
            page["next_cursor"] = base64.urlsafe_b64encode(b"before:%d" % page_rows[size - 1][0]).decode()
        return page


def is_canceling(live: LiveJob) -> bool:
    """Return whether a job was asked to end and has not."""
    is_asked = live.task is not None and live.task.cancelling() > 0
    return is_asked and is_pending(live.row.state)


def _page_size(limit: str | None) -> int:
    if limit is None:
        return _PAGE
    if not (limit.isascii() and limit.isdigit() and 0 < int(limit[:9]) <= _LARGEST_PAGE):
        raise ApiFailure(422, "invalid_request", f"`limit` must be a number from 1 to {_LARGEST_PAGE}.")
    return int(limit)


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    try:
        cursor_name, _, number = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
        if cursor_name == "before" and number.isascii() and number.isdigit() and len(number) < 19:
            return int(number)
    except ValueError:
        pass
    raise ApiFailure(422, "invalid_cursor", "`cursor` must be the next_cursor of an earlier page.")
