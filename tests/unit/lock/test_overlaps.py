"""Which packages overwrite each other, by what their RECORDs list."""

from collections.abc import Mapping

import pytest

from comfypin.lock.model import VariantChoice
from comfypin.lock.overlaps import WheelContents, find_overlaps, import_name_of, is_settled, is_superset


def wheel(name: str, files: Mapping[str, str | None]) -> WheelContents:
    return WheelContents(name=name, version="1", files=files)


def test_packages_with_other_bytes_at_one_path_overlap() -> None:
    one, two = wheel("b", {"cv2/__init__.py": "1", "cv2/x.so": "1"}), wheel("a", {"cv2/__init__.py": "2"})
    (overlap,) = find_overlaps([one, two, wheel("c", {"other.py": "1"})])
    assert (overlap.import_name, overlap.packages, overlap.paths) == ("cv2", ("a", "b"), ("cv2/__init__.py",))


@pytest.mark.parametrize(
    "path",
    [
        "LICENSE.txt",  # nobody imports it
        "a-1.dist-info/RECORD",
        "../../../share/man/man1/a.1",
        "../../../include/a.h",
    ],
)
def test_what_is_not_imported_may_be_anybodys(path: str) -> None:
    assert find_overlaps([wheel("a", {path: "1"}), wheel("b", {path: "2"})]) == ()


@pytest.mark.parametrize("path", ["six.py", "tests/__init__.py", "x.pth", "../../../bin/run", "pkg/data.json"])
def test_modules_programs_and_files_of_packages_count(path: str) -> None:
    assert len(find_overlaps([wheel("a", {path: "1"}), wheel("b", {path: "2"})])) == 1


def test_the_same_bytes_are_no_overlap() -> None:
    assert find_overlaps([wheel("a", {"nvidia/__init__.py": "1"}), wheel("b", {"nvidia/__init__.py": "1"})]) == ()


def test_a_file_without_a_digest_is_no_overlap() -> None:
    assert find_overlaps([wheel("a", {"x/y.py": None}), wheel("b", {"x/y.py": "1"})]) == ()


@pytest.mark.parametrize(
    ("path", "name"), [("cv2/a/b.py", "cv2"), ("six.py", "six"), ("x.cpython-312-x86_64-linux-gnu.so", "x")]
)
def test_a_file_belongs_to_what_is_imported(path: str, name: str) -> None:
    assert import_name_of(path) == name


def test_libraries_beside_a_package_are_not_imported() -> None:
    assert wheel("a", {"cv2/cv2.abi3.so": "1", "a.libs/libx-1234.so": "1"}).import_names == {"cv2"}


def test_a_superset_has_all_compiled_modules_of_the_others() -> None:
    large = wheel("gpu", {"o/a.cpython-312.so": "1", "o/cuda.so": "1", "gpu.libs/libq-1.so": "1"})
    small = wheel("cpu", {"o/a.cpython-312.so": "2", "o/new_tool.py": "1", "cpu.libs/libz-2.so": "1"})
    assert (is_superset(large, [small]), is_superset(small, [large])) == (True, False)


def test_without_compiled_modules_those_of_python_count() -> None:
    large, small = wheel("a", {"o/x.py": "1", "o/y.py": "1"}), wheel("b", {"o/x.py": "2"})
    assert (is_superset(large, [small]), is_superset(small, [large])) == (True, False)


def test_a_choice_settles_what_it_names_and_nothing_else() -> None:
    (overlap,) = find_overlaps([wheel("a", {"x/y.py": "1"}), wheel("b", {"x/y.py": "2"})])
    assert is_settled(overlap, [VariantChoice(name="a", overwrites=("b",))])
    assert not is_settled(overlap, [VariantChoice(name="a", overwrites=("c",))])
    assert not is_settled(overlap, [VariantChoice(name="c", overwrites=("a", "b"))])
