"""Large blocks go back to the system, also between small ones that stay."""

import subprocess
import sys

import pytest

_SCRIPT = """
import sys
from pathlib import Path
from comfypin.process_memory import give_back_large_blocks
if "given-back" in sys.argv:
    give_back_large_blocks()
bytes(30_000_000)  # from here on glibc takes blocks of up to 30 MB from its heap
kept = []
for _ in range(40):
    large = b"x" * 4_000_000
    kept.append([b"x" * 600])
    larger = large + large
    kept.append(b"y" * 70_000)
del large, larger
print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 1_000_000)
"""


def held_mb(*arguments: str) -> int:
    ran = subprocess.run([sys.executable, "-c", _SCRIPT, *arguments], capture_output=True, check=True, text=True)
    return int(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_gives_back_holds_no_more_than_it_uses() -> None:
    assert held_mb("given-back") < 40
