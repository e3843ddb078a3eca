"""How one of several packages that overwrite each other is chosen, and what is asked of the resolver then."""

import pytest

from comfypin.lock.model import VariantChoice
from comfypin.lock.overlaps import WheelContents, find_overlaps
from comfypin.lock.requirements import RequirementSet, read_requirements
from comfypin.locking.variants import (
    ChosenVariants,
    apply_variants,
    choose_variants,
    choose_wanted_siblings,
    describe_choices,
    forget_overruled,
    merge_choices,
)

LINUX = "linux-x86_64"
CHOICE = VariantChoice(name="b", imports=("x",), replaces=("a",), platforms=(LINUX,))


def wheel(name: str, *paths: str) -> WheelContents:
    """Its bytes are its own at every path."""
    return WheelContents(name=name, version="1", files=dict.fromkeys(paths, name))


def choose(*wheels: WheelContents, wanted: tuple[str, ...] = ()) -> ChosenVariants:
    return choose_variants(find_overlaps(wheels), wheels, wanted, LINUX)


def needs(text: str) -> RequirementSet:
    return read_requirements("r.txt", origin="the node N", read={"r.txt": text}.get)


@pytest.mark.parametrize(
    "names",
    [
        ("opencv-contrib-python", "opencv-python", "opencv-python-headless"),
        ("opencv-python", "opencv-python-headless"),
        ("opencv-contrib-python", "opencv-contrib-python-headless"),
    ],
)
def test_for_a_server_opencv_has_all_modules_and_needs_no_display(names: tuple[str, ...]) -> None:
    (choice,) = choose(*(wheel(name, "cv2/__init__.py") for name in names)).choices
    assert choice.name == "opencv-contrib-python-headless"
    assert set(choice.replaces) == set(names) - {choice.name}


def test_onnxruntime_for_gpus_runs_on_processors_too() -> None:
    (choice,) = choose(wheel("onnxruntime", "onnxruntime/a.so"), wheel("onnxruntime-gpu", "onnxruntime/a.so")).choices
    assert (choice.name, choice.replaces) == ("onnxruntime-gpu", ("onnxruntime",))


def test_the_only_superset_is_chosen_for_packages_that_nobody_knows() -> None:
    (choice,) = choose(wheel("z-cpu", "z/a.so"), wheel("z-cuda", "z/a.so", "z/cuda.so")).choices
    assert choice == VariantChoice(name="z-cuda", imports=("z",), replaces=("z-cpu",), platforms=(LINUX,))


@pytest.mark.parametrize(
    "wheels",
    [
        (wheel("a", "x/y.py"), wheel("b", "x/y.py")),
        (wheel("a", "x/y.py", "x/a.py"), wheel("b", "x/y.py", "x/b.py")),
        # A package that has a copy of another one inside is not that other one.
        (wheel("a", "six.py", "a/z.py"), wheel("six", "six.py")),
    ],
)
def test_without_one_superset_nobody_can_know(wheels: tuple[WheelContents, ...]) -> None:
    chosen = choose(*wheels)
    assert (chosen.choices, len(chosen.open_overlaps)) == ((), 1)


def test_what_the_user_names_is_chosen() -> None:
    (choice,) = choose(wheel("a", "x/y.py"), wheel("b", "x/y.py"), wanted=("b",)).choices
    assert (choice.name, choice.replaces, choice.overwrites) == ("b", ("a",), ())


def test_a_sibling_that_nobody_asks_for_can_be_named() -> None:
    cv2 = [wheel(name, "cv2/__init__.py") for name in ("opencv-python", "opencv-contrib-python")]
    (choice,) = choose(*cv2, wanted=("opencv-python-headless",)).choices
    assert choice.name == "opencv-python-headless"


def test_a_package_that_brings_more_stays_and_loses_the_files() -> None:
    (choice,) = choose(
        wheel("a", "tests/__init__.py", "a.py"), wheel("b", "tests/__init__.py", "b.py"), wanted=("b",)
    ).choices
    assert (choice.name, choice.replaces, choice.overwrites) == ("b", (), ("a",))


def test_a_sibling_takes_the_place_of_the_only_one() -> None:
    (choice,) = choose_wanted_siblings({"opencv-python", "numpy"}, {"opencv-python-headless"}, LINUX)
    assert choice.replaces == ("opencv-python",)
    assert choose_wanted_siblings({"numpy"}, {"opencv-python-headless"}, LINUX) == ()


def test_a_replaced_requirement_asks_for_the_chosen_one_with_its_versions() -> None:
    asked, overrides = apply_variants(needs("A[gui]>=2,<3 ; os_name == 'posix'\nother\n"), (), [CHOICE], LINUX)
    assert [need.text for need in asked.requirements] == ['b<3,>=2 ; os_name == "posix"', "other", "b"]
    assert asked.requirements[0].origin == "the node N (in place of a)"
    assert overrides == ("a ; python_version < '0'",)


def test_the_file_of_a_replaced_package_is_not_asked_for() -> None:
    text = "https://x.org/a-1-py3-none-any.whl ; os_name == 'nt'\na @ https://x.org/a-2-py3-none-any.whl\n"
    asked, _ = apply_variants(needs(text), (), [CHOICE], LINUX)
    assert [need.text for need in asked.requirements] == ["b ; os_name == 'nt'", "b", "b"]


def test_an_override_of_a_replaced_package_is_one_of_the_chosen() -> None:
    _, overrides = apply_variants(needs("a\n"), ("a==2", "c<3"), [CHOICE], LINUX)
    assert overrides == ("b==2", "c<3", "a ; python_version < '0'")


def test_a_choice_holds_for_its_platforms() -> None:
    assert apply_variants(needs("a\n"), (), [CHOICE], "darwin-aarch64") == (needs("a\n"), ())


def test_a_choice_says_who_asks_for_what() -> None:
    (line,) = describe_choices([CHOICE], needs("a>1\n"))
    assert line == "x: b is locked in place of a (the node N); another one with --variant NAME"
    (line,) = describe_choices([CHOICE], needs("c\n"))
    assert "a (another package asks for it)" in line


def test_choices_of_one_name_are_one() -> None:
    later = VariantChoice(name="b", imports=("y",), replaces=("c",), platforms=("darwin-aarch64",))
    assert merge_choices([CHOICE], [later]) == (
        VariantChoice(name="b", imports=("x", "y"), replaces=("a", "c"), platforms=("darwin-aarch64", LINUX)),
    )


def test_a_name_given_now_overrules_an_earlier_choice() -> None:
    assert forget_overruled([CHOICE], {"a"}) == ()
    assert forget_overruled([CHOICE], {"b", "z"}) == (CHOICE,)
    opencv = VariantChoice(name="opencv-contrib-python-headless", replaces=("opencv-python",))
    assert forget_overruled([opencv], {"opencv-python-headless"}) == ()
