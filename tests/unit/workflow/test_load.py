"""Documents of both formats as one workflow: seeds, marks of our own, pictures."""

import io
import json
import struct
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfypin.workflow.document import to_document
from comfypin.workflow.errors import WorkflowUnreadable
from comfypin.workflow.filename_mark import SubmissionMark, mark_outputs, remove_marks
from comfypin.workflow.load import load_workflow
from comfypin.workflow.parse import parse_graph
from comfypin.workflow.read_file import read_workflow_bytes
from comfypin.workflow.seeds import change_seeds
from tests.support.node_list import CATALOGUE
from tests.support.ui_graphs import node, ui

API = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}
SAMPLER = [7, "euler"]


def sampler(node_id: int, control: object, **more: object) -> dict[str, object]:
    return node(node_id, "KSampler", [7, control, 8.0, "euler", True, "x"], **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("control", "seed"), [("randomize", 1 << 50), ("increment", 8), ("decrement", 6), ("fixed", 7), (True, 1 << 50)]
)
def test_a_seed_changes_by_its_own_rule(control: object, seed: int) -> None:
    workflow = load_workflow(to_document(ui([sampler(1, control)]), source="w"), CATALOGUE)
    changed = change_seeds(workflow.graph, workflow.seeds, CATALOGUE, randint=lambda low, high: high)
    assert changed.nodes["1"].inputs["seed"] == seed


def test_seeds_that_share_a_primitive_go_on_sharing_a_value() -> None:
    content = ui(
        [
            node(1, "PrimitiveNode", [5, "randomize"]),
            sampler(2, "fixed", wires={"seed": 1}),
            sampler(3, "fixed", wires={"seed": 2}),
        ],
        [[1, 1, 0, 2, 0, "INT"], [2, 1, 0, 3, 0, "INT"]],
    )
    drawn = iter(range(100, 200))
    workflow = load_workflow(to_document(content, source="w"), CATALOGUE)
    changed = change_seeds(workflow.graph, workflow.seeds, CATALOGUE, randint=lambda low, high: next(drawn))
    assert [changed.nodes[one].inputs["seed"] for one in ("2", "3")] == [100, 100]


def test_seeds_of_an_api_graph_are_drawn_anew() -> None:
    graph = {"1": {"class_type": "KSampler", "inputs": {"seed": 1, "cfg": 1}}}
    workflow = load_workflow(to_document(graph, source="w"), CATALOGUE)
    changed = change_seeds(workflow.graph, workflow.seeds, CATALOGUE, randint=lambda low, high: low)
    assert changed.nodes["1"].inputs == {"seed": 0, "cfg": 1}


def test_an_empty_document_is_the_smoke_test() -> None:
    graph = load_workflow(to_document({}, source="w"), CATALOGUE).graph
    assert {one.class_type for one in graph.nodes.values()} == {"EmptyImage", "SaveImage"}


def test_marks_of_an_earlier_job_are_taken_out_of_its_pictures() -> None:
    graph = parse_graph(
        {
            "1": {"class_type": "PrimitiveString", "inputs": {"value": "a/b"}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": ["1", 0]}},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "c/d"}},
        }
    )
    assert remove_marks(mark_outputs(graph, SubmissionMark.for_submission("x"), CATALOGUE).graph) == graph


def test_an_uploaded_file_of_an_earlier_job_has_its_own_name_again() -> None:
    name = "comfypin/0b8f2f6e-1111-4222-8333-444455556666/photo.png"
    graph = parse_graph({"1": {"class_type": "LoadImage", "inputs": {"image": name}}})
    assert remove_marks(graph).nodes["1"].inputs["image"] == "photo.png"


def png(**texts: str) -> bytes:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text, zip=len(text) > 200)
    data = io.BytesIO()
    Image.new("RGB", (2, 2)).save(data, "PNG", pnginfo=info)
    return data.getvalue()


def webp(*texts: str) -> bytes:
    image = Image.new("RGB", (2, 2))
    exif = image.getexif()
    for tag, text in zip((0x0110, 0x010F), texts, strict=False):
        exif[tag] = text
    data = io.BytesIO()
    image.save(data, "WEBP", exif=exif)
    return data.getvalue()


def safetensors(metadata: dict[str, str]) -> bytes:
    header = json.dumps({"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(header)) + header


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


UI = ui([node(1, "EmptyImage", [8, 8, 1, 0], title="}" * 300)])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(prompt=json.dumps(API), workflow=json.dumps(UI)), "api"),
        (png(workflow=json.dumps(UI)), "ui"),
        (png(prompt=json.dumps({**API, "pad": {"class_type": "x" * 300}})), "api"),
        (b"\x89PNG\r\n\x1a\n" + _chunk(b"comf", b"workflow\0" + json.dumps(UI).encode()), "ui"),
        (webp("prompt:" + json.dumps(API), "workflow:" + json.dumps(UI)), "api"),
        (webp("workflow:" + json.dumps(UI)), "ui"),
        (safetensors({"prompt": json.dumps(API)}), "api"),
        (b"fLaC\0\0\0\x22prompt=" + json.dumps(API).encode() + b"\0\0", "api"),
        (b"\0\0\0\x20ftypisom\0\0workflow\0\0\0\x10data\0\0\0\1" + json.dumps(UI).encode() + b"\0mdat", "ui"),
        (json.dumps(API).encode(), "api"),
        (b"  \n{}", "empty"),
    ],
)
def test_a_workflow_is_read_out_of_what_comfyui_saved(data: bytes, kind: str) -> None:
    document = read_workflow_bytes(data, source="f")
    assert document.format == kind
    assert load_workflow(document, CATALOGUE).graph.nodes


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png(), "holds no workflow"),
        (png(prompt="{"), "not JSON"),
        (b"\x89PNG\r\n\x1a\n" + _chunk(b"zTXt", b"prompt\0\0damaged"), "damaged"),
        (b"\x89PNG\r\n\x1a\n" + _chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b" " * (1 << 26))), "more than"),
        (b"\x89PNG\r\n\x1a\n\xff\xff\xff\xfftEXt", "holds no workflow"),
        (b"RIFF\0\0\0\0WEBPEXIF\xff\xff\xff\xffprompt:{", "holds no workflow"),
        (b"\xff\xd8\xff\0prompt{{{{{prompt{{{", "holds no workflow"),
        (b"hello", "not JSON"),
    ],
)
def test_a_file_without_a_workflow_says_so(data: bytes, reason: str) -> None:
    with pytest.raises(WorkflowUnreadable, match=reason):
        read_workflow_bytes(data, source="f")


@pytest.mark.parametrize(("keys", "text"), [({}, "%date:yyyy%"), ({"search_aliases": []}, "2025")])
def test_an_api_graphs_file_names_are_filled_in_as_the_engines_own_page_would(keys: dict[str, Any], text: str) -> None:
    classes = {name: {**one, **keys} for name, one in CATALOGUE.items()}
    graph = {"1": {"class_type": "SaveVideo", "inputs": {"filename_prefix": "%date:yyyy%"}}}
    workflow = load_workflow(to_document(graph, source="w"), classes)
    expanded = workflow.fill_texts(workflow.graph, datetime(2025, 3, 4, tzinfo=UTC))
    assert expanded.nodes["1"].inputs["filename_prefix"] == text


def test_what_a_conversion_left_out_is_a_warning_of_the_workflow() -> None:
    content = ui([node(1, "EmptyImage", [8, 8, 1, 0]), node(2, "Label (some pack)", [])])
    warnings = load_workflow(to_document(content, source="w"), CATALOGUE).warnings
    assert [one.severity for one in warnings] == ["warning"]
