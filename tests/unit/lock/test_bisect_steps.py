"""The way from one lock to another, part by part."""

from dataclasses import replace
from typing import Any

import pytest

from comfypin.cli.lock.reproduce import find_first_different
from comfypin.lock.bisect_steps import (
    CommitRange,
    TrialResult,
    bisect_steps,
    commit_steps,
    find_commit_range,
    find_culprits,
    package_steps,
)
from comfypin.lock.diff import diff_locks
from comfypin.lock.model import EngineSpec, Lock, ModelPin, NodePin, PackagePin, PythonPins, RepoPin

BEFORE = Lock(
    version_name="a",
    comfyui=RepoPin(repo="https://x.org/c", commit="1" * 40),
    custom_nodes=(NodePin(name="gone", repo="https://x.org/g"), NodePin(name="kept", repo="https://x.org/k")),
    python=PythonPins(version="3.12", packages=(PackagePin(name="p", version="1"),)),
)
AFTER = replace(
    BEFORE,
    custom_nodes=(NodePin(name="kept", repo="https://x.org/k", commit="2" * 40), NodePin(name="new", repo=None)),
    python=PythonPins(version="3.12", packages=(PackagePin(name="p", version="2"),)),
    models=(ModelPin(name="m", target_path="$MODELS_DIR/m"),),
    engine=EngineSpec(args=("--fast",)),
)


def test_each_part_that_differs_is_a_step_and_the_last_is_the_other_lock() -> None:
    way = bisect_steps(BEFORE, AFTER)
    assert [step.part for step in way] == [
        "the node gone",
        "the node kept",
        "the node new",
        "the Python packages",
        "the model $MODELS_DIR/m",
        "the engine",
    ]
    assert diff_locks(way[-1].lock, AFTER) == ()
    assert all(step.changes for step in way)


def test_the_same_locks_have_no_steps() -> None:
    assert bisect_steps(BEFORE, BEFORE) == ()


@pytest.mark.parametrize("culprit", range(7))
def test_halving_finds_the_step_since_which_it_differs(culprit: int) -> None:
    asked: list[int] = []

    def differs(number: int) -> bool:
        asked.append(number)
        return number >= culprit

    assert find_first_different(7, differs) == culprit
    assert len(asked) <= 3


@pytest.mark.parametrize("culprit", range(7))
@pytest.mark.parametrize("broken", [set(), {0}, {3}, {2, 3, 4}, {0, 1, 2, 3, 4, 5}])
def test_trials_that_fail_are_skipped_and_widen_the_answer(culprit: int, broken: set[int]) -> None:
    asked: list[int] = []

    def run_trial(step: int) -> TrialResult:
        asked.append(step)
        return "failed" if step in broken else "different" if step >= culprit else "same"

    found = find_culprits(7, run_trial)
    assert culprit in found
    assert len(asked) == len(set(asked)), "no trial twice"
    # Everything between the last that is known to be good and the first that is known to differ.
    assert all(step in broken for step in found[:-1])


def packages(*pins: tuple[str, str], targets: tuple[str, ...] = ("linux-x86_64",), python: str = "3.12") -> Lock:
    pinned = tuple(PackagePin(name=name, version=version) for name, version in pins)
    return Lock(
        version_name="x",
        python=PythonPins(version=python, targets={target: {} for target in targets}, packages=pinned),
    )


def test_packages_are_steps_of_their_own_and_those_of_torch_are_one() -> None:
    before = packages(("numpy", "1"), ("torch", "2.7"), ("nvidia-cublas", "1"), ("gone", "1"), ("six", "1"))
    after = packages(("numpy", "2"), ("torch", "2.8"), ("nvidia-cublas", "2"), ("torchvision", "1"), ("six", "1"))
    way = package_steps(before, after)
    assert [step.part for step in way] == ["the package gone", "the package numpy", "torch and its libraries"]
    assert {(pin.name, pin.version) for pin in way[-1].lock.python.packages} == {
        (pin.name, pin.version) for pin in after.python.packages
    }


def test_packages_of_another_python_or_of_several_targets_are_not_mixed() -> None:
    before = packages(("numpy", "1"))
    assert package_steps(before, packages(("numpy", "2"), python="3.13")) == ()
    assert package_steps(before, packages(("numpy", "2"), targets=("linux-x86_64", "linux-aarch64"))) == ()


def node_at(commit: str, **parts: Any) -> Lock:
    return replace(BEFORE, custom_nodes=(NodePin(name="kept", repo="https://x.org/k", commit=commit * 40, **parts),))


def test_the_commits_between_two_pins_of_a_node_are_steps() -> None:
    before, after = node_at("1"), node_at("3")
    commit_range = find_commit_range(before, after)
    assert commit_range == CommitRange(folder="kept", repository="https://x.org/k", before="1" * 40, after="3" * 40)
    way = commit_steps(before, after, commit_range, ["2" * 40, "3" * 40])
    assert [step.part for step in way] == ["the node kept at 222222222222", "the node kept at 333333333333"]
    assert [step.lock.custom_nodes[0].commit for step in way] == ["2" * 40, "3" * 40]
    assert way[-1].lock == after


def test_the_commits_of_comfyui_are_steps_too() -> None:
    after = replace(BEFORE, comfyui=RepoPin(repo="https://x.org/c", commit="3" * 40))
    commit_range = find_commit_range(BEFORE, after)
    assert commit_range is not None
    first, last = commit_steps(BEFORE, after, commit_range, ["2" * 40, "3" * 40])
    assert (first.part, first.lock.comfyui) == ("ComfyUI at 222222222222", replace(after.comfyui, commit="2" * 40))  # type: ignore[type-var]
    assert last.lock == after


@pytest.mark.parametrize(
    "after",
    [
        replace(BEFORE, custom_nodes=()),
        replace(BEFORE, comfyui=RepoPin(repo="https://x.org/fork", commit="3" * 40)),
        replace(BEFORE, comfyui=RepoPin(repo="https://x.org/c", commit="3" * 40, patch="p")),
        node_at("3", install_script="run"),
        BEFORE,
    ],
)
def test_other_differences_have_no_commits_between(after: Lock) -> None:
    assert (
        find_commit_range(replace(BEFORE, custom_nodes=node_at("1").custom_nodes) if after != BEFORE else BEFORE, after)
        is None
    )
