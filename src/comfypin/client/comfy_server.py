"""A server that speaks Comfy API v2: Comfy's own, `comfypin serve`, or another product's."""

import mimetypes
import secrets
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlencode, urljoin

from comfypin.client.errors import JobNotFound, NotOffered, ServerRefused, ServerUnknown, WorkflowNotTaken
from comfypin.client.event_feed import comfy_job_changes, read_events
from comfypin.client.interface import (
    API_NAMES,
    InputSource,
    JobOrder,
    JobPage,
    RemoteJob,
    RemoteJobFilter,
    ServerAddress,
)
from comfypin.client.json_client import JsonClient, printable
from comfypin.client.order_files import size_of_input
from comfypin.client.result_outputs import count_or_none, outputs_of_comfy_job, progress_of, text_or_none
from comfypin.digest import JsonValue
from comfypin.errors import RemoteError, UsageError
from comfypin.http.deadline import Deadline
from comfypin.workflow.input_files import parse_input_file, point_to_files
from comfypin.workflow.overrides import apply_overrides
from comfypin.workflow.parse import parse_document

# `canceling` is still running: it ends by itself.
_STATES = {
    "queued": "IN_QUEUE",
    "running": "IN_PROGRESS",
    "canceling": "IN_PROGRESS",
    "succeeded": "COMPLETED",
    "failed": "FAILED",
    "canceled": "CANCELLED",
    "expired": "TIMED_OUT",
}
_TIMED_OUT_CODES = frozenset({"execution_timeout", "expired"})
# One piece is in memory at a time, so a file of any size can be sent.
_PIECE_BYTES = 1 << 18
_LARGEST_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ComfyServer:
    """Speaks Comfy API v2, as its description says."""

    address: ServerAddress
    client: JsonClient

    def submit(self, order: JobOrder) -> RemoteJob:
        """Upload the input files as assets, then send the job once."""
        return self._create(self._make_graph(order))

    def show(self, job_id: str) -> RemoteJob:
        """Return a job as it is now."""
        return self._read_job(self._require_job(job_id))

    def changes(self, job_id: str, *, within_s: float | None) -> Iterator[RemoteJob]:
        """Yield a job whenever its stream of events says that it changed; none if the server has no such stream."""
        document = self._require_job(job_id)
        url = self._url_of(document, job_id, "events")
        with self.client.open_stream(url, Deadline(within_s)) as chunks:
            if chunks is not None:
                yield from comfy_job_changes(read_events(chunks), self._read_job(document), _STATES)

    def list_jobs(self, job_filter: RemoteJobFilter) -> JobPage:
        """Return jobs, newest first, if the server lists them: the published description does not say that it must."""
        return list_comfy_jobs(self.client, self.address, self.address.base_url, job_filter)

    def cancel(self, job_id: str) -> RemoteJob:
        """Ask a job to stop."""
        answer = self.client.ask("POST", self._url_of(self._require_job(job_id), job_id, "cancel"))
        if answer.status == 404:
            raise JobNotFound(server=self.address.named, job_id=job_id)
        return self._read_job(answer.document)

    def retry(self, job_id: str) -> RemoteJob:
        """Send the workflow of a job again, as a new job: the API has no retry."""
        answer = self.client.ask("GET", f"{self._job_url(job_id)}/workflow")
        document = answer.document if isinstance(answer.document, Mapping) else {}
        if answer.status == 404:
            self._require_job(job_id)
            raise self._not_offered("has not kept the workflow of this job, so submit it anew")
        workflow = document.get("workflow")
        if document.get("format") != "api" or not isinstance(workflow, dict):
            raise self._not_offered("keeps this job as it was edited, not as it was run, so submit it anew")
        return self._create(workflow)

    def _create(self, workflow: Mapping[str, JsonValue]) -> RemoteJob:
        key = {"Idempotency-Key": str(uuid.uuid4())}
        answer = self.client.submit(f"{self.address.base_url}/jobs", {"workflow": workflow}, headers=key)
        if answer.status == 404:
            raise ServerUnknown(server=self.address.named, reason="it has no /jobs (HTTP 404)")
        return self._read_job(answer.document)

    def _make_graph(self, order: JobOrder) -> dict[str, JsonValue]:
        _require_graph(order)
        graph = parse_document(order.document)
        files = {
            (input_file.node_id, input_file.input_name): (source, input_file)
            for source in order.inputs
            for input_file in [parse_input_file(graph, f"{source.node}={source.path}")]
        }
        graph = point_to_files(graph, [input_file for _, input_file in files.values()])
        graph = apply_overrides(graph, order.overrides)
        nodes = dict(graph.nodes)
        for (node_id, input_name), (source, input_file) in files.items():
            asset = upload_asset(self.client, self.address, self.address.base_url, input_file.path, source.name)
            node = nodes[node_id]
            nodes[node_id] = replace(node, inputs={**node.inputs, input_name: _reference(asset)})
        return replace(graph, nodes=nodes).to_api()

    def _job_url(self, job_id: str) -> str:
        return f"{self.address.base_url}/jobs/{quote(job_id, safe='')}"

    def _url_of(self, document: Mapping[str, object], job_id: str, operation: str) -> str:
        """Return where a job's operation is: where its link leads, or where the description says."""
        urls = document.get("urls")
        link = text_or_none(urls.get(operation)) if isinstance(urls, Mapping) else None
        return self._follow_link(link) or f"{self._job_url(job_id)}/{operation}"

    def _follow_link(self, link: str | None) -> str | None:
        """Return the URL that a link means. Links of a host are followed from its root, as the description says."""
        if link is None:
            return None
        target = urljoin(self.address.base_url, link)
        # The token is for this server: a link that leads elsewhere is not followed.
        return target if target.startswith(urljoin(self.address.base_url, "/")) else None

    def _require_job(self, job_id: str) -> Mapping[str, object]:
        answer = self.client.ask("GET", self._job_url(job_id))
        if answer.status == 404:
            raise JobNotFound(server=self.address.named, job_id=job_id)
        if not isinstance(answer.document, Mapping):
            raise self._unexpected()
        return answer.document

    def _read_job(self, document: object) -> RemoteJob:
        if not isinstance(document, Mapping) or document.get("status") not in _STATES or not document.get("id"):
            raise self._unexpected()
        error = document.get("error")
        error = error if isinstance(error, Mapping) else {}
        outputs = tuple(
            replace(output, url=self._resolve_output(output.url)) for output in outputs_of_comfy_job(document)
        )
        code = text_or_none(error.get("code"))
        status = _STATES[str(document["status"])]
        return RemoteJob(
            id=printable(str(document["id"])),
            # The API has no state for it: a job that ran out of time has failed, with a code that says so.
            status="TIMED_OUT" if status == "FAILED" and code in _TIMED_OUT_CODES else status,
            api="comfy",
            created_at=text_or_none(document.get("created_at")),
            started_at=text_or_none(document.get("started_at")),
            finished_at=text_or_none(document.get("completed_at")),
            position=count_or_none(document.get("queue_position")),
            progress=progress_of(document.get("progress")),
            error_name=code,
            error=text_or_none(error.get("message")),
            output_count=len(outputs),
            outputs=outputs,
        )

    def _resolve_output(self, url: str | None) -> str | None:
        return None if url is None else urljoin(self.address.base_url, url)

    def _unexpected(self) -> RemoteError:
        return ServerUnknown(server=self.address.named, reason="its answer is not a job of Comfy API v2")

    def _not_offered(self, reason: str) -> NotOffered:
        return NotOffered(server=self.address.named, api=API_NAMES["comfy"], reason=reason)


def list_comfy_jobs(client: JsonClient, address: ServerAddress, api_url: str, job_filter: RemoteJobFilter) -> JobPage:
    """Return jobs as the API's list gives them. Raises `NotOffered`."""
    if job_filter.workflow or job_filter.text or job_filter.release:
        reason = "cannot search jobs by --workflow, --release or --text; leave them out"
        raise NotOffered(server=address.named, api=API_NAMES[address.kind], reason=reason)
    cursor = {} if job_filter.after is None else {"cursor": job_filter.after}
    query = urlencode({"limit": min(job_filter.limit, _LARGEST_PAGE), **cursor})
    try:
        answer = client.ask("GET", f"{api_url}/jobs?{query}")
    except ServerRefused as refused:
        # What a server answers that has the path, but no list.
        if refused.status not in (405, 501):
            raise
        answer = None
    document = answer.document if answer is not None and isinstance(answer.document, Mapping) else {}
    jobs = document.get("jobs")
    if not isinstance(jobs, list):
        reason = "does not list jobs; show one by its id"
        raise NotOffered(server=address.named, api=API_NAMES[address.kind], reason=reason)
    listed = [
        RemoteJob(
            id=printable(str(job.get("id"))),
            status=_STATES.get(str(job.get("status")), printable(str(job.get("status")))),
            created_at=text_or_none(job.get("create_time") or job.get("created_at")),
        )
        for job in jobs
        if isinstance(job, Mapping)
    ]
    chosen = tuple(job for job in listed if not job_filter.states or job.status in job_filter.states)
    return JobPage(jobs=chosen, next=text_or_none(document.get("next_cursor")))


def upload_asset(
    client: JsonClient, address: ServerAddress, api_url: str, path: Path, file_name: str
) -> Mapping[str, object]:
    """Upload a file as an asset, in pieces; return the server's record of it. Raises `RemoteError`, `UsageError`."""
    size_bytes = size_of_input(InputSource(node="", name=file_name, path=path))
    boundary = secrets.token_hex(16)
    fields = {"content_type": mimetypes.guess_type(file_name)[0] or "application/octet-stream", "file_path": file_name}
    # The form is put together here: its length must be known before the file is read.
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{field_text}\r\n'
        for field, field_text in fields.items()
    )
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    tail = f"\r\n--{boundary}--\r\n"
    headers = {
        "Content-Type": f"multipart/form-data; boundary={boundary}",
        "Content-Length": str(len(head.encode()) + size_bytes + len(tail)),
    }
    pieces = _pieces(head.encode(), path, tail.encode())
    # Without a limit as a whole: a large file over a slow line takes its time, and each piece has its own.
    answer = client.send("POST", f"{api_url}/assets", headers=headers, request_body=pieces, deadline=Deadline(None))
    if not isinstance(answer.document, Mapping) or not isinstance(answer.document.get("id"), str):
        raise ServerUnknown(server=address.named, reason="its answer to POST /assets is not an asset")
    return answer.document


def _pieces(head: bytes, path: Path, tail: bytes) -> Iterator[bytes]:
    yield head
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    yield tail


def _reference(asset: Mapping[str, object]) -> JsonValue:
    hints: dict[str, JsonValue] = {
        field_name: hint for field_name in ("hash", "file_path") if isinstance(hint := asset.get(field_name), str)
    }
    return {"__type": "core/ASSET", "info": {"id": str(asset["id"]), **hints}}


def _require_graph(order: JobOrder) -> None:
    """Raise `WorkflowNotTaken` for what needs the server's own list of nodes, which this API does not give."""
    if order.document.format == "ui":
        reason = "takes workflows in API format only: convert it with `comfypin workflow convert`, or export it (API)"
        raise WorkflowNotTaken(reason=reason)
    if order.randomize_seeds:
        raise WorkflowNotTaken(reason="has no list of nodes that tells the seeds; use --set NODE.seed=random")
    if any(source.url is not None for source in order.inputs):
        raise WorkflowNotTaken(reason="fetches no addresses; give --input a file of this machine")
