"""A wall clock that jumps, for processes that are started with its variables: by libfaketime.

What counts the seconds that go by (CLOCK_MONOTONIC, CLOCK_BOOTTIME) goes on as it does, and so do the times of files.
"""

from pathlib import Path

_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class JumpingClock:
    """Says the real time until it jumps."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._file.write_text("+0\n")

    def jump(self, seconds: int) -> None:
        """Be so many seconds ahead of the real time, for all processes at once."""
        aside = self._file.with_suffix(".new")
        aside.write_text(f"{seconds:+d}\n")
        aside.replace(self._file)

    @property
    def variables(self) -> dict[str, str]:
        """What a process needs to see this clock."""
        return {
            "LD_PRELOAD": str(_LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Read the file each time: with its cache, libfaketime sees a jump up to two seconds later.
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
