"""Folders that others use now."""

from pathlib import Path

from comfypin.folder_use import alone_with, using


def test_a_folder_may_be_used_by_many_and_removed_by_none_of_them(tmp_path: Path) -> None:
    with using(tmp_path), using(tmp_path), alone_with(tmp_path) as is_alone:
        assert not is_alone
    with alone_with(tmp_path) as is_alone:
        assert is_alone


def test_a_folder_that_was_moved_is_still_used(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    with using(folder), alone_with(folder.rename(tmp_path / "b")) as is_alone:
        assert not is_alone


def test_a_folder_that_is_not_there_is_nobodys(tmp_path: Path) -> None:
    with using(tmp_path / "none"), alone_with(tmp_path / "none") as is_alone:
        assert is_alone
