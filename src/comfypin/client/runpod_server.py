"""A server with Runpod's paths: an endpoint on Runpod, or `comfypin serve`, which has a list of jobs and assets too."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode

from comfypin.client.comfy_server import list_comfy_jobs, upload_asset
from comfypin.client.errors import InputsTooLarge, JobNotFound, NotOffered, ServerRefused, ServerUnknown
from comfypin.client.event_feed import job_changes, read_events
from comfypin.client.interface import (
    API_NAMES,
    InputSource,
    JobOrder,
    JobPage,
    RemoteJob,
    RemoteJobFilter,
    ServerAddress,
)
from comfypin.client.json_client import JsonClient, ServerAnswer, printable
from comfypin.client.order_files import inline_input, override_values, size_of_input
from comfypin.client.result_outputs import (
    count_or_none,
    outputs_of_result,
    progress_of,
    seconds_or_none,
    text_or_none,
    texts_of,
)
from comfypin.errors import RemoteError
from comfypin.http.deadline import Deadline
from comfypin.runpod.endpoint_client import MAX_REQUEST_BYTES

# `comfypin serve` takes larger files as assets, which go in a request of their own.
INLINE_BYTES = 1_000_000
# What `comfypin serve` takes in one request, unless --max-body-mb says otherwise.
_SERVE_BYTES = 64_000_000
# What `comfypin serve` gives at most.
_LARGEST_PAGE = 200
_ENDPOINT_PATH = re.compile(r"/v2/[^/]+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunpodServer:
    """Speaks Runpod's endpoint API (https://docs.runpod.io/serverless/endpoints/operations)."""

    address: ServerAddress
    client: JsonClient

    def submit(self, order: JobOrder) -> RemoteJob:
        """Send a job once."""
        job_input: dict[str, object] = {"workflow": order.document.content}
        if order.overrides:
            job_input["set"] = override_values(order.overrides)
        if order.randomize_seeds:
            job_input["randomize_seeds"] = True
        self._require_size(order)
        if order.inputs:
            job_input["inputs"] = [self._input_json(source) for source in order.inputs]
        request_body = {"input": job_input}
        limit_bytes = MAX_REQUEST_BYTES if self.address.kind == "runpod" else _SERVE_BYTES
        if (size_bytes := len(json.dumps(request_body))) > limit_bytes:
            raise InputsTooLarge(server=self.address.named, size_bytes=size_bytes, limit_bytes=limit_bytes)
        answer = self.client.submit(f"{self.address.base_url}/run", request_body)
        if answer.status == 404:
            raise self._no_endpoint()
        return self._read_status(answer.document)

    def show(self, job_id: str) -> RemoteJob:
        """Return a job as it is now."""
        if self.address.kind == "serve":
            listed = self._ask_job("GET", "jobs", job_id)
            if listed is not None:
                return _read_listed_job(listed)
        return self._read_status(self._require_job("GET", "status", job_id))

    def changes(self, job_id: str, *, within_s: float | None) -> Iterator[RemoteJob] | None:
        """Yield a job whenever it changes, as `comfypin serve` tells it; Runpod itself must be asked."""
        return self._changes(job_id, within_s) if self.address.kind == "serve" else None

    def _changes(self, job_id: str, within_s: float | None) -> Iterator[RemoteJob]:
        url = f"{self._root_url}/events?previews=0"
        with self.client.open_stream(url, Deadline(within_s)) as chunks:
            if chunks is not None:
                yield from job_changes(read_events(chunks), job_id, _read_listed_job)

    def list_jobs(self, job_filter: RemoteJobFilter) -> JobPage:
        """Return jobs, newest first; Runpod itself has no list."""
        if self.address.kind == "runpod":
            reason = "does not list jobs: show one by its id, or look at the endpoint in Runpod's console"
            raise NotOffered(server=self.address.named, api=API_NAMES[self.address.kind], reason=reason)
        query = [
            ("limit", str(min(job_filter.limit, _LARGEST_PAGE))),
            *(("state", state) for state in job_filter.states),
        ]
        filter_values = {
            filter_name: getattr(job_filter, filter_name) for filter_name in ("workflow", "release", "text", "after")
        }
        query += [(filter_name, filter_text) for filter_name, filter_text in filter_values.items() if filter_text]
        answer = self.client.ask("GET", f"{self.address.base_url}/jobs?{urlencode(query)}")
        if answer.status == 404:
            # A server from before it had a list of its own.
            return list_comfy_jobs(self.client, self.address, f"{self._root_url}/api/v2", job_filter)
        document = self._require_mapping(answer, "GET /jobs")
        if not isinstance(jobs := document.get("jobs"), list):
            raise self._unexpected("GET /jobs")
        listed = tuple(_read_listed_job(job) for job in jobs if isinstance(job, Mapping))
        return JobPage(jobs=listed, next=text_or_none(document.get("next")))

    def cancel(self, job_id: str) -> RemoteJob:
        """Stop a job."""
        return self._read_status(self._require_job("POST", "cancel", job_id))

    def retry(self, job_id: str) -> RemoteJob:
        """Run a job again under its id; what one that did not fail asked for becomes a new job, if the server can."""
        if self.address.kind == "serve" and self.show(job_id).status in ("COMPLETED", "CANCELLED"):
            again = self._try_again(job_id)
            if again is not None:
                return again
        try:
            return self._read_status(self._require_job("POST", "retry", job_id))
        except ServerRefused as refused:
            if refused.status not in (400, 409):
                raise
            raise self._not_run_again(refused) from refused

    def _try_again(self, job_id: str) -> RemoteJob | None:
        url = f"{self._root_url}/jobs/{quote(job_id, safe='')}/again"
        try:
            answer = self.client.submit(url, {})
        except ServerRefused as refused:
            if refused.status != 409:
                raise
            raise self._not_run_again(refused) from refused
        # An older server has no such path, and says so as it refuses a retry.
        return None if answer.status == 404 else self._read_status(answer.document)

    def _not_run_again(self, refused: ServerRefused) -> NotOffered:
        return NotOffered(
            server=self.address.named,
            api=API_NAMES[self.address.kind],
            reason=f"does not run the job again: {refused.reason.rstrip('.')}",
        )

    @property
    def _root_url(self) -> str:
        """Return where the server itself begins; Runpod's own URLs have /v2/ENDPOINT before the paths."""
        return _ENDPOINT_PATH.sub("", self.address.base_url)

    def _ask_job(self, method: str, operation: str, job_id: str) -> Mapping[str, object] | None:
        answer = self.client.ask(method, f"{self.address.base_url}/{operation}/{quote(job_id, safe='')}")
        if answer.status == 404:
            return None
        return self._require_mapping(answer, f"{method} /{operation}")

    def _require_job(self, method: str, operation: str, job_id: str) -> Mapping[str, object]:
        document = self._ask_job(method, operation, job_id)
        if document is None:
            raise JobNotFound(server=self.address.named, job_id=job_id)
        return document

    def _require_mapping(self, answer: ServerAnswer, request: str) -> Mapping[str, object]:
        if not isinstance(answer.document, Mapping):
            raise self._unexpected(request)
        return answer.document

    def _read_status(self, document: object) -> RemoteJob:
        if not isinstance(document, Mapping) or not isinstance(document.get("status"), str) or not document.get("id"):
            raise self._unexpected("a job")
        output = document.get("output")
        job = RemoteJob(id=printable(str(document["id"])), status=printable(document["status"]), api="runpod")
        if not job.has_ended:
            message = printable(output) if isinstance(output, str) else None
            return replace(job, progress=progress_of(output), message=message)
        return _with_result(job, output, document.get("error"))

    def _require_size(self, order: JobOrder) -> None:
        """Raise `InputsTooLarge` before large files are read and turned into text."""
        if self.address.kind != "runpod":
            return
        # Base64 makes four characters of three bytes.
        size_bytes = sum(size_of_input(source) * 4 // 3 for source in order.inputs)
        if size_bytes > MAX_REQUEST_BYTES:
            raise InputsTooLarge(server=self.address.named, size_bytes=size_bytes, limit_bytes=MAX_REQUEST_BYTES)

    def _input_json(self, source: InputSource) -> dict[str, object]:
        if source.path is not None and self.address.kind == "serve" and size_of_input(source) > INLINE_BYTES:
            asset = upload_asset(self.client, self.address, f"{self._root_url}/api/v2", source.path, source.name)
            if isinstance(asset_hash := asset.get("hash"), str):
                return {"node": source.node, "name": source.name, "asset": asset_hash}
        return inline_input(source)

    def _unexpected(self, request: str) -> RemoteError:
        return ServerUnknown(server=self.address.named, reason=f"its answer to {request} is not as Runpod's")

    def _no_endpoint(self) -> RemoteError:
        return ServerUnknown(server=self.address.named, reason="there is no such endpoint (HTTP 404)")


def _read_listed_job(document: Mapping[str, object]) -> RemoteJob:
    """Return a job as `comfypin serve` lists it."""
    error = document.get("error")
    error = error if isinstance(error, Mapping) else {}
    job = RemoteJob(
        id=printable(str(document.get("id"))),
        status=printable(str(document.get("status"))),
        workflow=text_or_none(document.get("workflow")),
        release=text_or_none(document.get("release")),
        api=text_or_none(document.get("api")),
        created_at=text_or_none(document.get("created_at")),
        started_at=text_or_none(document.get("started_at")),
        finished_at=text_or_none(document.get("finished_at")),
        position=count_or_none(document.get("position")),
        estimate_s=seconds_or_none(document.get("estimate_s")),
        progress=progress_of(document.get("progress")),
        error_name=text_or_none(error.get("name")),
        error=text_or_none(error.get("message")),
        output_count=count_or_none(document.get("output_count")),
        warning_count=count_or_none(document.get("warnings")),
    )
    return _with_result(job, document.get("output"), job.error) if job.has_ended else job


def _with_result(job: RemoteJob, output: object, error: object) -> RemoteJob:
    result = output if isinstance(output, Mapping) else {}
    outputs = outputs_of_result(result)
    # `errors` are those of single outputs; a failed job has its own there too.
    errors = texts_of(result.get("errors")) if job.status == "COMPLETED" else ()
    warnings = texts_of(result.get("warnings")) + errors
    if job.status == "COMPLETED":
        reason = None
    else:
        reason = text_or_none(result.get("error")) or (None if error is None else str(error))
    return replace(
        job,
        error=reason,
        error_name=job.error_name or text_or_none(result.get("error_type")),
        outputs=outputs,
        output_count=job.output_count if not result else len(outputs),
        warnings=warnings,
        warning_count=job.warning_count if not result else len(warnings),
    )
