"""Temporary folders: held while their process lives, removed by the next start after that."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfypin.temp_folders import NoTempFolder, SharedTempFolder, sweep_temp_folders, temp_folder

HOLD = """
import sys
from comfypin.temp_folders import temp_folder
with temp_folder("job") as folder:
    (folder / "input.png").write_bytes(b"somebody's")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def holder(root: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds one folder until it is ended."""
    environ = {**os.environ, "TMPDIR": str(root)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD], text=True, env=environ, **pipes) as process:  # type: ignore[call-overload]
        yield process
        process.kill()


def held_by(process: "subprocess.Popen[str]") -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def test_a_folder_is_gone_after_its_block(root: Path) -> None:
    with temp_folder("job") as folder:
        (folder / "x").write_bytes(b"x")
    assert list(root.iterdir()) == []


def test_what_a_killed_process_left_is_removed(holder: "subprocess.Popen[str]", root: Path) -> None:
    folder = held_by(holder)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert sweep_temp_folders(root) == [folder]
    assert not folder.exists()


def test_what_a_living_process_holds_stays(holder: "subprocess.Popen[str]", root: Path) -> None:
    folder = held_by(holder)
    os.utime(folder, (0, 0))
    assert sweep_temp_folders(root) == []
    assert (folder / "input.png").read_bytes() == b"somebody's"


def test_what_this_process_holds_stays(root: Path) -> None:
    with temp_folder("engine") as folder:
        assert sweep_temp_folders(root) == []
        assert folder.is_dir()


def test_what_is_not_ours_stays(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "precious").write_bytes(b"x")
    (root / "comfypin-job-1.held").symlink_to(elsewhere)
    (root / "comfypin-job-2").mkdir()
    (root / "other.held").mkdir()
    (root / "comfypin-job-3.held").write_bytes(b"a file")
    assert sweep_temp_folders(root) == []
    assert len(list(root.iterdir())) == 4
    assert (elsewhere / "precious").exists()


def test_a_folder_is_closed_to_others(root: Path) -> None:
    with temp_folder("login") as folder:
        assert folder.stat().st_mode & 0o077 == 0


def test_no_temp_folder_is_said_with_the_variable_that_helps(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(root / "absent"))
    with pytest.raises(NoTempFolder, match="no place for temporary files") as caught, temp_folder("job"):
        pass
    assert caught.value.exit_code == 3
    assert "et TMPDIR to a writable folder" in caught.value.command_message


def test_a_write_that_a_full_disk_refused_names_the_folder(root: Path) -> None:
    with pytest.raises(NoTempFolder, match=r"\(the disk is full\)") as caught, temp_folder("job"):
        raise OSError(errno.ENOSPC, "No space left on device")
    # A command names the folder, a job's result does not.
    assert str(root) in caught.value.command_message
    assert str(root) not in str(caught.value.to_json())


def test_a_full_disk_elsewhere_is_not_blamed_on_the_temp_folder(root: Path) -> None:
    with pytest.raises(OSError, match="No space left"), temp_folder("job"):
        raise OSError(errno.ENOSPC, "No space left on device", str(root.parent / "outputs"))


def test_a_shared_folder_is_made_once_and_goes_with_its_owner(root: Path) -> None:
    shared = SharedTempFolder("jobs")
    assert list(root.iterdir()) == []
    with shared.part() as first, shared.part() as second:
        first.mkdir()
        (first / "x").write_bytes(b"x")
        assert first.parent == second.parent == shared.root()
        assert not second.exists()
    assert list(shared.root().iterdir()) == []
    assert sweep_temp_folders(root) == []
    del shared
    assert list(root.iterdir()) == []


def test_a_shared_folder_that_was_tidied_away_is_made_again(root: Path) -> None:
    shared = SharedTempFolder("jobs")
    tidied = shared.root()
    tidied.rmdir()
    assert shared.root().is_dir()
    assert shared.root() != tidied
