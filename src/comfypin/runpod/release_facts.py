"""Derives from a lock what a deployment needs: the lowest CUDA, the models' size, disk, time to start. Pure."""

import math
from dataclasses import dataclass

from comfypin.digest import Digest
from comfypin.lock.model import Lock
from comfypin.lock.torch import minimum_cuda

_GB = 1_000_000_000
# Runpod's own, after which a worker that is not ready counts as unhealthy:
# https://docs.runpod.io/serverless/development/optimization
PLATFORM_INIT_TIMEOUT_S = 420
# Starting ComfyUI takes 15 s on a fast host; a slow volume, the warm-up and a busy machine multiply that.
_START_S = 300
# A quarter of what hubs give a data centre on a good day, so that a bad day does not kill a worker that is downloading.
_SLOW_DOWNLOAD_BYTES_PER_S = 25_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFacts:
    """Facts of a lock that the rules and the desired state need.

    `largest_model_bytes` has to fit into the memory of one GPU; `container_disk_gb` is what the container writes
    beside its image: temp files, outputs on their way, and an unpacked env when it is not baked. `env_bytes` is about
    what such an env downloads. `needs_gpu`: the engine ends on a machine without one.
    """

    name: str
    digest: Digest
    cuda: str | None
    models_bytes: int
    largest_model_bytes: int
    container_disk_gb: int
    env_bytes: int = 0
    needs_gpu: bool = False

    @property
    def init_timeout_s(self) -> int:
        """Return the seconds that a worker may take until it is ready, all its downloads included."""
        # What an image or a volume holds already is counted too: nobody knows here, and a limit that is too long costs
        # nothing as long as workers start, while one that is too short has every worker killed again and again.
        fetch_s = (self.models_bytes + self.env_bytes) / _SLOW_DOWNLOAD_BYTES_PER_S
        whole_minutes = math.ceil((_START_S + fetch_s) / 60)
        return max(PLATFORM_INIT_TIMEOUT_S, 60 * whole_minutes)


def release_facts(lock: Lock, digest: Digest) -> ReleaseFacts:
    """Read a lock for what Runpod needs to be told."""
    model_sizes = [model.size_bytes or 0 for model in lock.models]
    has_torch = any(package.name == "torch" for package in lock.python.packages)
    # A CUDA torch with its libraries unpacks to about 7 GB; 10 GB more are for temp files and outputs on their way.
    env_gb = 8 if has_torch else 2
    cuda_floor = minimum_cuda(lock.python.packages)
    return ReleaseFacts(
        name=lock.version_name,
        digest=digest,
        cuda=cuda_floor,
        models_bytes=sum(model_sizes),
        largest_model_bytes=max(model_sizes, default=0),
        container_disk_gb=10 + env_gb,
        # Wheels are about half of what they unpack to. Only a ComfyUI of ours has an env.
        env_bytes=env_gb * _GB // 2 if lock.engine.kind == "comfyui" else 0,
        needs_gpu=lock.engine.kind == "comfyui" and cuda_floor is not None and "--cpu" not in lock.engine.args,
    )


def to_gigabytes(size_bytes: int) -> float:
    """Bytes as the decimal gigabytes that people and Runpod's prices speak of."""
    return size_bytes / _GB
