"""Jobs sent to an endpoint: run, follow, save the outputs, cancel; RunPod as easily as local.

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
from comfypin.http.patient import StatusError, iter_unless_stalled, read_with_retries
from comfypin.http.response import Response
from comfypin.retry import RetryPolicy
from comfypin.runpod.errors import ApiRefused, ApiUnreachable, EndpointJobFailed, JobTooLarge, WaitedTooLong
from comfypin.runpod.management_api import Api

JOBS_URL = "https://api.runpod.ai/v2"
MAX_REQUEST_BYTES = 10_000_000
_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
_POLL_S = 1.0
OUTPUT_RETRIES = RetryPolicy(retries=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """One output of an endpoint's job: the file it was saved to, or the address where the endpoint delivered it."""

    filename: str
    path: Path | None = None
    uri: str | None = None


def run_job(
    api: Api,
    endpoint_id: str,
    job_input: Mapping[str, object],
    *,
    timeout_s: float,
    on_progress: Callable[[str, object], None] = lambda _status, _progress: None,
) -> Mapping[str, object]:
    """Send a job and follow it to its end; returns its output. A wait that is cut short cancels the job.

    `api.base_url` is the jobs' address. Raises `EndpointJobFailed`, `WaitedTooLong`, `ApiRefused`, `ApiUnreachable`.
    """
    body = {"input": dict(job_input)}
    if (size := len(json.dumps(body))) > MAX_REQUEST_BYTES:
        raise JobTooLarge(size_bytes=size, limit_bytes=MAX_REQUEST_BYTES)
    started = api.submit(f"/{endpoint_id}/run", body)
    if not isinstance(started, dict) or "id" not in started:
        raise ApiUnreachable(request="POST /run", reason="the answer holds no job id")
    job_id = str(started["id"])
    try:
        return _follow(api, (endpoint_id, job_id), timeout_s, on_progress)
    except (KeyboardInterrupt, WaitedTooLong):
        api.request("POST", f"/{endpoint_id}/cancel/{job_id}")
        raise


def _follow(
    api: Api, job: tuple[str, str], timeout_s: float, on_progress: Callable[[str, object], None]
) -> Mapping[str, object]:
    endpoint_id, job_id = job
    deadline = time.monotonic() + timeout_s
    last: object = None
    while True:
        answer = api.request("GET", f"/{endpoint_id}/status/{job_id}")
        state = answer if isinstance(answer, dict) else {}
        status = str(state.get("status", "unknown"))
        seen = (status, state.get("output") if status not in _ENDED else None)
        if seen != last:
            on_progress(status, seen[1])
            last = seen
        if status == "COMPLETED":
            output = state.get("output")
            return output if isinstance(output, dict) else {"output": output}
        if status in _ENDED:
            raise EndpointJobFailed(job_id=job_id, status=status, error=str(state.get("error") or "no reason given"))
        if time.monotonic() > deadline:
            raise WaitedTooLong(what=f"Job {job_id}", timeout_s=timeout_s, state=status)
        api.sleep(_POLL_S)


def save_outputs(output: Mapping[str, object], folder: Path, *, client: HttpClient | None = None) -> list[Saved]:
    """Write a job's outputs into a folder: base64 decoded, URLs fetched; other addresses (gs://, s3://, ...) are told.

    Understands our results and worker-comfyui's `images`. Raises `OutputError`.
    """
    saved: list[Saved] = []
    for item in _items(output):
        filename = str(item.get("filename") or f"output-{len(saved) + 1}")
        data, url, uri = item.get("data"), item.get("url"), item.get("uri")
        if item.get("type", "base64") != "base64":
            # `data` is an address then: one to fetch from, or one that only says where the output was delivered.
            fetchable = isinstance(data, str) and data.startswith(("https://", "http://"))
            data, url, uri = None, url or (data if fetchable else None), uri or data
        if isinstance(data, str):
            saved.append(Saved(filename=filename, path=_write_base64(folder, filename, data)))
        elif isinstance(url, str) and url.startswith(("https://", "http://")):
            saved.append(Saved(filename=filename, path=_fetch(client or HttpClient(), folder, filename, url)))
        elif isinstance(uri, str):
            saved.append(Saved(filename=filename, uri=uri))
    return saved


def _items(output: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    seen = set()
    for key in ("outputs", "images", "videos", "audio", "files"):
        items = output.get(key)
        for item in items if isinstance(items, list) else ():
            if isinstance(item, Mapping):
                identity = json.dumps([item.get(name) for name in ("filename", "node", "sha256", "data")], default=str)
                if identity not in seen:
                    seen.add(identity)
                    yield item


def _target(folder: Path, filename: str) -> Path:
    """A free place in the folder for an output; a name that is taken gets a number. Raises `OutputError`."""
    try:
        path = contained_path(folder, filename)
    except ValueError as exc:
        raise OutputError(f"The endpoint named an output {filename!r}, which would leave {folder}.") from exc
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{Path(filename).stem}-{number}{Path(filename).suffix}")
    return path


def _write_base64(folder: Path, filename: str, text: str) -> Path:
    try:
        data = base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except binascii.Error as exc:
        raise OutputError(f"The endpoint's output {filename!r} is not base64 ({exc}).") from exc
    path = _target(folder, filename)
    write_atomically(path, data)
    return path


def _fetch(client: HttpClient, folder: Path, filename: str, url: str) -> Path:
    path = _target(folder, filename)

    def save(response: Response) -> None:
        with atomic_file(path) as file:
            for piece in iter_unless_stalled(response):
                file.write(piece)

    request = f"GET of output {filename}"  # the address may be signed: it is not repeated
    try:
        read_with_retries(client, url, save, policy=OUTPUT_RETRIES)
    except StatusError as error:
        raise ApiRefused(request=request, status=error.status, title="", detail="") from error
    except HttpError as error:
        raise ApiUnreachable(request=request, reason=error.reason) from error
    return path
