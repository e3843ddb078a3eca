"""Names of outputs are safe in any folder and keep the user's words."""

from itertools import islice
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfypin.outputs.file_names import candidate_names, safe_name


@pytest.mark.parametrize(
    ("filename", "subfolder", "expected"),
    [
        ("a.png", "", "a.png"),
        ("a.png", "2025-01-01/cats", "2025-01-01/cats/a.png"),
        ("кот.png", "", "кот.png"),
        ("../../etc/passwd", "", "etc/passwd"),
        ("a.png", "/absolute", "absolute/a.png"),
        ("a.png", "..\\..\\up", "up/a.png"),
        ("a\x00\n.png", "", "a.png"),
        ("..", "", "output"),
        ("", "", "output"),
        ("  ", ".", "output"),
        ("bad\ud800.png", "", "bad.png"),
    ],
)
def test_a_name_stays_inside_its_folder(filename: str, subfolder: str, expected: str) -> None:
    assert str(safe_name(filename, subfolder)) == expected


def test_a_name_that_no_file_system_takes_is_shortened_and_keeps_its_suffix() -> None:
    name = safe_name("я" * 400 + ".png").name
    assert len(name.encode()) <= 200
    assert name.endswith(".png")


@given(st.text(), st.text())
def test_no_name_whatever_leads_out_of_its_folder(filename: str, subfolder: str) -> None:
    name = safe_name(filename, subfolder)
    assert not name.is_absolute()
    assert name.parts
    assert all(part not in ("..", ".", "") and len(part.encode()) <= 200 for part in name.parts)


def test_comfyuis_own_counter_counts_on() -> None:
    names = islice(candidate_names(PurePosixPath("x/cat_00009_.png")), 3)
    assert [str(name) for name in names] == ["x/cat_00009_.png", "x/cat_00010_.png", "x/cat_00011_.png"]


def test_any_other_name_gets_a_counter() -> None:
    assert [str(name) for name in islice(candidate_names(PurePosixPath("cat.tar.gz")), 2)] == [
        "cat.tar.gz",
        "cat-2.tar.gz",
    ]
    assert [str(name) for name in islice(candidate_names(PurePosixPath("cat")), 3)] == ["cat", "cat-2", "cat-3"]
