"""Takes jobs from Runpod's paths; the server's assets that they name stay as long as they need them."""

from comfypin.queue.errors import RetryRefused
from comfypin.queue.interface import JobRoute, ServedQueue
from comfypin.queue.job_notes import JobNotes
from comfypin.server.comfy_api.blobs import is_hash
from comfypin.server.comfy_api.references import find_hashes
from comfypin.server.request_bodies import JobRequest


async def take_job(queue: ServedQueue, job_request: JobRequest) -> str:
    """Take a job and return its id. Raises `QueueFull`, `JobsNotStored`."""
    assets = tuple(asset_hash for asset_hash in find_hashes(job_request.input) if is_hash(asset_hash))
    return await queue.accept_job(
        job_request.input,
        webhook=job_request.webhook,
        timeout_s=job_request.timeout_s,
        ttl_s=job_request.ttl_s,
        webhook_events=job_request.webhook_events,
        notes=JobNotes(assets=assets),
        route=job_request.route,
    )


async def take_job_again(queue: ServedQueue, job_id: str, *, new_seeds: bool = False) -> str:
    """Take a new job that asks for what an earlier one did, and return its id; `new_seeds` draws its seeds anew.

    Raises `JobUnknown`, `RetryRefused` if the input is not kept, `QueueFull`, `JobsNotStored`.
    """
    row = (await queue.read_record(job_id)).row
    if await queue.had_secrets(job_id):
        raise RetryRefused(job_id=job_id, reason="it came with secrets, which are not kept; send it anew")
    job_input = await queue.read_input(job_id)
    if not job_input:
        raise RetryRefused(job_id=job_id, reason="its input was too large to be kept after its end; send it anew")
    return await take_job(
        queue,
        JobRequest(
            input=_with_new_seeds(job_input) if new_seeds else job_input,
            timeout_s=row.timeout_s,
            ttl_s=row.ttl_s,
            route=JobRoute(priority=row.priority, rank=row.rank),
        ),
    )


def _with_new_seeds(job_input: object) -> object:
    if not isinstance(job_input, dict):
        return job_input
    changes = job_input.get("set")
    # A seed that was set by hand would win over a new one.
    drawn = {
        target: "random" if "seed" in target.lower() and isinstance(value, int) else value
        for target, value in (changes.items() if isinstance(changes, dict) else ())
    }
    return {**job_input, "randomize_seeds": True, "set": drawn}
