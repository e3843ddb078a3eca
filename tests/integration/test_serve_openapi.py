"""Requests made from the server's own /openapi.json, valid and not: none of them ends in a 5xx."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import TOKEN, serving


def fuzz(home: Path, *, phases: str, per_operation: int, at_least: int, timeout_s: float) -> None:
    with serving(home, "--max-waiting", "1000000") as server:
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {TOKEN}"),
            *("--checks", "not_a_server_error", "--max-examples", str(per_operation)),
            *("--mode", "all", "--phases", phases, "--workers", "8"),
            # Its answer never ends.
            *("--exclude-path", "/events"),
            # Longer than the longest wait that a request may ask for.
            *("--request-timeout", "330"),
            *("--continue-on-failure", "--suppress-health-check", "all", "--seed", "1", "--no-color"),
        ]
        ran = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert server.ping() == 200
        assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
        generated = re.search(r"(\d+) generated, (\d+) passed", ran.stdout)
        assert generated is not None, ran.stdout[-2000:]
        assert generated[1] == generated[2]
        assert int(generated[1]) >= at_least


def test_no_request_ends_in_a_server_error(tmp_path: Path) -> None:
    fuzz(tmp_path, phases="fuzzing", per_operation=6, at_least=60, timeout_s=170)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_requests_end_in_no_server_error(tmp_path: Path) -> None:
    fuzz(tmp_path, phases="examples,fuzzing", per_operation=1400, at_least=10_000, timeout_s=3500)
