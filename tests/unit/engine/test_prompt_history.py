"""Histories, as recorded and as nobody should write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from comfypin.engine.prompt_history import HistoryEntry, Interrupted, Raised, Succeeded, parse_history


def recorded(http_recordings: Path, name: str) -> HistoryEntry:
    body = json.loads((http_recordings / f"{name}.json").read_text())["body"]
    [prompt_id] = body
    entry = parse_history(body, prompt_id)
    assert isinstance(entry, HistoryEntry)
    return entry


def entry(outputs: Any = None, status: Any = None) -> HistoryEntry:
    parsed = parse_history({"p": {"outputs": outputs or {}, "status": status}}, "p")
    assert isinstance(parsed, HistoryEntry)
    return parsed


def test_success_with_its_file(http_recordings: Path) -> None:
    found = recorded(http_recordings, "history_success")
    assert found.verdict == Succeeded()
    assert [(file.node_id, file.filename, file.folder) for file in found.files] == [("2", "t_00001_.png", "output")]


def test_a_preview_is_in_the_temp_folder(http_recordings: Path) -> None:
    assert [file.folder for file in recorded(http_recordings, "history_blend_mask_preview").files] == ["output", "temp"]


def test_cached_nodes(http_recordings: Path) -> None:
    assert recorded(http_recordings, "history_success_fully_cached").cached == {"1", "2"}


def test_a_failure_with_outputs_is_a_failure_without_inputs(http_recordings: Path) -> None:
    found = recorded(http_recordings, "history_error_with_cached_output")
    assert isinstance(found.verdict, Raised)
    assert (found.verdict.node_id, found.verdict.class_type) == ("5", "LoadImage")
    assert found.verdict.exception_type == "PIL.UnidentifiedImageError"
    assert found.verdict.traceback


def test_an_interrupt_has_status_error_and_is_an_interrupt(http_recordings: Path) -> None:
    assert recorded(http_recordings, "history_interrupted").verdict == Interrupted("12")


def test_a_success_after_a_failure_is_a_success(http_recordings: Path) -> None:
    assert recorded(http_recordings, "history_stale_error_status_after_cached_run").verdict == Succeeded()


@pytest.mark.parametrize(
    "status, verdict",
    [
        (None, Succeeded(certain=False)),
        ({"status_str": "success", "messages": []}, Succeeded()),
        ({"status_str": "cancelled"}, Interrupted()),
        ({"status_str": "weird", "messages": "x"}, Succeeded(certain=False)),
    ],
)
def test_without_messages_the_word_must_do(status: Any, verdict: Any) -> None:
    assert entry(status=status).verdict == verdict


def test_an_error_without_messages_is_a_failure() -> None:
    assert isinstance(entry(status={"status_str": "error"}).verdict, Raised)


def test_a_file_that_two_nodes_report_is_one() -> None:
    file = {"filename": "a.png", "subfolder": "", "type": "output"}
    assert len(entry({"1": {"images": [file, file]}, "2": {"gifs": [file]}}).files) == 1


def test_windows_subfolders_are_subfolders() -> None:
    assert entry({"1": {"images": [{"filename": "a.png", "subfolder": "x\\y"}]}}).files[0].subfolder == "x/y"


@pytest.mark.parametrize("reported", [None, [], "x", {"images": None}, {"images": [None, True, 1.5]}, {"images": [{}]}])
def test_odd_reports_are_no_files(reported: Any) -> None:
    assert entry({"1": reported}).files == ()


def test_texts_are_kept_by_node() -> None:
    assert entry({"1": {"text": ["a", "", "b"]}, "2": {"string": "c"}}).texts == {"1": ("a", "b"), "2": ("c",)}


def test_unknown_is_not_the_same_as_no_history() -> None:
    assert parse_history({}, "p") == "unknown"
    assert parse_history([], "p") is None
    assert parse_history({"p": "x"}, "p") is None


def test_every_recorded_history_is_read(http_recordings: Path) -> None:
    for file in (http_recordings).glob("history_*.json"):
        body = json.loads(file.read_text()).get("body")
        for prompt_id in body if isinstance(body, dict) else ():
            if not prompt_id.startswith("_"):
                assert isinstance(parse_history(body, prompt_id), HistoryEntry), file.name
