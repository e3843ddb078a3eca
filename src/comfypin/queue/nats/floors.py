"""How many workers of a release and class stay although they idle: `comfypin fleet scale --min` writes it.

A floor is forgotten an hour after it was last written, so that nobody pays for workers of a scaler that is gone.
"""

from collections.abc import Sequence

from comfypin.queue.nats.buckets import Bucket
from comfypin.queue.nats.worker_records import WorkerRecord

FLOOR_KEPT_S = 3600


async def write_floor(bucket: Bucket, release: str, gpu_class: str, workers: int) -> None:
    """Say how many workers are to stay. Raises what nats-py raises."""
    await bucket.put(_key(release, gpu_class), str(workers).encode(), kept_s=FLOOR_KEPT_S)


async def read_floor(bucket: Bucket, release: str, gpu_class: str) -> int:
    """Return how many workers are to stay. Raises what nats-py raises."""
    stored_entry = await bucket.get(_key(release, gpu_class))
    return 0 if stored_entry is None else int(stored_entry.data)


def is_kept(worker_id: str, workers: Sequence[WorkerRecord], release: str, gpu_class: str, floor: int) -> bool:
    """Return whether a worker is one of those that stay: the oldest ones do. Pure."""
    # By age, so that all workers choose the same without asking each other.
    peers = sorted(
        (worker.started_at, worker.id)
        for worker in workers
        if worker.own == release and worker.gpu_class == gpu_class and not worker.is_stopping
    )
    return worker_id in [peer for _, peer in peers[:floor]]


def _key(release: str, gpu_class: str) -> str:
    return f"floor.{release}.{gpu_class}"
