"""Files that are read ahead: whole, in their order, within a budget, and not twice."""

import os
from pathlib import Path

import pytest

from comfypin.models.page_cache import PageCacheReader, ReadAhead


def read(*files: Path, budget_bytes: int = 1 << 40) -> ReadAhead:
    reader = PageCacheReader(files, budget_bytes=budget_bytes).start()
    assert reader.wait(60)
    return reader.progress


def a_file(folder: Path, name: str, *, size_bytes: int = 9_000_000) -> Path:
    """A file that is on the disk, and no longer in memory."""
    path = folder / name
    path.write_bytes(os.urandom(size_bytes))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


def test_every_byte_is_read_once(tmp_path: Path) -> None:
    progress = read(a_file(tmp_path, "a"), a_file(tmp_path, "b", size_bytes=1))
    assert progress.read_bytes + progress.cached_bytes == 9_000_001


@pytest.mark.skipif(os.geteuid() != 0, reason="others may not be told what is in memory")
def test_what_is_in_memory_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "warm"
    path.write_bytes(bytes(9_000_000))
    assert path.read_bytes() == bytes(9_000_000)
    progress = read(path)
    assert progress == ReadAhead(read_bytes=0, cached_bytes=9_000_000, seconds=progress.seconds)


def test_the_budget_ends_it_in_the_middle_of_a_file(tmp_path: Path) -> None:
    progress = read(a_file(tmp_path, "a"), a_file(tmp_path, "b"), budget_bytes=10_000_000)
    assert progress.read_bytes + progress.cached_bytes == 10_000_000


def test_a_file_that_is_not_there_keeps_no_other_from_being_read(tmp_path: Path) -> None:
    progress = read(tmp_path / "missing", a_file(tmp_path, "a"))
    assert progress.read_bytes + progress.cached_bytes == 9_000_000


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    path = a_file(tmp_path, "a")
    progress = read(path, path)
    assert progress.read_bytes + progress.cached_bytes == 9_000_000


def test_a_reader_that_is_stopped_reads_no_further(tmp_path: Path) -> None:
    reader = PageCacheReader([a_file(tmp_path, "a")], budget_bytes=1 << 40)
    reader.stop()
    assert reader.start().wait(60)
    assert reader.progress.read_bytes == 0
