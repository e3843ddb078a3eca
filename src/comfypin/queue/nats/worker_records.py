"""Who works in a fleet: each worker writes what it is and does into the bucket `comfypin_workers`, every ten seconds.

A record lives for half a minute: a worker that is gone is forgotten by itself.
"""

import json
from dataclasses import asdict, dataclass

from comfypin.queue.nats.buckets import Bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """One worker. `warm` is the digest of the release that it has warm, `releases` are those that it can serve, as
    digest and name, its own first; `jobs` are those that it runs. Times in seconds since 1970."""

    id: str
    warm: str | None
    releases: tuple[tuple[str, str], ...]
    gpu_class: str
    gpu: str | None
    concurrency: int
    jobs: tuple[str, ...]
    started_at: float
    seen_at: float
    is_stopping: bool = False

    @property
    def own(self) -> str:
        """Return the digest of the release that it was started for."""
        return self.releases[0][0]

    def dump(self) -> bytes:
        """Return the record as it is stored."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def load(cls, record_bytes: bytes) -> "WorkerRecord":
        """Read a record. Raises `ValueError`, `TypeError`, `KeyError` if it is not one."""
        json_object = json.loads(record_bytes)
        json_object["releases"] = tuple(
            (str(digest), str(release_name)) for digest, release_name in json_object["releases"]
        )
        json_object["jobs"] = tuple(json_object["jobs"])
        return cls(**json_object)


async def list_workers(bucket: Bucket) -> list[WorkerRecord]:
    """Return the workers that live, oldest first. Raises what nats-py raises."""
    workers: list[WorkerRecord] = []
    for key in await bucket.keys():
        stored_entry = await bucket.get(key)
        if stored_entry is not None:
            workers.append(WorkerRecord.load(stored_entry.data))
    return sorted(workers, key=lambda worker: worker.started_at)
