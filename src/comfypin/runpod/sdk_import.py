"""Imports Runpod's SDK without what its import costs and a worker never uses."""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_CPU_FACTS = Path("/proc/cpuinfo")


def import_sdk() -> Any:
    """Import `runpod` and return it; unless the environment says otherwise, it logs from INFO on.

    Of its 1.7 s of processor time (runpod 1.12, 2 cores) 1.0 s is one call: py-cpuinfo asks several programs and times
    the processor for a text that the SDK's debugger prints, which nobody sees without `--rp_debugger`. A stand-in
    reads the same text from /proc/cpuinfo, and is gone afterwards.
    """
    # Read while it is imported. Its default, DEBUG, prints every job's output, and lines each time it asks for one.
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")
    if "runpod" in sys.modules or "cpuinfo" in sys.modules:
        return importlib.import_module("runpod")
    standin = ModuleType("cpuinfo")
    vars(standin)["get_cpu_info"] = _read_cpu_facts
    sys.modules["cpuinfo"] = standin
    try:
        return importlib.import_module("runpod")
    finally:
        if sys.modules.get("cpuinfo") is standin:
            del sys.modules["cpuinfo"]


def _read_cpu_facts() -> dict[str, str]:
    """Return the processor's name as py-cpuinfo does; the SDK expects that it may be missing."""
    try:
        lines = _CPU_FACTS.read_text().splitlines()
    except OSError:
        return {}
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"brand_raw": names[0]} if names else {}
