"""The recorder's comparisons, which decide what is new in the next ComfyUI."""

import json
from pathlib import Path

import pytest

from tools.record_comfyui.__main__ import main
from tools.record_comfyui.conversions import compare_recordings, first_difference, workflows
from tools.record_comfyui.server import told


@pytest.mark.parametrize(
    "expected, found, difference",
    [
        ({"1": {"a": [1, 2]}}, {"1": {"a": [1, 2]}}, None),
        ({"1": {"a": 1}}, {"1": {}}, "/1/a is missing"),
        ({"1": {}}, {"1": {"a": 1}}, "/1/a is too much"),
        ({"1": {"a": 1}}, {"1": {"a": 2}}, "/1/a: 1 expected, 2 found"),
        ({"1": {"a": 1}}, {"1": {"a": True}}, "/1/a: 1 expected, true found"),
        ({"1": {"a": 1}}, {"1": {"a": 1.0}}, None),
        (None, {}, ": null expected, {} found"),
    ],
)
def test_a_difference_is_named_by_its_place(expected: object, found: object, difference: str | None) -> None:
    assert first_difference(expected, found) == difference


def case(folder: Path, name: str, api: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ui = {"nodes": [], "links": [], "version": 0.4}
    (folder / f"{name}.json").write_text(json.dumps({"name": name, "ui": ui, "api": api, "page_error": None}))


def test_only_what_both_folders_have_is_compared(tmp_path: Path) -> None:
    case(tmp_path / "new", "same", {})
    case(tmp_path / "new", "other", {"1": {}})
    case(tmp_path / "new", "alone", {})
    case(tmp_path / "old", "same", {})
    case(tmp_path / "old", "other", {})
    found = compare_recordings(tmp_path / "new", tmp_path / "old")
    assert found == {"other": "/1 is too much", "same": None}


def test_a_recording_stands_for_its_workflow(tmp_path: Path) -> None:
    case(tmp_path, "recorded", {})
    (tmp_path / "plain.json").write_text(json.dumps({"nodes": [1]}))
    (tmp_path / "object_info.json").write_text("{}")
    assert [name for name, _ in workflows([tmp_path])] == ["plain", "recorded"]


@pytest.mark.parametrize("api, code", [({}, 0), ({"1": {}}, 1)])
def test_a_difference_is_the_exit_code(api: object, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case(tmp_path / "new" / "cases", "a", {})
    case(tmp_path / "old", "a", api)
    monkeypatch.setattr("sys.argv", ["x", "compare", str(tmp_path / "new"), "--against", str(tmp_path / "old")])
    assert main() == code


def test_nothing_compared_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x", "compare", str(tmp_path), "--against", str(tmp_path)])
    assert main() == 1


def test_an_answer_is_told_without_what_differs_from_run_to_run() -> None:
    history = {
        "status": {"messages": [["execution_start", {}], ["execution_error", {"node_id": "1", "timestamp": 5}]]},
        "outputs": {"2": {"images": [{"filename": "a_00001_.png", "type": "output"}], "text": ["x"]}},
    }
    assert told(200, {"prompt_id": "p", "number": 1, "node_errors": {}}, history) == {
        "status": 200,
        "answer": {"node_errors": {}},
        "ended": "execution_error",
        "failure": {"node_id": "1"},
        "outputs": {"2": {"images": [{"filename": "...", "type": "output"}], "text": ["x"]}},
    }
