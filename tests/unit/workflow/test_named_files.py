"""What a workflow names, read without an engine: models first come first, classes in subgraphs too."""

from typing import Any

from comfypin.workflow.document import to_document
from comfypin.workflow.named_files import class_names, named_texts
from tests.support.graphs import picture

API: dict[str, Any] = {
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["7", 0]}},
    "7": {"class_type": "VAELoader", "inputs": {"vae_name": "last.safetensors"}},
    "3": {"class_type": "KSampler", "inputs": {"model": ["4", 0], "steps": 20}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd\\first.safetensors"}},
}
UI: dict[str, Any] = {
    "nodes": [
        {"id": 1, "type": "Save", "order": 5, "widgets_values": ["x"]},
        {"id": 2, "type": "Loader", "order": 0, "widgets_values": ["a.safetensors", 3, None]},
    ],
    "links": [],
    "definitions": {
        "subgraphs": [{"nodes": [{"type": "Inner", "order": 1, "widgets_values": {"name": {"on": "b.safetensors"}}}]}]
    },
}


def test_a_graph_names_its_files_in_the_order_in_which_they_are_used() -> None:
    texts = named_texts(to_document(API, source="test"))
    assert texts.index("sd/first.safetensors") < texts.index("last.safetensors")


def test_a_saved_workflow_names_those_of_its_subgraphs_too() -> None:
    assert named_texts(to_document(UI, source="test")) == ("a.safetensors", "b.safetensors", "x")


def test_classes_are_those_of_subgraphs_too() -> None:
    assert class_names(to_document(UI, source="test")) == {"Save", "Loader", "Inner"}
    assert class_names(to_document(picture().to_api(), source="test")) == {"EmptyImage", "SaveImage"}
