"""What a server takes of its machine: memory, descriptors, processes, temporary files, state."""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from tests.support.running import descendants
from tests.support.server import Server


@dataclass(frozen=True, slots=True)
class Gauges:
    """One look at a server; sizes in kB."""

    rss_kb: int
    engine_rss_kb: int
    descriptors: int
    processes: int
    temp_folders: int
    temp_kb: int
    state_kb: int

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


def look(server: Server, *, temp: Path, state: Path) -> Gauges:
    """Measure the server, its children, its temporary folder and its state now."""
    assert server.process is not None
    pid = server.process.pid
    children = descendants(pid)
    return Gauges(
        rss_kb=_rss_kb(pid),
        engine_rss_kb=max([_rss_kb(child) for child in children], default=0),
        descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        processes=len(children),
        temp_folders=sum(path.name.startswith("comfypin") for path in temp.iterdir()),
        temp_kb=_size_kb(temp),
        state_kb=_size_kb(state),
    )


def typical(looks: Iterable[Gauges]) -> Gauges:
    """Return the median of each gauge."""
    seen = list(looks)
    return Gauges(*[int(median(getattr(one, each.name) for one in seen)) for each in fields(Gauges)])


def living_below(folder: Path) -> list[str]:
    """Return the command lines of all processes that name the folder, or have it in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            with contextlib.suppress(OSError):
                said = (process / "cmdline").read_bytes()
                if str(folder).encode() in said + (process / "environ").read_bytes():
                    found.append(said.replace(b"\0", b" ").decode(errors="replace"))
    return found


def _rss_kb(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
    return 0


def _size_kb(folder: Path) -> int:
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            if not name.startswith(".ballast"):
                with contextlib.suppress(OSError):
                    size += os.lstat(Path(parent, name)).st_blocks // 2
    return size
