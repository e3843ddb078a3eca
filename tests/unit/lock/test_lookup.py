"""Looking a lock up by path, by name, by the environment."""

from pathlib import Path

import pytest

from comfypin.lock.errors import LockNameEmpty, LockNotFound, LockNotNamed
from comfypin.lock.lookup import find_lock, release_folders


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, ...]:
    first, second = tmp_path / "image", tmp_path / "checkout"
    for folder, names in ((first, ["wan22"]), (second, ["wan22", "demo"])):
        folder.mkdir()
        for name in names:
            (folder / f"comfy-{name}.lock.json").write_text("{}")
    return first, second, tmp_path / "absent"


def test_a_path_is_taken_as_it_is(folders: tuple[Path, ...]) -> None:
    path = folders[1] / "comfy-demo.lock.json"
    assert find_lock(str(path), folders=folders) == path


def test_a_release_is_found_by_name_in_the_first_folder_that_has_it(folders: tuple[Path, ...]) -> None:
    assert find_lock("wan22", folders=folders) == folders[0] / "comfy-wan22.lock.json"
    assert find_lock("demo", folders=folders) == folders[1] / "comfy-demo.lock.json"


def test_the_flag_wins_over_lock_path_and_that_over_the_name(folders: tuple[Path, ...]) -> None:
    path = folders[1] / "comfy-demo.lock.json"
    assert find_lock("wan22", lock_path=path, version_name="demo", folders=folders).parent == folders[0]
    assert find_lock(None, lock_path=path, version_name="wan22", folders=folders) == path
    assert find_lock(None, version_name="demo", folders=folders) == path


def test_a_name_that_is_nowhere_lists_the_places_and_near_names(folders: tuple[Path, ...]) -> None:
    with pytest.raises(LockNotFound) as caught:
        find_lock("wan21", folders=folders)
    assert str(folders[0] / "comfy-wan21.lock.json") in caught.value.message
    assert "Did you mean wan22?" in caught.value.message


def test_a_folder_that_is_searched_under_two_names_is_told_once(
    folders: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders[1].parent)
    with pytest.raises(LockNotFound) as caught:
        find_lock("nowhere", folders=(Path(folders[1].name), folders[1]))
    assert caught.value.message.count("comfy-nowhere.lock.json") == 1


def test_a_path_that_is_not_there_names_near_files(folders: tuple[Path, ...]) -> None:
    with pytest.raises(LockNotFound, match=r"comfy-demo\.lock\.json\?"):
        find_lock(str(folders[1] / "comfy-demos.lock.json"), folders=folders)


@pytest.mark.parametrize("name", ["../secret", "a/b", "", "-x", "a\0b", "x" * 5000, ".."])
def test_a_release_name_cannot_walk_the_disk(name: str, folders: tuple[Path, ...]) -> None:
    with pytest.raises(LockNotFound):
        find_lock(None, version_name=name, folders=folders)
    with pytest.raises(LockNotFound if name else LockNameEmpty):
        find_lock(name, folders=folders)


def test_without_any_name_the_releases_that_are_there_are_said(folders: tuple[Path, ...]) -> None:
    with pytest.raises(LockNotNamed, match="wan22, demo"):
        find_lock(None, folders=folders)


def test_the_image_the_checkout_and_the_package_are_searched() -> None:
    image, checkout, package = release_folders()
    assert (str(image), str(checkout)) == ("/app/lockfiles", "lockfiles")
    # Tests run from a checkout, whose own folder takes the place of the package's data.
    assert (package / "comfy-demo.lock.json").is_file()


def test_the_demos_lock_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_lock("demo").name == "comfy-demo.lock.json"


def test_a_name_that_nothing_is_near_lists_the_releases(folders: tuple[Path, ...]) -> None:
    with pytest.raises(
        LockNotFound, match=r"The releases here are wan22, demo; name one, or give the path of a file\."
    ):
        find_lock("zzzzzz", folders=folders)


def test_what_is_no_name_says_what_a_name_is(folders: tuple[Path, ...]) -> None:
    with pytest.raises(LockNotFound, match=r"^There is no lock '-x'\. A release's name is letters, digits"):
        find_lock(None, version_name="-x", folders=folders)


def test_a_path_that_nothing_is_near_says_to_look_again(folders: tuple[Path, ...]) -> None:
    with pytest.raises(LockNotFound, match=r"Check the path\.$"):
        find_lock("nowhere/at-all.json", folders=folders)
