"""A disk that is full: one clear error, no half file, and what was delivered before stays."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfypin.jobs.output_spool import WantedOutput, collect_outputs, open_spool
from comfypin.outputs.errors import OutputNotWritten
from comfypin.outputs.folder import FileSink, FolderSink
from comfypin.testing import fake_output
from tests.support.door import DEMO_LOCK, DEMO_WORKFLOW, ROOT, clean_environ, door_command
from tests.support.outputs import FACTS, an_output


@contextlib.contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow further (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_file_that_does_not_fit_leaves_nothing_and_keeps_what_was_delivered(tmp_path: Path) -> None:
    small, big = an_output(tmp_path / "spool", b"small"), an_output(tmp_path / "spool", b"x" * 50_000, index=1)
    with files_of_at_most(20_000), pytest.raises(OutputNotWritten) as caught:
        await FolderSink(tmp_path / "out").deliver(FACTS, (small, big))
    assert caught.value.facts["delivered"] == [str(tmp_path / "out" / "a.png")]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


async def test_a_named_file_that_does_not_fit_leaves_what_was_there(tmp_path: Path) -> None:
    wanted = tmp_path / "out" / "picture.png"
    wanted.parent.mkdir()
    wanted.write_bytes(b"older")
    output = an_output(tmp_path / "spool", b"x" * 50_000)
    with files_of_at_most(20_000), pytest.raises(OutputNotWritten, match="too big"):
        await FileSink(wanted).deliver(FACTS, (output,))
    assert [path.name for path in wanted.parent.iterdir()] == ["picture.png"]
    assert wanted.read_bytes() == b"older"


async def test_a_spool_that_is_full_names_the_output_and_is_removed(tmp_path: Path) -> None:
    wanted = WantedOutput(engine_output=fake_output(b"x" * 50_000), filename="cat.png", subfolder="")
    with files_of_at_most(20_000), pytest.raises(OutputNotWritten, match=r"cat\.png"), open_spool(tmp_path) as spool:
        await collect_outputs([wanted], spool)
    assert not list(tmp_path.iterdir())


@pytest.mark.needs("unshare")
def test_a_really_full_file_system_is_said_by_the_door(tmp_path: Path) -> None:
    words = door_command("--lock", DEMO_LOCK, "--workflow", DEMO_WORKFLOW, "--output", "file", "--out-dir", "full")
    script = f"mount -t tmpfs -o size=256k tmpfs full && {' '.join(words)}; code=$?; ls -A full; exit $code"
    (tmp_path / "full").mkdir()
    done = subprocess.run(
        ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--mount", "sh", "-c", script],
        capture_output=True,
        cwd=tmp_path,
        env=clean_environ(PYTHONPATH=str(ROOT)),
        timeout=120,
        check=False,
    )
    assert done.returncode == 30, done.stderr
    assert b"the disk is full" in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""
