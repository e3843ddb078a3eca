"""The search for the pin that changed a picture, with runs that are made up."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from comfypin.cli.lock.bisect import PinSearch
from comfypin.cli.main import main
from comfypin.lock.model import Lock, NodePin, PackagePin, PythonPins, RepoPin
from comfypin.locking.errors import TrialFailed
from comfypin.tools.errors import RepoUnreachable


def a_lock(comfyui: str, node: str, **versions: str) -> Lock:
    packages = tuple(PackagePin(name=name, version=version) for name, version in sorted(versions.items()))
    return Lock(
        version_name="x",
        comfyui=RepoPin(repo="https://x.org/c", commit=comfyui * 40),
        custom_nodes=(NodePin(name="n", repo="https://x.org/n", commit=node * 40),),
        python=PythonPins(version="3.12", targets={"linux-x86_64": {}}, packages=packages),
    )


GOOD = a_lock("1", "1", numpy="1", scipy="1", pillow="1")
BAD = a_lock("2", "2", numpy="2", scipy="2", pillow="2")


class Runs:
    """Gives a picture that depends on one pin; what is in `broken` cannot be realized."""

    def __init__(self, folder: Path, pin: str, broken: str | None = None) -> None:
        self.folder, self.pin, self.broken = folder, pin, broken
        self.count = 0

    def __call__(self, lock: Lock, place: str) -> list[dict[str, object]]:
        assert lock.comfyui is not None
        values = {pin.name: pin.version for pin in lock.python.packages}
        values |= {"comfyui": str(lock.comfyui.commit)[0], "node": str(lock.custom_nodes[0].commit)[0]}
        self.count += 1
        if self.broken and values[self.broken] != values[self.pin]:
            raise TrialFailed(command="realize", place=place, reason="no such mixture", exit_code=1)
        path = self.folder / f"{self.count}.png"
        Image.new("RGB", (4, 4), (int(values[self.pin]), 0, 0)).save(path)
        return [{"node": "1", "uri": str(path)}]


def found(
    folder: Path, runs: Runs, list_commits: Callable[[str, str, str], Sequence[str]] | None = None
) -> tuple[list[str], PinSearch]:
    search = PinSearch(
        run=runs, good_outputs=runs(GOOD, "good"), tolerance=0.0, list_commits=list_commits or (lambda *_: ())
    )
    return [step.part for step in search.find(GOOD, BAD)], search


@pytest.mark.parametrize(
    ("pin", "part"),
    [
        ("comfyui", "ComfyUI"),
        ("node", "the node n"),
        ("numpy", "the package numpy"),
        ("scipy", "the package scipy"),
        ("pillow", "the package pillow"),
    ],
)
def test_the_pin_that_changed_the_picture_is_found(pin: str, part: str, tmp_path: Path) -> None:
    assert found(tmp_path, Runs(tmp_path, pin))[0] == [part]


def test_of_a_node_the_commit_that_changed_the_picture_is_found(tmp_path: Path) -> None:
    def history(repository: str, before: str, after: str) -> list[str]:
        assert (repository, before, after) == ("https://x.org/n", "1" * 40, "2" * 40)
        return ["1a" * 20, "1b" * 20, "2c" * 20, "2" * 40]

    # A commit's first digit decides the picture, so the third of four is the one.
    assert found(tmp_path, Runs(tmp_path, "node"), history)[0] == ["the node n at 2c2c2c2c2c2c"]


def test_without_a_history_the_pin_is_the_answer(tmp_path: Path) -> None:
    def unreachable(repository: str, _before: str, _after: str) -> list[str]:
        raise RepoUnreachable(repo=repository, reason="gone")

    assert found(tmp_path, Runs(tmp_path, "comfyui"), unreachable)[0] == ["ComfyUI"]


def test_mixtures_that_cannot_be_run_are_skipped_and_said(tmp_path: Path) -> None:
    parts, search = found(tmp_path, Runs(tmp_path, "scipy", broken="numpy"))
    assert parts == ["the package numpy", "the package pillow", "the package scipy"]
    assert {trial["result"] for trial in search.trials} == {"same", "failed"}


def test_two_locks_that_give_the_same_have_no_pin_to_find(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    workflow = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    (tmp_path / "w.json").write_text(json.dumps(workflow))
    (tmp_path / "l.json").write_text('{"schema_version": 3, "version_name": "e", "engine": {"kind": "embedded"}}')
    lock = str(tmp_path / "l.json")
    assert main(["lock", "bisect", lock, lock, "--workflow", str(tmp_path / "w.json")]) == 10
    assert "e and e give the same outputs" in capfd.readouterr().err
