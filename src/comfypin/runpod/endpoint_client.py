"""Sends jobs to an endpoint: run, follow, save the outputs, cancel; RunPod as easily as local.

The endpoint API is https://api.runpod.ai/v2/<endpoint>; a server of `comfypin serve` speaks it too.
"""

import base64
import binascii
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from comfypin.atomic_files import atomic_file, contained_path, write_atomically
from comfypin.errors import OutputError
from comfypin.http.client import HttpClient
from comfypin.http.errors import HttpError
from comfypin.http.read_with_retries import StatusError, iter_unless_stalled, read_with_retries
from comfypin.http.response import Response
from comfypin.retry import RetryPolicy
from comfypin.runpod.errors import ApiRefused, ApiUnreachable, EndpointJobFailed, JobTooLarge, WaitedTooLong
from comfypin.runpod.management_api import ManagementApi

JOBS_URL = "https://api.runpod.ai/v2"
MAX_REQUEST_BYTES = 10_000_000
_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
_POLL_S = 1.0
OUTPUT_RETRIES = RetryPolicy(retries=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedOutput:
    """One output of an endpoint's job: the file it was saved to, or the address where the endpoint delivered it."""

    filename: str
    path: Path | None = None
    uri: str | None = None


def run_endpoint_job(
    management_api: ManagementApi,
    endpoint_id: str,
    job_input: Mapping[str, object],
    *,
    timeout_s: float,
    on_progress: Callable[[str, object], None] = lambda _status, _progress: None,
) -> Mapping[str, object]:
    """Send a job and follow it to its end; returns its output. A wait that is cut short cancels the job.

    `api.base_url` is the jobs' address. Raises `EndpointJobFailed`, `WaitedTooLong`, `ApiRefused`, `ApiUnreachable`.
    """
    request_body = {"input": dict(job_input)}
    if (size := len(json.dumps(request_body))) > MAX_REQUEST_BYTES:
        raise JobTooLarge(size_bytes=size, limit_bytes=MAX_REQUEST_BYTES)
    response = management_api.submit_once(f"/{endpoint_id}/run", request_body)
    if not isinstance(response, dict) or "id" not in response:
        raise ApiUnreachable(request="POST /run", reason="the answer holds no job id")
    job_id = str(response["id"])
    try:
        return _follow_job(management_api, (endpoint_id, job_id), timeout_s, on_progress)
    # Otherwise the job would go on, and be paid for, with nobody to take its result.
    except (KeyboardInterrupt, WaitedTooLong):
        management_api.send_request("POST", f"/{endpoint_id}/cancel/{job_id}")
        raise


def _follow_job(
    management_api: ManagementApi, job: tuple[str, str], timeout_s: float, on_progress: Callable[[str, object], None]
) -> Mapping[str, object]:
    endpoint_id, job_id = job
    deadline = time.monotonic() + timeout_s
    last_seen: object = None
    while True:
        status_response = management_api.send_request("GET", f"/{endpoint_id}/status/{job_id}")
        job_state = status_response if isinstance(status_response, dict) else {}
        job_status = str(job_state.get("status", "unknown"))
        seen = (job_status, job_state.get("output") if job_status not in _ENDED else None)
        if seen != last_seen:
            on_progress(job_status, seen[1])
            last_seen = seen
        if job_status == "COMPLETED":
            output = job_state.get("output")
            return output if isinstance(output, dict) else {"output": output}
        if job_status in _ENDED:
            raise EndpointJobFailed(
                job_id=job_id, status=job_status, error=str(job_state.get("error") or "no reason given")
            )
        if time.monotonic() > deadline:
            raise WaitedTooLong(what=f"Job {job_id}", timeout_s=timeout_s, state=job_status)
        management_api.sleep(_POLL_S)


def save_outputs(
    output: Mapping[str, object], output_folder: Path, *, client: HttpClient | None = None
) -> list[SavedOutput]:
    """Write a job's outputs into a folder: base64 decoded, URLs fetched; gs:// and s3:// addresses are only noted.

    Understands our results and worker-comfyui's `images`. Raises `OutputError`.
    """
    saved: list[SavedOutput] = []
    for output_entry in _output_items(output):
        filename = str(output_entry.get("filename") or f"output-{len(saved) + 1}")
        output_data, output_url, uri = output_entry.get("data"), output_entry.get("url"), output_entry.get("uri")
        if output_entry.get("type", "base64") != "base64":
            # `output_data` is an address then: one to fetch from, or one that only says where the output was delivered.
            fetchable = isinstance(output_data, str) and output_data.startswith(("https://", "http://"))
            output_data, output_url, uri = None, output_url or (output_data if fetchable else None), uri or output_data
        if isinstance(output_data, str):
            saved.append(SavedOutput(filename=filename, path=_write_base64(output_folder, filename, output_data)))
        elif isinstance(output_url, str) and output_url.startswith(("https://", "http://")):
            saved.append(
                SavedOutput(
                    filename=filename, path=_fetch_output(client or HttpClient(), output_folder, filename, output_url)
                )
            )
        elif isinstance(uri, str):
            saved.append(SavedOutput(filename=filename, uri=uri))
    return saved


def _output_items(output: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    seen = set()
    for key in ("outputs", "images", "videos", "audio", "files"):
        items = output.get(key)
        for output_entry in items if isinstance(items, list) else ():
            if isinstance(output_entry, Mapping):
                identity = json.dumps(
                    [output_entry.get(name) for name in ("filename", "node", "sha256", "data")], default=str
                )
                if identity not in seen:
                    seen.add(identity)
                    yield output_entry


def _free_path(output_folder: Path, filename: str) -> Path:
    """Return a free path in the folder; a name that is taken gets a number. Raises `OutputError`."""
    try:
        output_path = contained_path(output_folder, filename)
    except ValueError as exc:
        raise OutputError(f"The endpoint named an output {filename!r}, which would leave {output_folder}.") from exc
    suffix_number = 1
    # Two nodes may save under one name.
    while output_path.exists():
        suffix_number += 1
        output_path = output_path.with_name(f"{Path(filename).stem}-{suffix_number}{Path(filename).suffix}")
    return output_path


def _write_base64(output_folder: Path, filename: str, base64_text: str) -> Path:
    try:
        output_data = base64.b64decode(
            base64_text.partition(",")[2] if base64_text.startswith("data:") else base64_text, validate=True
        )
    except binascii.Error as exc:
        raise OutputError(f"The endpoint's output {filename!r} is not base64 ({exc}).") from exc
    output_path = _free_path(output_folder, filename)
    write_atomically(output_path, output_data)
    return output_path


def _fetch_output(client: HttpClient, output_folder: Path, filename: str, output_url: str) -> Path:
    output_path = _free_path(output_folder, filename)

    def save_body(response: Response) -> None:
        with atomic_file(output_path) as file:
            for piece in iter_unless_stalled(response):
                file.write(piece)

    request = f"GET of output {filename}"  # the address may be signed: it is not repeated
    try:
        read_with_retries(client, output_url, save_body, policy=OUTPUT_RETRIES)
    except StatusError as error:
        raise ApiRefused(request=request, status=error.status, title="", detail="") from error
    except HttpError as error:
        raise ApiUnreachable(request=request, reason=error.reason) from error
    return output_path
