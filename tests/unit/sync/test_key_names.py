"""Which files are taken, and the key each one gets."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfypin.storage.object_keys import require_valid_key
from comfypin.sync.key_names import FileFilter, object_key, revision_key


@pytest.mark.parametrize("path", ["a.png", "sub/a.png", "sub/ünï/猫.webp", "100%.png", "a b.png"])
def test_an_ordinary_path_is_its_own_key(path: str) -> None:
    assert object_key(path) == path


def test_names_that_stores_refuse_get_a_key_of_their_own() -> None:
    assert object_key("a\nb.png") == "a%0Ab.png"
    assert object_key(os.fsdecode(b"caf\xe9.png")) == "caf%E9.png"
    assert object_key(os.fsdecode(b"5% caf\xe9.png")) == "5%25 caf%E9.png"


names = st.binary(min_size=1, max_size=40).filter(lambda raw: b"/" not in raw and b"\0" not in raw)


@given(st.lists(names, min_size=2, max_size=2, unique=True))
def test_two_names_that_are_no_text_never_meet_in_one_key(raw: list[bytes]) -> None:
    first, second = (os.fsdecode(b"\x01" + name) for name in raw)
    assert object_key(first) != object_key(second)


@given(st.lists(names.filter(lambda raw: raw not in (b".", b"..")), min_size=1, max_size=60))
def test_every_path_has_a_key_that_stores_take(parts: list[bytes]) -> None:
    require_valid_key(object_key("/".join(map(os.fsdecode, parts))))


def test_a_path_longer_than_keys_keeps_its_suffix() -> None:
    key = object_key("/".join(["folder" * 20] * 20) + "/picture.png")
    assert len(key.encode()) <= 900
    assert key.endswith(".png")


@pytest.mark.parametrize(("revision", "key"), [(1, "a/b.png"), (2, "a/b.r2.png"), (11, "a/b.r11.png")])
def test_later_revisions_are_numbered_before_the_suffix(revision: int, key: str) -> None:
    assert revision_key("a/b.png", revision) == key


@pytest.mark.parametrize(
    ("path", "include", "exclude", "taken"),
    [
        ("a.png", (), (), True),
        ("sub/a.png", ("*.png",), (), True),
        ("sub/a.txt", ("*.png",), (), False),
        ("sub/a.png", ("sub/*",), (), True),
        ("other/a.png", ("sub/*",), (), False),
        ("sub/a.png", (), ("sub/*",), False),
        ("a.png", ("*.png",), ("a.*",), False),
        ("a.png.part", (), (), False),
        ("sub/.a.png.tmp", (), (), False),
    ],
)
def test_what_is_taken(path: str, include: tuple[str, ...], exclude: tuple[str, ...], taken: bool) -> None:
    assert FileFilter(include=include, exclude=exclude).takes_path(path) is taken
