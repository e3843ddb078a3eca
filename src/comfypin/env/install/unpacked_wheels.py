"""Reports each wheel that uv has unpacked while uv still works on others.

uv unpacks each wheel aside and renames the folder into its cache. If uv keeps its cache in another way, nothing is
reported.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

# Short enough to compile one wheel while uv works on the next.
_POLL_S = 0.02


class UnpackedWheels:
    """While entered, a thread follows uv's cache and reports each new folder."""

    def __init__(self, uv_cache: Path, report: Callable[[str], None]) -> None:
        self._report = report
        # The name is uv's own, not an interface; if it changes, nothing is compiled ahead.
        self._archives = str(uv_cache / "archive-v0")
        self._seen: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow_cache, name="unpacked-wheels", daemon=True)

    def __enter__(self) -> None:
        self._seen.update(self._list_folders())
        self._thread.start()

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _follow_cache(self) -> None:
        current_mtime_ns = 0
        while not self._over.wait(_POLL_S):
            # Listed only when something came: a cache that many projects share can hold thousands of wheels.
            previous_mtime_ns, current_mtime_ns = current_mtime_ns, self._read_mtime_ns()
            for folder_name in self._list_folders() if current_mtime_ns != previous_mtime_ns else ():
                if folder_name not in self._seen:
                    self._seen.add(folder_name)
                    self._report(f"{self._archives}/{folder_name}")

    def _list_folders(self) -> list[str]:
        with contextlib.suppress(OSError):
            return os.listdir(self._archives)  # noqa: PTH208  (names, many times a second)
        return []

    def _read_mtime_ns(self) -> int:
        with contextlib.suppress(OSError):
            return os.stat(self._archives).st_mtime_ns  # noqa: PTH116
        return 0
