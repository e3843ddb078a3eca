"""Measures how much memory a process may still take."""

from pathlib import Path

# cgroup v2 and v1. What they count as used holds the page cache, which is given up for whoever needs memory.
_CGROUP_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_bytes(root: Path = Path("/")) -> int:
    """Return the memory that this process may still take: what is available, within its container's limit."""
    # Outside Linux nothing is known: let whoever asks try.
    available = 1 << 62
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    except OSError:
        return available
    return min(available, *(_read_limit(root / limit_path) for limit_path in _CGROUP_LIMITS))


def _read_limit(limit_path: Path) -> int:
    try:
        limit = limit_path.read_text().strip()
    except OSError:
        limit = ""
    # Without a limit the file holds the word `max`, or in v1 a number beyond all memory.
    return int(limit) if limit.isdecimal() else 1 << 62
