"""The workflow inside what ComfyUI saved: files of ComfyUI 0.33's own save nodes, and shapes that other writers use."""

import contextlib
import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from comfypin.workflow.errors import WorkflowUnreadable
from comfypin.workflow.load import load_workflow
from comfypin.workflow.read_file import read_workflow_bytes
from tests.support.node_list import CATALOGUE
from tests.support.ui_graphs import node, ui

# Each file is what ComfyUI 0.33.0 saved of one prompt with many save nodes; titles in it hold `{prompt: ...}`.
SAVED = Path(__file__).parents[2] / "data" / "saved"
API = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}
UI = ui([node(1, "EmptyImage", [8, 8, 1, 0], title="workflow:{}")])
PROMPT, WORKFLOW = json.dumps(API), json.dumps(UI)


@pytest.mark.parametrize("path", sorted(SAVED.iterdir()), ids=lambda path: path.name)
def test_what_comfyui_033_saved_holds_its_prompt(path: Path) -> None:
    document = read_workflow_bytes(path.read_bytes(), source=path.name)
    assert document.format == "api"
    assert document.content["13"]["class_type"] == "SaveImageAdvanced"  # type: ignore[call-overload,index]


@pytest.mark.parametrize("path", sorted(SAVED.iterdir()), ids=lambda path: path.name)
def test_a_saved_file_that_was_cut_short_never_breaks_the_reader(path: Path) -> None:
    data = path.read_bytes()
    for length in range(1, len(data), 97):
        try:
            read_workflow_bytes(data[:length], source=path.name)
        except WorkflowUnreadable:
            continue


@given(path=st.sampled_from(sorted(SAVED.iterdir())), at=st.floats(0, 1), noise=st.binary(min_size=1, max_size=40))
@settings(max_examples=300, deadline=None)
def test_a_saved_file_that_was_damaged_never_breaks_the_reader(path: Path, at: float, noise: bytes) -> None:
    data = path.read_bytes()
    start = int(at * len(data))
    with contextlib.suppress(WorkflowUnreadable):
        read_workflow_bytes(data[:start] + noise + data[start + len(noise) :], source=path.name)


def exif(kind: str, tags: Mapping[int, str], comment: bytes = b"") -> bytes:
    image = Image.new("RGB", (2, 2))
    block = image.getexif()
    for tag, text in tags.items():
        block[tag] = text
    if comment:
        block.get_ifd(0x8769)[0x9286] = comment
    data = io.BytesIO()
    image.save(data, kind, exif=block)
    return data.getvalue()


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def mp4(*, keys: bytes = b"", items: bytes) -> bytes:
    meta = box(b"meta", bytes(4) + box(b"hdlr", bytes(25)) + keys + box(b"ilst", items))
    return box(b"ftyp", b"isom" + bytes(8)) + box(b"mdat", b"prompt{}") + box(b"moov", box(b"udta", meta))


def item(kind: bytes, text: str) -> bytes:
    return box(kind, box(b"data", struct.pack(">II", 1, 0) + text.encode()))


def vorbis(*comments: str) -> bytes:
    lines = b"".join(struct.pack("<I", len(one.encode())) + one.encode() for one in comments)
    return struct.pack("<I", 3) + b"abc" + struct.pack("<I", len(comments)) + lines


def ogg(*packets: bytes) -> bytes:
    pages = b""
    for packet in packets:
        lacing = [255] * (len(packet) // 255) + [len(packet) % 255]
        for first in range(0, len(lacing), 255):
            segments = bytes(lacing[first : first + 255])
            body = packet[first * 255 : first * 255 + sum(segments)]
            pages += b"OggS" + bytes(10) + b"one " + bytes(8) + bytes([len(segments)]) + segments + body
    return pages


def id3(version: int, kind: bytes, body: bytes) -> bytes:
    def seven(number: int) -> bytes:
        return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))

    length = seven(len(body)) if version == 4 else struct.pack(">I", len(body))
    frame = kind + length + bytes(2) + body
    return b"ID3" + bytes([version, 0, 0]) + seven(len(frame)) + frame + b"\xff\xfb"


def glb(extras: Mapping[str, str]) -> bytes:
    document = json.dumps({"asset": {"version": "2.0", "extras": extras}}).encode()
    return b"glTF" + struct.pack("<III4s", 2, 20 + len(document), len(document), b"JSON") + document


def svg(text: str) -> bytes:
    metadata = f"<metadata>\n <![CDATA[\n {text}\n ]]>\n </metadata>"
    return f'<?xml version="1.0"?>\n<svg width="8">\n{metadata}<g title="ц"/></svg>'.encode()


BOTH = json.dumps({"prompt": PROMPT, "workflow": UI})
KEYS = box(
    b"keys",
    struct.pack(">II", 0, 3) + box(b"mdta", b"encoder") + box(b"mdta", b"workflow") + box(b"mdta", b"prompt"),
)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(exif("JPEG", {0x010F: f"Prompt: {PROMPT}", 0x010E: f"Workflow: {WORKFLOW}"}), "api", id="jpeg"),
        pytest.param(exif("JPEG", {0x010E: f"Workflow:{WORKFLOW}"}), "ui", id="jpeg-workflow"),
        pytest.param(exif("JPEG", {}, b"UNICODE\0" + f"prompt:{PROMPT}".encode("utf-16-be")), "api", id="jpeg-comment"),
        pytest.param(exif("JPEG", {}, b"ASCII\0\0\0" + BOTH.encode()), "api", id="jpeg-comment-both"),
        pytest.param(exif("AVIF", {0x0110: f"prompt:{PROMPT}"}), "api", id="avif"),
        pytest.param(exif("TIFF", {0x0110: f"workflow:{WORKFLOW}"}), "ui", id="tiff"),
        pytest.param(exif("PNG", {0x0110: f"workflow:{WORKFLOW}"}), "ui", id="png-exif"),
        pytest.param(mp4(items=item(b"\xa9cmt", BOTH)), "api", id="mp4-comment"),
        pytest.param(
            mp4(keys=KEYS, items=item(b"\0\0\0\1", "Lavf") + item(b"\0\0\0\2", WORKFLOW)), "ui", id="mp4-workflow"
        ),
        pytest.param(
            mp4(keys=KEYS, items=item(b"\0\0\0\2", WORKFLOW) + item(b"\0\0\0\3", PROMPT)), "api", id="mp4-both"
        ),
        pytest.param(ogg(b"OpusHead" + bytes(11), b"OpusTags" + vorbis(f"PROMPT={PROMPT}")), "api", id="opus"),
        pytest.param(
            ogg(b"\x01vorbis" + bytes(23), b"\x03vorbis" + vorbis("pad=" + "x" * 200_000, f"prompt={PROMPT}")),
            "api",
            id="ogg-over-many-pages",
        ),
        pytest.param(id3(3, b"TXXX", b"\0prompt\0" + PROMPT.encode() + b"\0"), "api", id="id3v2.3"),
        pytest.param(id3(3, b"TXXX", b"\1" + f"prompt\0{PROMPT}".encode("utf-16")), "api", id="id3-utf-16"),
        pytest.param(id3(4, b"TXXX", b"\3workflow\0" + WORKFLOW.encode()), "ui", id="id3v2.4"),
        pytest.param(id3(4, b"COMM", b"\3eng\0" + BOTH.encode()), "api", id="id3-comment"),
        pytest.param(glb({"prompt": PROMPT, "workflow": WORKFLOW}), "api", id="glb"),
        pytest.param(svg(json.dumps({"prompt": API, "workflow": UI}, indent=2)), "api", id="svg"),
        pytest.param(svg(json.dumps({"workflow": UI}, indent=2)), "ui", id="svg-workflow"),
    ],
)
def test_a_workflow_is_found_in_every_kind_of_file(data: bytes, kind: str) -> None:
    document = read_workflow_bytes(data, source="f")
    assert document.format == kind
    assert load_workflow(document, CATALOGUE).graph.nodes


def test_nan_in_a_pictures_metadata_is_read_as_null() -> None:
    """What a node that failed in IS_CHANGED leaves in the prompt that ComfyUI writes into its pictures."""
    changed = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}, "is_changed": [float("nan")]}}
    data = exif("WEBP", {0x0110: f"prompt:{json.dumps(changed)}"})
    document = read_workflow_bytes(data, source="f")
    assert load_workflow(document, CATALOGUE).graph.to_api() == API


def test_a_file_saved_in_app_mode_is_a_workflow_like_any_other() -> None:
    extra = {"linearMode": True, "linearData": {"inputs": [["1", "width"]], "outputs": []}}
    document = read_workflow_bytes(json.dumps({**UI, "extra": extra}).encode(), source="cat.app.json")
    assert (document.format, len(load_workflow(document, CATALOGUE).graph.nodes)) == ("ui", 1)


def test_an_export_of_a_job_is_read_without_what_is_beside_its_prompt() -> None:
    body = {"prompt": API, "extra_data": {"extra_pnginfo": {"workflow": UI}}, "client_id": "x"}
    assert read_workflow_bytes(json.dumps(body).encode(), source="f").content == API
