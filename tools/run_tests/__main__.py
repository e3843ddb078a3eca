"""Run `pytest` with the given arguments; try the few tests that failed beside others once more, alone.

A machine that does three things at once makes a test late that is right. What passes alone is printed as flaky: it is
to be mended, but it says nothing about the change. What fails again has failed, and so has a run with many failures.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_TESTS_FAILED = 1  # pytest's own exit code; 2 and more mean that the run itself did not end as it should
_MOST_RETRIED = 5


def main() -> int:
    """Run the tests and return pytest's exit code."""
    with tempfile.TemporaryDirectory(prefix="comfypin-tests-") as cache_folder:
        # A cache of its own: an earlier run's failures are not this one's.
        pytest_command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache_folder}"]
        exit_code = subprocess.run([*pytest_command, *sys.argv[1:]], check=False).returncode
        failed_tests = _read_failed(Path(cache_folder))
        if exit_code != _TESTS_FAILED or not 0 < len(failed_tests) <= _MOST_RETRIED:
            return exit_code
        print(f"\nTrying again, alone: {', '.join(failed_tests)}", flush=True)
        exit_code = subprocess.run([*pytest_command, "-n", "0", *failed_tests], check=False).returncode
    if exit_code == 0:
        print("\nFLAKY: these failed beside other tests and passed alone; they are to be mended:")
        print("".join(f"  {test_name}\n" for test_name in failed_tests), end="", flush=True)
    return exit_code


def _read_failed(cache_folder: Path) -> list[str]:
    try:
        failed_tests = json.loads((cache_folder / "v/cache/lastfailed").read_bytes())
    except FileNotFoundError:
        return []
    # pytest-xdist writes a test's group behind its name; without workers no test is called that.
    return sorted(re.sub(r"@[\w-]+$", "", test_name) for test_name in failed_tests)


if __name__ == "__main__":
    sys.exit(main())
