"""The way from one lock to another, part by part."""

from dataclasses import replace

import pytest

from comfypin.cli.lock.reproduce import find_first_different
from comfypin.lock.bisect_steps import bisect_steps
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
