"""Derives from a lock what a deployment needs: the lowest CUDA, the models' size, the container's disk. Pure."""

from dataclasses import dataclass

from comfypin.digest import Digest
from comfypin.lock.model import Lock
from comfypin.lock.torch import minimum_cuda

_GB = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFacts:
    """Facts of a lock that the rules and the desired state need.

    `largest_model_bytes` has to fit into the memory of one GPU; `container_disk_gb` is what the container writes
    beside its image: temp files, outputs on their way, and an unpacked env when it is not baked.
    """

    name: str
    digest: Digest
    cuda: str | None
    models_bytes: int
    largest_model_bytes: int
    container_disk_gb: int


def release_facts(lock: Lock, digest: Digest) -> ReleaseFacts:
    """Read a lock for what RunPod needs to be told."""
    model_sizes = [model.size_bytes or 0 for model in lock.models]
    has_torch = any(package.name == "torch" for package in lock.python.packages)
    # A CUDA torch with its libraries unpacks to about 7 GB; 10 GB more are for temp files and outputs on their way.
    disk_gb = 10 + (8 if has_torch else 2)
    return ReleaseFacts(
        name=lock.version_name,
        digest=digest,
        cuda=minimum_cuda(lock.python.packages),
        models_bytes=sum(model_sizes),
        largest_model_bytes=max(model_sizes, default=0),
        container_disk_gb=disk_gb,
    )


def to_gigabytes(size_bytes: int) -> float:
    """Bytes as the decimal gigabytes that people and RunPod's prices speak of."""
    return size_bytes / _GB
