"""What a job's result becomes on this machine."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from comfypin.client.errors import OutputNotFetched
from comfypin.client.result_outputs import outputs_of_comfy_job, outputs_of_result, progress_of
from comfypin.client.save_outputs import SavedOutput, save_outputs
from comfypin.http.client import HttpClient


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def saved_from(result: dict[str, Any], folder: Path) -> list[SavedOutput]:
    return save_outputs(outputs_of_result(result), folder, HttpClient())


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("gcs_url", "gs://bucket/a.png"),
        ("s3_url", "s3://bucket/a.png"),
        ("file", "/out/a.png"),
        # Old clients of worker-comfyui name no type.
        ("base64", "s3://bucket/a.png"),
    ],
)
def test_an_output_that_was_delivered_elsewhere_is_told_by_its_address(tmp_path: Path, kind: str, address: str) -> None:
    (saved,) = saved_from({"images": [{"filename": "a.png", "type": kind, "data": address}]}, tmp_path)
    assert (saved.path, saved.uri) == (None, address)


def test_two_outputs_of_one_name_are_two_files(tmp_path: Path) -> None:
    header = b"x" * 100
    images = [{"filename": "a.png", "type": "base64", "data": encoded(header + end)} for end in (b"1", b"2")]
    saved = saved_from({"images": images}, tmp_path)
    assert [item.path.name for item in saved if item.path] == ["a.png", "a-2.png"]


def test_an_output_in_two_lists_is_one_file(tmp_path: Path) -> None:
    video = {"filename": "a.mp4", "type": "base64", "data": encoded(b"v")}
    assert len(saved_from({"videos": [video], "images": [video]}, tmp_path)) == 1


def test_an_output_that_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    entry = {"filename": "a.png", "data": encoded(b"abc"), "sha256": hashlib.sha256(b"abc").hexdigest()}
    for _ in range(2):
        saved_from({"images": [entry]}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["../../x.png", "/etc/x.png", "a/../../x.png", "..", "\x00x"])
def test_a_name_that_leads_out_of_the_folder_is_refused_and_the_others_are_saved(tmp_path: Path, name: str) -> None:
    images = [{"filename": name, "data": encoded(b"1")}, {"filename": "good.png", "data": encoded(b"2")}]
    with pytest.raises(OutputNotFetched, match="leave"):
        saved_from({"images": images}, tmp_path / "out")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "out" / "good.png"]


@pytest.mark.parametrize("name", ["..\\..\\x.png", "a/b.png", "", " "])
def test_odd_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    (saved,) = saved_from({"images": [{"filename": name, "data": encoded(b"abc")}]}, tmp_path / "out")
    assert saved.path is not None
    assert saved.path.resolve().is_relative_to(tmp_path / "out")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [saved.path]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"data": "no base64!"}, "base64"),
        ({"data": encoded(b"abc"), "size_bytes": 4}, "announced"),
        ({"data": encoded(b"abc"), "sha256": "0" * 64}, "sha256"),
    ],
)
def test_bytes_that_are_not_what_was_said_leave_no_file(tmp_path: Path, entry: dict[str, Any], reason: str) -> None:
    with pytest.raises(OutputNotFetched, match=reason):
        saved_from({"images": [{"filename": "a.png", **entry}]}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_folder_is_not_followed_out_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "sub").symlink_to(tmp_path)
    with pytest.raises(OutputNotFetched):
        saved_from({"images": [{"filename": "a.png", "subfolder": "sub", "data": encoded(b"abc")}]}, folder)


@pytest.mark.parametrize("result", [{}, {"images": None}, {"images": "x"}, {"images": [1, None, "x"]}, {"outputs": {}}])
def test_a_result_of_another_form_has_no_outputs(result: dict[str, Any]) -> None:
    assert outputs_of_result(result) == ()
    assert outputs_of_comfy_job(result) == ()


@pytest.mark.parametrize(
    ("told", "fraction"),
    [
        ({"fraction": 0.5}, 0.5),
        ({"progress": 1}, 1.0),
        ({"value": 7}, 1.0),
        ({"progress": "half"}, None),
        ({"progress": float("nan")}, None),
        ({"progress": 10**400}, None),
        ("working", None),
        (None, None),
    ],
)
def test_progress_is_read_in_every_form_that_servers_have(told: object, fraction: float | None) -> None:
    progress = progress_of(told)
    assert (None if progress is None else progress.fraction) == fraction
