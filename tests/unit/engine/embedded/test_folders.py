import time
from pathlib import Path

import pytest

from comfypin.engine.embedded.folders import EngineFolders, OutsideFolder, find_save_location, split_annotation


def test_the_next_number_follows_the_highest_there_is(tmp_path: Path) -> None:
    for name in ("a_00001_.png", "a_00007_.png", "ab_00099_.png", "a_x_.png", "a.png"):
        (tmp_path / name).touch()
    assert find_save_location(tmp_path, "a", width=1, height=1).counter == 8


def test_a_prefix_may_name_folders_and_values(tmp_path: Path) -> None:
    place = find_save_location(tmp_path, "%year%/%width%x%height%", width=3, height=4)
    assert (place.subfolder, place.stem, place.counter) == (str(time.localtime().tm_year), "3x4", 1)
    assert place.folder.is_dir()


@pytest.mark.parametrize("prefix", ["../a", "/a/b", "a/../../b", "a/../../../b"])
def test_a_prefix_may_not_leave_the_folder(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(OutsideFolder, match="outside the output folder"):
        find_save_location(tmp_path / "out", prefix, width=1, height=1)


def test_an_annotation_names_the_folder() -> None:
    assert split_annotation("a b.png [temp]") == ("a b.png", "temp")
    assert split_annotation("a [other]") == ("a [other]", None)


def test_only_pictures_are_offered_to_load_nodes(tmp_path: Path) -> None:
    for name in ("b.png", "a.webp", "c.txt", "d"):
        (tmp_path / name).touch()
    folders = EngineFolders(input=tmp_path, output=tmp_path, temp=tmp_path)
    assert folders.list_pictures() == ["a.webp", "b.png"]
    assert folders.list_files() == ["a.webp", "b.png", "c.txt", "d"]
