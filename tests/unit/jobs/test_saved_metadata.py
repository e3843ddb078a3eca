"""The mark of a submission goes out of metadata, and the file keeps its size and stays readable."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from comfypin.jobs import saved_metadata
from comfypin.jobs.saved_metadata import clear_mark

MARK = "cp0123456789abcdef_"


def prompt(prefix: str) -> dict[str, Any]:
    return {"9": {"class_type": "PackSave", "inputs": {"filename_prefix": prefix, "images": ["8", 0]}}}


def png(text: str, *, name: str = "prompt", compressed: bool = False) -> bytes:
    facts, file = PngImagePlugin.PngInfo(), io.BytesIO()
    facts.add_text(name, text, zip=compressed)
    Image.new("RGB", (40, 30), (1, 2, 3)).save(file, "PNG", pnginfo=facts)
    return file.getvalue()


@pytest.mark.parametrize("prefix", ["{}cat", "me/too/{}cat", "мой/{}кот", "{}", "{}123"])
def test_a_picture_holds_the_prefix_of_its_user(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(json.dumps(prompt(prefix.format(MARK)))))
    size = path.stat().st_size
    assert clear_mark(path, MARK)
    with Image.open(path) as picture:
        picture.load()  # the checksums are looked at
        assert json.loads(picture.info["prompt"]) == prompt(prefix.format(""))
    assert path.stat().st_size == size


def test_two_submissions_give_the_same_bytes(tmp_path: Path) -> None:
    for name, mark in (("a", MARK), ("b", "cpfedcba9876543210_")):
        (tmp_path / name).write_bytes(png(json.dumps(prompt(f"{mark}cat"))))
        clear_mark(tmp_path / name, mark)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_json_within_json_is_cleared(tmp_path: Path, levels: int) -> None:
    """As video nodes write it: the prompt is a text in a JSON object, or in one within that."""
    value: Any = prompt(f"{MARK}cat")
    for _ in range(levels):
        value = {"comment": json.dumps(value)}
    path = tmp_path / "a.mp4"
    path.write_bytes(b"\0\0\0 ftypisom" + os.urandom(9 << 20).replace(b"cp", b"..") + json.dumps(value).encode())
    size = path.stat().st_size
    assert clear_mark(path, MARK)
    assert path.stat().st_size == size
    read = json.loads(path.read_bytes()[12 + (9 << 20) :])
    for _ in range(levels):
        read = json.loads(read["comment"])
    assert read == prompt("cat")


def test_nodes_that_we_added_keep_their_ids(tmp_path: Path) -> None:
    joined = {f"{MARK}0": {"inputs": {"string_a": MARK}}, "9": {"inputs": {"filename_prefix": [f"{MARK}0", 0]}}}
    path = tmp_path / "a.png"
    path.write_bytes(png(json.dumps(joined)))
    assert not clear_mark(path, MARK)
    with Image.open(path) as picture:
        picture.load()
        assert json.loads(picture.info["prompt"]) == joined | {f"{MARK}0": {"inputs": {"string_a": ""}}}


@pytest.mark.parametrize("head", [b"OggS", b"\x1aE\xdf\xa3", b"PK\x03\x04", b"another"])
def test_a_format_with_other_checksums_is_left_alone_and_said(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "a"
    content = head + json.dumps(prompt(f"{MARK}cat")).encode()
    path.write_bytes(content)
    assert not clear_mark(path, MARK)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no mark", b"\x89PNG\r\n\x1a\n\0\0", png("{}")])
def test_what_holds_no_mark_does_not_change(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    before = path.stat()
    assert clear_mark(path, MARK)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, before.st_mtime_ns)


def test_a_file_with_a_second_name_does_not_change(tmp_path: Path) -> None:
    original, saved = tmp_path / "model", tmp_path / f"{MARK}a"
    original.write_text(json.dumps(prompt(f"{MARK}cat")))
    saved.hardlink_to(original)
    content = original.read_bytes()
    clear_mark(saved, MARK)
    assert original.read_bytes() == content


def test_a_file_that_cannot_be_written_keeps_its_mark_and_the_job_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(json.dumps(prompt(f"{MARK}cat"))))
    before, opened = path.read_bytes(), Path.open

    def open_to_read(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if "+" in mode:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", open_to_read)
    assert not clear_mark(path, MARK)
    assert path.read_bytes() == before


def test_a_node_that_still_writes_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a video node that fills in its header at the end."""
    path = tmp_path / "a.mp4"
    text = json.dumps(prompt(f"{MARK}cat"))
    path.write_bytes(b"\0\0\0\0ftypisom" + text.encode() + b"tail")
    shift = saved_metadata._shift_texts

    def shift_while_another_writes(data: bytes, mark: bytes) -> bytes:
        with path.open("r+b") as file:
            file.write(b"\0\0\0 ")
            file.seek(-4, os.SEEK_END)
            file.write(b"TAIL")
        return shift(data, mark)

    monkeypatch.setattr(saved_metadata, "_shift_texts", shift_while_another_writes)
    assert clear_mark(path, MARK)
    written = path.read_bytes()
    assert written.startswith(b"\0\0\0 ftypisom")
    assert written.endswith(b"TAIL")
    assert json.loads(written[12:-4]) == prompt("cat")


def test_a_cut_png_is_not_made_worse(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cut = png(json.dumps(prompt(f"{MARK}cat")))[:-30]
    path.write_bytes(cut[: cut.index(b"filename") + 60])
    before = path.read_bytes()
    clear_mark(path, MARK)
    assert path.read_bytes() == before
