"""The cache of digests: an unchanged file is hashed once, whichever process hashed it."""

import os
from pathlib import Path

import pytest

from comfypin import digest_cache
from comfypin.digest import Digest
from comfypin.digest_cache import DigestCache

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
