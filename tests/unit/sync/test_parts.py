"""The pure parts of the syncer: settling, lanes, pace."""

import os
from pathlib import Path

import pytest

from comfypin.sync.debounce import AFTER_CLOSE_S, Debouncer
from comfypin.sync.folder_scan import Fingerprint, is_being_written, read_fingerprint
from comfypin.sync.rate_limit import RateLimiter
from comfypin.sync.remove_delivered import remove_unchanged
from comfypin.sync.upload_order import LARGE_BYTES, UploadQueue

OLD, NEW = Fingerprint(1, 1, 1), Fingerprint(2, 2, 1)


def test_a_closed_file_is_looked_at_at_once() -> None:
    settling = Debouncer(settle_s=5)
    settling.note_closed("a", 100.0)
    assert settling.due_paths(100.0) == []
    assert settling.due_paths(100.0 + AFTER_CLOSE_S) == ["a"]
    assert settling.has_settled("a", OLD, 100.1)


def test_a_found_file_must_stay_the_same_for_the_settle_time() -> None:
    settling = Debouncer(settle_s=5)
    settling.note_found("a", OLD, 100.0)
    assert settling.due_paths(104.9) == []
    assert settling.due_paths(105.0) == ["a"]
    assert not settling.has_settled("a", NEW, 105.0)
    settling.wait_longer("a", NEW, 105.0)
    assert settling.due_paths(109.9) == []
    assert settling.due_paths(110.0) == ["a"]
    assert settling.has_settled("a", NEW, 110.0)


def test_a_close_weighs_more_than_a_scan() -> None:
    settling = Debouncer(settle_s=5)
    settling.note_closed("a", 100.0)
    settling.note_found("a", OLD, 100.0)
    assert settling.due_paths(101.0) == ["a"]


def test_a_scan_that_sees_the_same_again_does_not_begin_the_wait_anew() -> None:
    settling = Debouncer(settle_s=5)
    settling.note_found("a", OLD, 100.0)
    settling.note_found("a", OLD, 104.0)
    assert settling.due_paths(105.0) == ["a"]


def test_large_files_leave_places_for_small_ones() -> None:
    lanes = UploadQueue(4)
    for index in range(4):
        lanes.add_upload(f"video{index}", LARGE_BYTES, due_s=0)
    assert [lanes.take_next(1) for _ in range(3)] == ["video0", "video1", None]
    lanes.add_upload("picture", 1, due_s=0)
    assert lanes.take_next(1) == "picture"
    lanes.release_path("video0")
    assert lanes.take_next(1) == "video2"


def test_a_debt_waits_for_its_time() -> None:
    lanes = UploadQueue(1)
    lanes.add_upload("a", 1, due_s=10)
    assert lanes.take_next(9.9) is None
    assert lanes.next_due_s() == 10
    assert lanes.take_next(10) == "a"


def test_the_pace_is_held_over_many_pieces() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    pace = RateLimiter(1000, clock=lambda: now[0], sleep=sleep)
    for _ in range(100):
        pace(100)
    assert now[0] == pytest.approx(10, rel=0.05)


def test_a_file_that_is_open_for_writing_is_seen_as_such(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.write(b"half")
        file.flush()
        assert is_being_written(str(tmp_path), "a")
    assert not is_being_written(str(tmp_path), "a")


def test_only_the_delivered_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"delivered")
    mark = read_fingerprint(str(tmp_path), "a")
    assert mark is not None
    (tmp_path / "a").write_bytes(b"newer and longer")
    remove_unchanged(str(tmp_path), "a", mark)
    assert (tmp_path / "a").read_bytes() == b"newer and longer"
    mark = read_fingerprint(str(tmp_path), "a")
    assert mark is not None
    assert remove_unchanged(str(tmp_path), "a", mark) is None
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_file_that_somebody_writes_is_kept(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb"):
        mark = read_fingerprint(str(tmp_path), "a")
        assert mark is not None
        assert remove_unchanged(str(tmp_path), "a", mark) == "a program has it open for writing"
    assert (tmp_path / "a").exists()


def test_a_link_has_no_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/etc/passwd")
    assert read_fingerprint(str(tmp_path), "out") is None
