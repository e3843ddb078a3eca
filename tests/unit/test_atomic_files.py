"""Files are whole or absent, and names never leave their root."""

from pathlib import Path

import pytest

from comfypin.atomic_files import atomic_file, contained_path, free_bytes, write_atomically


def test_a_written_file_has_all_its_bytes_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "a.bin", b"bytes")
    assert (tmp_path / "deep" / "a.bin").read_bytes() == b"bytes"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.bin"]


def test_a_failure_half_way_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_bytes(b"old")

    def write_half() -> None:
        with atomic_file(target) as file:
            file.write(b"half of the new")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert target.read_bytes() == b"old"
    assert [path.name for path in (tmp_path).iterdir()] == ["a.txt"]


def test_the_mode_of_a_secret_file_is_kept(tmp_path: Path) -> None:
    write_atomically(tmp_path / "token", b"s3cret", mode=0o600)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_a_very_long_name_still_gets_a_temporary_neighbour(tmp_path: Path) -> None:
    name = "n" * 250
    write_atomically(tmp_path / name, b"x")
    assert (tmp_path / name).read_bytes() == b"x"


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b", "a\0b", ".", ""])
def test_a_name_that_leaves_its_root_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError):
        contained_path(tmp_path, name)


def test_a_name_that_leaves_its_root_through_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "way-out").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="link"):
        contained_path(tmp_path / "root", "way-out/x")


def test_an_ordinary_name_is_joined(tmp_path: Path) -> None:
    assert contained_path(tmp_path, "vae/x.safetensors") == tmp_path / "vae" / "x.safetensors"


def test_free_space_is_told_for_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "yet") > 0
