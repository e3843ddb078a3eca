"""Sends jobs to an endpoint: run, follow, cancel; Runpod as easily as local.

The endpoint API is https://api.runpod.ai/v2/<endpoint>; a server of `comfypin serve` speaks it too.
"""

import json
import time
from collections.abc import Callable, Mapping

from comfypin.runpod.errors import ApiUnreachable, EndpointJobFailed, JobTooLarge, WaitedTooLong
from comfypin.runpod.management_api import ManagementApi

MAX_REQUEST_BYTES = 10_000_000
_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
_POLL_S = 1.0


def run_endpoint_job(
    management_api: ManagementApi,
    endpoint_id: str,
    job_input: Mapping[str, object],
    *,
    timeout_s: float,
    on_progress: Callable[[str, object], None] = lambda _status, _progress: None,
    limit_bytes: int = MAX_REQUEST_BYTES,
) -> Mapping[str, object]:
    """Send a job and follow it to its end; returns its output. A wait that is cut short cancels the job.

    `api.base_url` is the jobs' address. Raises `EndpointJobFailed`, `WaitedTooLong`, `ApiRefused`, `ApiUnreachable`.
    """
    request_body = {"input": dict(job_input)}
    if (size := len(json.dumps(request_body))) > limit_bytes:
        raise JobTooLarge(size_bytes=size, limit_bytes=limit_bytes)
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
