"""A machine without a home, memory or a temporary folder is told so in one sentence, with its family's exit code."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

NO_HOME = "/proc/no-home"


def comfypin(
    *words: str, cwd: Path, limit: Callable[[], None] | None = None, code: str = "", **environ: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command in a process of its own, with these variables and limits."""
    start = f"import sys\n{code}\nfrom comfypin.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "COMFYPIN_"))}
    return subprocess.run(
        [sys.executable, "-c", start, *words],
        cwd=cwd,
        env={**kept, **environ},
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
        preexec_fn=limit,
    )


def is_one_sentence(done: "subprocess.CompletedProcess[str]") -> bool:
    said = [line for line in done.stderr.splitlines() if line.startswith("comfypin:")]
    return len(said) == 1 and "internal error" not in done.stderr and "Traceback" not in done.stderr


def test_sync_without_a_home_names_the_outbox_and_its_flag(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = comfypin("sync", "out", f"file://{tmp_path}/bucket", "--once", cwd=tmp_path, HOME=NO_HOME)
    assert (done.returncode, is_one_sentence(done)) == (80, True)
    assert "--outbox" in done.stderr


def test_a_folder_below_home_that_cannot_be_made_names_home(tmp_path: Path) -> None:
    code = "import comfypin.cli.doctor as d, pathlib\nd.execute = lambda _: pathlib.Path.home().joinpath('x').mkdir()"
    done = comfypin("doctor", cwd=tmp_path, code=code, HOME=NO_HOME)
    assert (done.returncode, is_one_sentence(done)) == (3, True)
    assert f"HOME is {NO_HOME}" in done.stderr


@pytest.mark.parametrize("mebibytes", [300, 400])
def test_too_little_memory_is_said(mebibytes: int, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20))

    done = comfypin("demo", cwd=tmp_path, limit=limit)
    assert is_one_sentence(done) or done.returncode == 0
    assert done.returncode in {0, 3, 20}


def test_no_temporary_folder_is_said(tmp_path: Path) -> None:
    code = "import tempfile\ntempfile._candidate_tempdir_list = lambda: ['/proc/none']"
    done = comfypin("demo", cwd=tmp_path, code=code)
    assert (done.returncode, is_one_sentence(done)) == (3, True)
    assert "set tmpdir" in done.stderr.lower()
