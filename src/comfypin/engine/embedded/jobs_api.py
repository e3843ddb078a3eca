"""Serves ComfyUI 0.33's /api/jobs: the queue and the history as one list, and cancelling by id."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from comfypin.digest import JsonValue
from comfypin.engine.embedded.engine import EmbeddedEngine
from comfypin.engine.embedded.queue import QueuedPrompt

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
_SORT_FIELDS = {"created_at", "execution_duration"}
_STATUS_BY_MESSAGE = {
    "execution_success": "completed",
    "execution_error": "failed",
    "execution_interrupted": "cancelled",
}
_PREVIEWABLE_TYPES = {"images", "video", "audio", "3d", "text"}
# ComfyUI's limit for a text preview.
_LONGEST_TEXT = 1024

Job = dict[str, Any]


class JobRequestInvalid(Exception):
    """Raised for a query or a body that the route answers with 400, in these words."""


def is_job_id(value: object) -> bool:
    """Return whether a value is a UUID as ComfyUI wants it: lower case, with hyphens."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


class JobsApi:
    """Serves the routes about jobs, which is what ComfyUI calls prompts here."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self._engine = engine

    def add_routes(self, app: web.Application) -> None:
        """Add the routes to the app; unlike the others they exist only under /api."""
        app.router.add_get("/api/jobs", self.list_jobs)
        app.router.add_get("/api/jobs/{job_id}", self.get_job)
        app.router.add_post("/api/jobs/cancel", self.cancel_jobs)
        app.router.add_post("/api/jobs/{job_id}/cancel", self.cancel_job)

    async def list_jobs(self, request: web.Request) -> web.Response:
        """Answer a page of jobs."""
        try:
            job_query = _JobQuery.parse_query(request.query)
        except JobRequestInvalid as problem:
            return web.json_response({"error": str(problem)}, status=400)
        selected = job_query.select_jobs(self._all_jobs())
        page = selected[job_query.offset :][: job_query.limit]
        pagination: dict[str, JsonValue] = {
            "offset": job_query.offset,
            "limit": job_query.limit,
            "total": len(selected),
        }
        pagination["has_more"] = job_query.offset + len(page) < len(selected)
        return web.json_response({"jobs": page, "pagination": pagination})

    async def get_job(self, request: web.Request) -> web.Response:
        """Answer one job, with its outputs if it ended."""
        job_id = request.match_info["job_id"]
        history = self._engine.queue.find_history(job_id)
        if job_id in history:
            return web.json_response(_describe_ended(job_id, history[job_id], with_outputs=True))
        for job in self._unfinished_jobs():
            if job["id"] == job_id:
                return web.json_response(job)
        return web.json_response({"error": "Job not found"}, status=404)

    async def cancel_job(self, request: web.Request) -> web.Response:
        """Cancel a job; accept an unknown job, or one that has ended."""
        return web.json_response({"cancelled": self._engine.cancel_prompt(request.match_info["job_id"])})

    async def cancel_jobs(self, request: web.Request) -> web.Response:
        """Cancel several jobs."""
        try:
            request_body = await request.json()
        except ValueError:
            return web.json_response({"error": "Request body must be valid JSON"}, status=400)
        job_ids = request_body.get("job_ids") if isinstance(request_body, dict) else None
        if not isinstance(job_ids, list):
            return web.json_response({"error": "job_ids must be a list"}, status=400)
        invalid = [each if isinstance(each, str) else repr(each) for each in job_ids if not is_job_id(each)]
        if invalid:
            problem = {"error": "job_ids contains invalid id(s)", "invalid_ids": invalid}
            return web.json_response(problem, status=400)
        cancelled = [self._engine.cancel_prompt(each) for each in job_ids]
        return web.json_response({"cancelled": any(cancelled)})

    def _all_jobs(self) -> Iterable[Job]:
        history = self._engine.queue.list_history()
        return [*self._unfinished_jobs(), *(_describe_ended(job_id, entry) for job_id, entry in history.items())]

    def _unfinished_jobs(self) -> Iterable[Job]:
        running, waiting = self._engine.queue.running_prompt(), self._engine.queue.waiting_prompts()
        started = [_describe_queued(running, "in_progress")] if running is not None else []
        return [*started, *(_describe_queued(prompt, "pending") for prompt in waiting)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _JobQuery:
    """Holds what a query asks for."""

    statuses: frozenset[str]
    workflow_id: str | None
    sort_by: str
    descending: bool
    limit: int | None
    offset: int

    @classmethod
    def parse_query(cls, query: Mapping[str, str]) -> "_JobQuery":
        """Read a query. Raises `JobRequestInvalid`."""
        requested = [each.strip().lower() for each in query.get("status", "").split(",") if each.strip()]
        unknown = [each for each in requested if each not in STATUSES]
        if unknown:
            valid = ", ".join(STATUSES)
            raise JobRequestInvalid(f"Invalid status value(s): {', '.join(unknown)}. Valid values: {valid}")
        sort_by, order = query.get("sort_by", "created_at").lower(), query.get("sort_order", "desc").lower()
        if sort_by not in _SORT_FIELDS:
            raise JobRequestInvalid("sort_by must be 'created_at' or 'execution_duration'")
        if order not in ("asc", "desc"):
            raise JobRequestInvalid("sort_order must be 'asc' or 'desc'")
        limit = _parse_integer(query, "limit")
        if limit is not None and limit <= 0:
            raise JobRequestInvalid("limit must be a positive integer")
        return cls(
            statuses=frozenset(requested or STATUSES),
            workflow_id=query.get("workflow_id"),
            sort_by=sort_by,
            descending=order == "desc",
            limit=limit,
            offset=max(0, _parse_integer(query, "offset") or 0),
        )

    def select_jobs(self, jobs: Iterable[Job]) -> list[Job]:
        """Return the jobs that match, in order."""
        selected = [job for job in jobs if job["status"] in self.statuses]
        if self.workflow_id:
            selected = [job for job in selected if job.get("workflow_id") == self.workflow_id]
        key = _job_duration if self.sort_by == "execution_duration" else _created_at
        return sorted(selected, key=key, reverse=self.descending)


def _parse_integer(query: Mapping[str, str], parameter_name: str) -> int | None:
    if parameter_name not in query:
        return None
    try:
        return int(query[parameter_name])
    except ValueError:
        raise JobRequestInvalid(f"{parameter_name} must be an integer") from None


def _created_at(job: Job) -> int:
    return int(job.get("create_time", 0))


def _job_duration(job: Job) -> int:
    start, end = job.get("execution_start_time", 0), job.get("execution_end_time", 0)
    return end - start if start and end else 0


def _describe_queued(prompt: QueuedPrompt, status: str) -> Job:
    created, workflow_id = _pick_metadata(prompt.extra_data)
    job = {"id": prompt.prompt_id, "status": status, "priority": prompt.number, "create_time": created}
    return _without_none(job | {"outputs_count": 0, "previewable_outputs_count": 0, "workflow_id": workflow_id})


def _describe_ended(job_id: str, history_entry: Any, *, with_outputs: bool = False) -> Job:
    """Return a job as its entry in the history tells it."""
    number, _, graph, extra_data, _ = history_entry["prompt"]
    created, workflow_id = _pick_metadata(extra_data)
    messages = dict(history_entry["status"]["messages"])
    ending = next(
        (message_name for message_name in _STATUS_BY_MESSAGE if message_name in messages), "execution_success"
    )
    files = _list_files(history_entry["outputs"])
    job = _without_none(
        {
            "id": job_id,
            "status": _STATUS_BY_MESSAGE[ending],
            "priority": number,
            "create_time": created,
            "execution_start_time": messages.get("execution_start", {}).get("timestamp"),
            "execution_end_time": messages.get(ending, {}).get("timestamp"),
            "execution_error": messages.get("execution_error"),
            "outputs_count": len(files),
            "previewable_outputs_count": sum(job_file["mediaType"] in _PREVIEWABLE_TYPES for job_file in files),
            "preview_output": _choose_preview(files, history_entry["outputs"]),
            "workflow_id": workflow_id,
        }
    )
    if with_outputs:
        job |= {"outputs": history_entry["outputs"], "execution_status": history_entry["status"]}
        job |= {"workflow": {"prompt": graph, "extra_data": extra_data}}
    return job


def _list_files(outputs: Mapping[str, Any]) -> list[Job]:
    """Return every file of a run, with its node and the key it was reported under."""
    return [
        {**output_entry, "nodeId": node_id, "mediaType": key}
        for node_id, node_output in outputs.items()
        for key, items in node_output.items()
        if key != "animated"
        for output_entry in items
        if isinstance(output_entry, dict)
    ]


def _choose_preview(files: list[Job], outputs: Mapping[str, Any]) -> Job | None:
    """Return what represents a run: a kept file, else any file, else a text."""
    for job_file in sorted(files, key=lambda job_file: job_file["type"] != "output"):
        return job_file
    for node_id, node_output in outputs.items():
        for shown_text in node_output.get("text", ()):
            truncation = {"truncated": True} if len(str(shown_text)) > _LONGEST_TEXT else {}
            return {"content": str(shown_text)[:_LONGEST_TEXT], **truncation, "nodeId": node_id, "mediaType": "text"}
    return None


def _pick_metadata(extra_data: Mapping[str, Any]) -> tuple[Any, Any]:
    extra_pnginfo = extra_data.get("extra_pnginfo")
    workflow = extra_pnginfo.get("workflow") if isinstance(extra_pnginfo, dict) else None
    return extra_data.get("create_time"), workflow.get("id") if isinstance(workflow, dict) else None


def _without_none(job: Job) -> Job:
    return {field_name: value for field_name, value in job.items() if value is not None}
