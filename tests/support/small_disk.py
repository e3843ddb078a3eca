"""A small disk of its own for a test, which can be filled to the last byte and freed."""

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

_BALLAST = ".ballast"


class SmallDisk:
    """A tmpfs. `fill` leaves no byte free; `free` takes back what was filled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number = 0

    def fill(self) -> None:
        """Fill what is free now; may be called again, for what became free meanwhile."""
        self._number += 1
        with contextlib.suppress(FileNotFoundError), (self.path / f"{_BALLAST}{self._number}").open("ab", 0) as file:
            size = 1 << 20
            while size >= 1:
                try:
                    file.write(b"\0" * size)
                except OSError as exc:
                    if exc.errno != errno.ENOSPC:
                        raise
                    size //= 16

    def free(self) -> None:
        for ballast in self.path.glob(f"{_BALLAST}*"):
            ballast.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """All that lies on it, without what it was filled with."""
        return [path for path in self.path.rglob("*") if path.is_file() and not path.name.startswith(_BALLAST)]


@contextlib.contextmanager
def small_disk(folder: Path, *, size_mb: float) -> Iterator[SmallDisk]:
    """Mount a disk at `folder`; without root, in a mount namespace of its own, reached through /proc."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(size_mb * 1024)}k,mode=0755", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        try:
            yield SmallDisk(folder)
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)
        return
    script = f"{' '.join(mount)} && echo mounted && exec cat"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mounted\n"
        try:
            yield SmallDisk(Path(f"/proc/{holder.pid}/root{folder}"))
        finally:
            holder.kill()
