"""Measures how much memory this process may still take."""

from pathlib import Path

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory_bytes() -> int:
    """Return the memory that this process may still take: what is available, within its container's limit."""
    # Outside Linux nothing is known: let numpy try.
    available = 1 << 62
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
        # Without a limit the file holds the word `max`.
        limit = _CGROUP_LIMIT.read_text().strip()
        return min(available, int(limit)) if limit.isdecimal() else available
    except OSError:
        return available
