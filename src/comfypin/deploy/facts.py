"""What a deployment derives from its lock: the CUDA floor, the models' size, the disk its container needs. Pure."""

import re
from dataclasses import dataclass

from comfypin.digest import Digest
from comfypin.lock.model import Lock, PackagePin

# Where no pin of the CUDA runtime is in the lock: the CUDA that torch's wheels on PyPI were built with.
# Source: the release notes of each torch version.
_PYPI_TORCH_CUDA = {"2.4": "12.1", "2.5": "12.4", "2.6": "12.4", "2.7": "12.6", "2.8": "12.8", "2.9": "12.8"}
_GB = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFacts:
    """What the rules and the desired state need to know of a lock.

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
    sizes = [model.size_bytes or 0 for model in lock.models]
    has_torch = any(package.name == "torch" for package in lock.python.packages)
    # A CUDA torch with its libraries unpacks to about 7 GB; 10 GB more are for temp files and outputs on their way.
    disk_gb = 10 + (8 if has_torch else 2)
    return ReleaseFacts(
        name=lock.version_name,
        digest=digest,
        cuda=cuda_floor(lock.python.packages),
        models_bytes=sum(sizes),
        largest_model_bytes=max(sizes, default=0),
        container_disk_gb=disk_gb,
    )


def cuda_floor(packages: tuple[PackagePin, ...]) -> str | None:
    """The lowest CUDA a host's driver must offer, `12.8`, or None where torch is absent or built for the CPU.

    Taken from torch's local version (`2.8.0+cu128`), else from the pinned CUDA runtime, else from what that version of
    torch on PyPI was built with. The CUDA of a wheel runs on every newer driver, so it is a floor, not a list.
    """
    versions = {package.name: package.version for package in packages}
    torch = versions.get("torch")
    if torch is None:
        return None
    if local := re.search(r"\+cu(\d+)(\d)$", torch):
        return f"{local[1]}.{local[2]}"
    if "+" in torch:
        return None
    for name, version in sorted(versions.items()):
        if re.fullmatch(r"nvidia-cuda-runtime(-cu\d+)?", name):
            return ".".join(version.split(".")[:2])
    return _PYPI_TORCH_CUDA.get(".".join(torch.split(".")[:2]))


def gigabytes(size_bytes: int) -> float:
    """Bytes as the decimal gigabytes that people and RunPod's prices speak of."""
    return size_bytes / _GB
