"""The benches of the server still run: a few jobs each, whatever figures come out."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("bench", "arguments", "words"),
    [
        ("api_overhead", ["--jobs", "1"], ["bare engine", "/runsync", "/workflows/NAME", "/api/v2"]),
        ("followers", ["--followers", "3", "--jobs", "2", "--rounds", "1"], ["followers"]),
    ],
)
def test_a_bench_prints_its_figures(bench: str, arguments: list[str], words: list[str]) -> None:
    command = [sys.executable, str(ROOT / "bench" / f"{bench}.py"), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    # 1 is a promise that this machine, busy with tests, did not keep.
    assert ran.returncode in (0, 1), ran.stderr[-2000:]
    assert all(word in ran.stdout for word in words), ran.stdout + ran.stderr[-2000:]
