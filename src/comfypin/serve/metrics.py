"""What a server counts, as Prometheus reads it (text format 0.0.4)."""

import asyncio
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from comfypin.serve.jobs import State

_GPU_EVERY_S = 5.0


@dataclass(slots=True)
class Metrics:
    """Counters since the server began."""

    ended: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    phase_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    phase_jobs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    delivery_failures: int = 0
    refused: int = 0
    webhook_failures: int = 0

    def note_end(self, state: State, output: Mapping[str, object]) -> None:
        """Count a job that ended, with the seconds of its phases."""
        self.ended[state] += 1
        if output.get("error_family") in ("output", "storage"):
            self.delivery_failures += 1
        seconds = output.get("seconds")
        phases = seconds.get("phases") if isinstance(seconds, Mapping) else None
        for name, value in phases.items() if isinstance(phases, Mapping) else ():
            if isinstance(value, int | float):
                self.phase_s[str(name)] += value
                self.phase_jobs[str(name)] += 1

    def text(self, *, waiting: int, running: int, engine_restarts: int, gpus: Iterable[tuple[int, int]]) -> str:
        """The whole page."""
        jobs = {**dict.fromkeys(("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"), 0), **self.ended}
        lines = [
            *_family("comfypin_jobs_total", "counter", "Jobs that ended, by state.", _by("state", jobs)),
            *_family("comfypin_jobs_in_queue", "gauge", "Jobs that wait.", {"": waiting}),
            *_family("comfypin_jobs_in_progress", "gauge", "Jobs that run.", {"": running}),
            *_family("comfypin_jobs_refused_total", "counter", "Jobs refused by a full queue.", {"": self.refused}),
            *_family("comfypin_job_phase_seconds_sum", "counter", "Seconds by phase.", _by("phase", self.phase_s)),
            *_family("comfypin_job_phase_seconds_count", "counter", "Jobs by phase.", _by("phase", self.phase_jobs)),
            *_family("comfypin_engine_restarts_total", "counter", "Engine crashes.", {"": engine_restarts}),
            *_family(
                "comfypin_delivery_failures_total", "counter", "Jobs not delivered.", {"": self.delivery_failures}
            ),
            *_family("comfypin_webhook_failures_total", "counter", "Webhooks given up.", {"": self.webhook_failures}),
        ]
        memory = list(gpus)
        used = _by("gpu", {str(index): used for index, (used, _) in enumerate(memory)})
        total = _by("gpu", {str(index): total for index, (_, total) in enumerate(memory)})
        lines += _family("comfypin_gpu_memory_used_bytes", "gauge", "GPU memory in use.", used)
        lines += _family("comfypin_gpu_memory_total_bytes", "gauge", "GPU memory.", total)
        return "\n".join(lines) + "\n"


class GpuMemory:
    """Used and total bytes of every GPU, asked of the driver every few seconds at most; empty without one."""

    def __init__(self) -> None:
        self._known: tuple[tuple[int, int], ...] = ()
        self._asked_at_s = float("-inf")

    async def read(self) -> tuple[tuple[int, int], ...]:
        """The newest figures."""
        if time.monotonic() - self._asked_at_s > _GPU_EVERY_S:
            self._asked_at_s = time.monotonic()
            self._known = await asyncio.to_thread(_ask_driver)
        return self._known


def _ask_driver() -> tuple[tuple[int, int], ...]:
    command = ["nvidia-smi", "--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        pairs = [line.split(",") for line in said.splitlines() if "," in line]
        return tuple((int(used) << 20, int(total) << 20) for used, total in pairs)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def _by(label: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f'{{{label}="{name}"}}': value for name, value in values.items()}


def _family(name: str, kind: str, help_text: str, samples: Mapping[str, float]) -> list[str]:
    if not samples:
        return []
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}", *(f"{name}{at} {n}" for at, n in samples.items())]
