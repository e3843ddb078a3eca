"""Knows torch: which packages come with it, and which CUDA a build of it needs (pure)."""

import re
from collections.abc import Iterable

from comfypin.lock.model import PackagePin

_FAMILY = re.compile(r"(torch|torchvision|torchaudio|triton|pytorch[-_]triton|xformers|nvidia[-_].*|cuda[-_].*)", re.I)
# Where no pin of the CUDA runtime is in the lock: the CUDA that torch's wheels on PyPI were built with.
# Source: the release notes of each torch version.
_PYPI_TORCH_CUDA = {"2.4": "12.1", "2.5": "12.4", "2.6": "12.4", "2.7": "12.6", "2.8": "12.8", "2.9": "12.8"}


def is_torch_family(name: str) -> bool:
    """Return whether a distribution belongs to torch's family, judged by its name."""
    return _FAMILY.fullmatch(name) is not None


def minimum_cuda(packages: Iterable[PackagePin]) -> str | None:
    """Return the lowest CUDA that a host's driver must offer, `12.8`, or None if torch is absent or built for the CPU.

    Taken from torch's local version (`2.8.0+cu128`), else from the pinned CUDA runtime, else from what that version of
    torch on PyPI was built with. The CUDA of a wheel runs on every newer driver, so it is a floor, not a list.
    """
    versions = {package.name: package.version for package in packages}
    torch_version = versions.get("torch")
    if torch_version is None:
        return None
    if local_version := re.search(r"\+cu(\d+)(\d)$", torch_version):
        return f"{local_version[1]}.{local_version[2]}"
    if "+" in torch_version:
        return None
    for name, version in sorted(versions.items()):
        if re.fullmatch(r"nvidia-cuda-runtime(-cu\d+)?", name):
            return ".".join(version.split(".")[:2])
    return _PYPI_TORCH_CUDA.get(".".join(torch_version.split(".")[:2]))
