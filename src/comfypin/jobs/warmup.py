"""Warms an engine with the lock's warm-up workflow, so that the first job finds its models loaded."""

import logging

from comfypin.jobs.interface import Handle
from comfypin.lock.model import Lock

log = logging.getLogger(__name__)


async def warm_engine(handle: Handle, lock: Lock) -> None:
    """Run the lock's warm-up workflow, or the smallest one, to its end.

    Raises what it failed with: an engine that cannot do that must not take jobs.
    """
    # base64, so that nothing is delivered to the user's bucket.
    document = {"workflow": dict(lock.engine.warmup or {}), "output": {"mode": "base64", "previews": False}}
    outcome = await handle("warm-up", document)
    if outcome.failure is not None:
        raise outcome.failure
    log.info("engine warm", extra={"action": "engine_warm", "release": lock.version_name})
