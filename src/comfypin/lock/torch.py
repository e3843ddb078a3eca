"""Knows torch: what comes with it, what belongs to one release, and which build and CUDA a version is (pure)."""

import re
from collections.abc import Iterable, Mapping

from comfypin.lock.model import PackagePin

# The three packages that PyTorch releases together: https://pytorch.org/get-started/previous-versions/
TRIO = ("torch", "torchvision", "torchaudio")
# The builds that PyTorch's indexes offer, as `--torch` names them: https://download.pytorch.org/whl/
BUILD_PATTERN = re.compile(r"cpu|cu\d{2,4}|rocm\d+(\.\d+)*|xpu")
# Since then torchaudio calls only torch's stable C interface, and has fewer releases than torch:
# https://docs.pytorch.org/docs/stable/notes/libtorch_stable_abi.html
_FIRST_STABLE_AUDIO = (2, 11)
_FAMILY = re.compile(r"(torch|torchvision|torchaudio|triton|pytorch[-_]triton|xformers|nvidia[-_].*|cuda[-_].*)", re.I)
_CUDA_RUNTIME = re.compile(r"nvidia-cuda-runtime(-cu\d+)?")
_LOCAL_BUILD = re.compile(r"torch==[^+]+\+(.+)")
# The CUDA that torch's wheels on PyPI were built with, for locks that do not pin the CUDA runtime.
# Source: the release notes of each torch version.
_PYPI_TORCH_CUDA = {"2.4": "12.1", "2.5": "12.4", "2.6": "12.4", "2.7": "12.6", "2.8": "12.8", "2.9": "12.8"}


def is_torch_family(package_name: str) -> bool:
    """Return whether a distribution belongs to torch's family, judged by its name."""
    return _FAMILY.fullmatch(package_name) is not None


def is_trio_consistent(packages: Iterable[PackagePin]) -> bool:
    """Return whether torch and torchaudio fit: they are of one release, or torchaudio takes newer ones too."""
    # torchvision requires its torch exactly, so the resolver keeps those two together; torchaudio does not.
    minor_versions = trio_versions(packages)
    torch_version, audio_version = minor_versions.get("torch"), minor_versions.get("torchaudio")
    if torch_version is None or audio_version is None:
        return True
    return torch_version == audio_version or _FIRST_STABLE_AUDIO <= _release_order(audio_version) <= _release_order(
        torch_version
    )


def trio_versions(packages: Iterable[PackagePin]) -> Mapping[str, str]:
    """Return the minor version (`2.8`) of each package of the trio."""
    return {package.name: _minor_version(package.version) for package in packages if package.name in TRIO}


def find_torch_build(packages: Iterable[PackagePin]) -> str | None:
    """Return what torch was built for: `cu128`, `cpu`, ..., or None without torch or if nothing says so."""
    versions = {package.name: package.version for package in packages}
    if "torch" not in versions:
        return None
    _, _, local_version = versions["torch"].partition("+")
    if local_version:
        return local_version
    # torch on PyPI brings its CUDA as packages; their version is the build's.
    runtime = _cuda_runtime_version(versions)
    return None if runtime is None else "cu" + runtime.replace(".", "")


def find_requested_build(requirements: Iterable[str]) -> str | None:
    """Return the build that a requirement `torch==2.8.0+cu128` names, or None."""
    matches = (_LOCAL_BUILD.match(requirement) for requirement in requirements)
    return next((build_match[1] for build_match in matches if build_match), None)


def target_name(platform: str, packages: Iterable[PackagePin]) -> str:
    """Return the target of packages on a platform: `linux-x86_64-cu128`; without torch just the platform."""
    build = find_torch_build(packages)
    # Elsewhere than on Linux there is only one build of each torch.
    return f"{platform}-{build}" if build and platform.startswith("linux") else platform


def split_target(target: str) -> tuple[str, str | None]:
    """Return the platform and the build of torch that a target's name holds."""
    operating_system, machine, *build = target.split("-")
    return f"{operating_system}-{machine}", build[0] if build else None


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
    return _cuda_runtime_version(versions) or _PYPI_TORCH_CUDA.get(_minor_version(torch_version))


def _cuda_runtime_version(versions: Mapping[str, str]) -> str | None:
    for package_name, version in sorted(versions.items()):
        if _CUDA_RUNTIME.fullmatch(package_name):
            return _minor_version(version)
    return None


def _release_order(minor_version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", minor_version))


def _minor_version(version: str) -> str:
    return ".".join(version.partition("+")[0].split(".")[:2])
