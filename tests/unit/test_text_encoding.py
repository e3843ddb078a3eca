"""Text files of every system are read: UTF-8 with and without a mark, and UTF-16."""

import codecs
import json

import pytest

from comfypin.lock.document import load_document
from comfypin.text_encoding import decode_text, is_wide_json
from comfypin.workflow.read_file import read_workflow_bytes

GRAPH = {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "кот"}}}
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32": b"",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_workflow_in_any_encoding_is_read(encoding: str) -> None:
    file_bytes = ENCODINGS[encoding] + json.dumps(GRAPH, ensure_ascii=False).encode(encoding)
    assert read_workflow_bytes(file_bytes, source="x").content == GRAPH


def test_utf_16_without_a_mark_is_told_by_its_first_character() -> None:
    assert read_workflow_bytes(json.dumps(GRAPH).encode("utf-16-le"), source="x").content == GRAPH


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_lock_in_any_encoding_is_read(encoding: str) -> None:
    file_bytes = ENCODINGS[encoding] + json.dumps({"version_name": "кот"}, ensure_ascii=False).encode(encoding)
    assert load_document(file_bytes, where="x") == {"version_name": "кот"}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_text_is_decoded_by_its_mark(encoding: str) -> None:
    assert decode_text(ENCODINGS[encoding] + "a = 1".encode(encoding)) == "a = 1"


@pytest.mark.parametrize("file_bytes", [b"", b"\xff\xfe", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"ID3\0\0\0"])
def test_other_files_are_not_taken_for_json(file_bytes: bytes) -> None:
    assert not is_wide_json(file_bytes)
