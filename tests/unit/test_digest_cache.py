"""The cache of digests: an unchanged file is hashed once, whichever process hashed it."""

import os
import subprocess
from pathlib import Path

import pytest

from comfypin import digest_cache
from comfypin.digest import Digest
from comfypin.digest_cache import DigestCache, write_receipt

A, B = Digest.of(b"a"), Digest.of(b"b")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_bytes(b"a")
    return path


def new_cache(folder: Path) -> DigestCache:
    return DigestCache(folder / "verified")


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, path: Path) -> None:
    assert new_cache(tmp_path).digest_of(path) == A
    lines = tmp_path / "verified"
    lines.write_text(lines.read_text().replace(A.hex, "ab" * 32))
    assert new_cache(tmp_path).digest_of(path) == Digest("ab" * 32)
    assert new_cache(tmp_path).digest_of(path, read_all_bytes=True) == A
    path.write_bytes(b"other")
    assert new_cache(tmp_path).digest_of(path) == Digest.of(b"other")


def test_a_damaged_cache_is_an_empty_one(tmp_path: Path, path: Path) -> None:
    (tmp_path / "verified").write_text("[oops")
    assert new_cache(tmp_path).digest_of(path) == A


def test_a_digest_is_known_until_the_file_changes(tmp_path: Path, path: Path) -> None:
    cache = new_cache(tmp_path)
    cache.record_digest(path, path.stat(), A)
    assert cache.known_digest(path, path.stat()) == A
    os.utime(path, ns=(0, 0))
    assert cache.known_digest(path, path.stat()) is None


def test_what_another_cache_records_is_seen(tmp_path: Path, path: Path) -> None:
    mine, theirs = new_cache(tmp_path), new_cache(tmp_path)
    assert mine.known_digest(path, path.stat()) is None
    theirs.record_digest(path, path.stat(), A)
    assert mine.known_digest(path, path.stat()) == A


def test_bytes_that_are_not_on_the_disk_are_known_only_on_their_machine(tmp_path: Path, path: Path) -> None:
    new_cache(tmp_path).record_digest(path, path.stat(), A, on_disk=False)
    assert new_cache(tmp_path).known_digest(path, path.stat()) == A
    lines = tmp_path / "verified"
    lines.write_text(lines.read_text().rpartition(",")[0] + ',"elsewhere"]')
    assert new_cache(tmp_path).known_digest(path, path.stat()) is None


def test_a_cache_that_grew_is_made_short_and_keeps_what_is_there(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_cache, "COMPACT_ABOVE_LINES", 10)
    cache, gone = new_cache(tmp_path), tmp_path / "gone"
    gone.write_bytes(b"b")
    cache.record_digest(gone, gone.stat(), B)
    gone.unlink()
    for number in range(30):
        os.utime(path, ns=(number, number))
        cache.record_digest(path, path.stat(), A)
    assert len((tmp_path / "verified").read_bytes().split(b"\n")) < 20
    assert new_cache(tmp_path).known_digest(path, path.stat()) == A
    assert b"gone" not in (tmp_path / "verified").read_bytes()


def test_a_long_cache_that_cannot_be_written_anew_takes_no_digest_away(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a volume that is mounted read-only, or is full."""

    def refuse(_path: Path, _content: bytes) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(digest_cache, "COMPACT_ABOVE_LINES", 3)
    cache = DigestCache(tmp_path / "verified", write_file=refuse)
    for number in range(10):
        os.utime(path, ns=(number, number))
        assert cache.digest_of(path) == A
    assert new_cache(tmp_path).known_digest(path, path.stat()) == A


def a_read_only_cache(folder: Path) -> DigestCache:
    """A cache whose file cannot be written, with a spare one."""
    (folder / "verified").mkdir(exist_ok=True)
    return DigestCache(folder / "verified", spare=DigestCache(folder / "elsewhere" / "notes", root=folder))


def test_what_cannot_be_noted_beside_the_files_is_noted_elsewhere(tmp_path: Path, path: Path) -> None:
    assert a_read_only_cache(tmp_path).digest_of(path) == A
    assert a_read_only_cache(tmp_path).known_digest(path, path.stat()) == A
    path.write_bytes(b"other")
    assert a_read_only_cache(tmp_path).known_digest(path, path.stat()) is None


def test_a_spare_cache_stays_empty_if_it_is_not_needed(tmp_path: Path, path: Path) -> None:
    spare = tmp_path / "elsewhere"
    DigestCache(tmp_path / "verified", spare=DigestCache(spare, root=tmp_path)).digest_of(path)
    assert not spare.exists()


def test_a_receipt_holds_for_a_copy_elsewhere_with_its_time(tmp_path: Path, path: Path) -> None:
    write_receipt(tmp_path / "receipts", path, A, root=tmp_path)
    there = tmp_path / "there"
    there.mkdir()
    for name in ("model", "receipts"):
        subprocess.run(["cp", "-a", tmp_path / name, there], check=True)
    cache, copy = DigestCache(there / "verified", receipts=there / "receipts"), there / "model"
    assert cache.known_digest(copy, copy.stat()) == A
    os.utime(copy, ns=(5, 5))
    assert cache.known_digest(copy, copy.stat()) is None
    assert new_cache(there).known_digest(copy, copy.stat()) is None


def test_a_receipt_does_not_hold_for_another_size_or_path(tmp_path: Path, path: Path) -> None:
    write_receipt(tmp_path / "receipts", path, A, root=tmp_path)
    time_ns = path.stat().st_mtime_ns
    other = tmp_path / "other"
    other.write_bytes(b"a")
    path.write_bytes(b"longer")
    cache = DigestCache(tmp_path / "verified", receipts=tmp_path / "receipts")
    for changed in (path, other):
        os.utime(changed, ns=(time_ns, time_ns))
        assert cache.known_digest(changed, changed.stat()) is None
