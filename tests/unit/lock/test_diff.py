"""What `lock diff` says of two locks."""

from dataclasses import replace

from comfypin.lock.diff import change_lines, diff_locks
from comfypin.lock.model import Lock, PythonPins, VariantChoice


def lock_with(python: PythonPins) -> Lock:
    return Lock(version_name="demo", python=python)


def test_a_library_that_packages_began_to_need_is_told() -> None:
    before = lock_with(PythonPins(libraries={"libGL.so.1": ("opencv-python",), "libEGL.so.1": ("mediapipe",)}))
    after = lock_with(PythonPins(libraries={"libGL.so.1": ("opencv-python", "pyvista"), "libX11.so.6": ("pyvista",)}))
    assert list(change_lines(diff_locks(before, after))) == [
        "- library libEGL.so.1",
        '~ library libGL.so.1: packages ["opencv-python"] -> ["opencv-python", "pyvista"]',
        "+ library libX11.so.6",
    ]


def test_another_choice_between_variants_is_told() -> None:
    chosen = VariantChoice(name="opencv-python", imports=("cv2",), replaces=("opencv-python-headless",))
    before = lock_with(PythonPins(variants=(chosen,)))
    after = lock_with(PythonPins(variants=(replace(chosen, name="opencv-contrib-python"),)))
    lines = list(change_lines(diff_locks(before, after)))
    assert lines == ["+ variant opencv-contrib-python", "- variant opencv-python"]
    [changed] = diff_locks(before, lock_with(PythonPins(variants=(replace(chosen, imports=("cv2", "other")),))))
    assert (changed.kind, changed.section, changed.name) == ("changed", "variant", "opencv-python")
    assert changed.to_json()["before"] == {"imports": ["cv2"]}


def test_choices_of_two_platforms_are_told_apart() -> None:
    for_linux = VariantChoice(name="onnxruntime-gpu", replaces=("onnxruntime",), platforms=("linux-x86_64",))
    for_windows = replace(for_linux, platforms=("windows-x86_64",))
    before = lock_with(PythonPins(variants=(for_linux, for_windows)))
    changes = diff_locks(before, lock_with(PythonPins(variants=(for_linux,))))
    assert [(change.kind, change.name) for change in changes] == [("removed", "onnxruntime-gpu (windows-x86_64)")]


def test_the_order_of_a_librarys_packages_is_no_difference() -> None:
    before = lock_with(PythonPins(libraries={"libGL.so.1": ("a", "b")}))
    assert diff_locks(before, lock_with(PythonPins(libraries={"libGL.so.1": ("b", "a")}))) == ()
