"""Checks that a worker is fit for jobs: models, disk, and the driver's CUDA against the lock's torch."""

import contextlib
import ctypes
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from comfypin.atomic_files import free_bytes
from comfypin.errors import ConfigError
from comfypin.lock.model import Lock
from comfypin.plurals import format_count, format_size

# Runpod's own check wants a tenth of the disk, which says little about a small one.
LEAST_FREE_BYTES = 1_000_000_000


class Unfit(ConfigError):
    """Raised if this machine cannot run the release's jobs."""


def fitness_checks(
    lock: Lock, *, cuda_needed: str | None, models_missing: Callable[[], Sequence[str]], temp_parent: Path
) -> Mapping[str, Callable[[], None]]:
    """Return the checks by name; each raises `Unfit` with one line. `models_missing` names unfit models."""

    def check_models() -> None:
        if missing_models := models_missing():
            shown_models = ", ".join(missing_models[:3]) + (", ..." if len(missing_models) > 3 else "")
            counted = format_count(len(missing_models), "model")
            raise Unfit(f"{counted} of {lock.version_name} missing or corrupt: {shown_models}.")

    def check_disk() -> None:
        if (available := free_bytes(temp_parent)) < LEAST_FREE_BYTES:
            raise Unfit(f"{temp_parent} has {format_size(available)} free; jobs need 1 GB for inputs and outputs.")

    def check_cuda() -> None:
        offered_cuda = driver_cuda()
        if (
            cuda_needed is not None
            and offered_cuda is not None
            and _parse_version(offered_cuda) < _parse_version(cuda_needed)
        ):
            raise Unfit(
                f"The host's driver offers CUDA {offered_cuda}, and the lock's torch needs {cuda_needed}; "
                f"set minCudaVersion = {cuda_needed} on the endpoint."
            )

    return {"comfypin_models": check_models, "comfypin_disk": check_disk, "comfypin_cuda": check_cuda}


def driver_cuda() -> str | None:
    """Return the newest CUDA that the NVIDIA driver supports, such as `12.8`, or None without a driver.

    The driver's library answers at once; `nvidia-smi` takes a second or more on a host whose driver is not kept loaded.
    """
    version = ctypes.c_int(0)
    with contextlib.suppress(OSError, AttributeError):
        # 12080 is 12.8. It initializes no GPU.
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) == 0 and version.value:
            return f"{version.value // 1000}.{version.value % 1000 // 10}"
    try:
        # Its header shows the driver's CUDA; torch would show the one that it was built for.
        printed = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"CUDA Version:\s*(\d+\.\d+)", printed)
    return match[1] if match else None


def _parse_version(version_text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version_text.split("."))
