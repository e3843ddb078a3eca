"""What a workflow needs: its models, whoever loads them."""

from typing import Any

from comfypin.lock.model import Lock, ModelPin, NodePin
from comfypin.workflow.document import to_document
from comfypin.workflow.load import load_workflow
from comfypin.workflow.release_check import WorkflowCheck, check_workflow, find_unpinned
from tests.support.node_list import CATALOGUE, definition

CLASSES = {
    **CATALOGUE,
    "VAELoader": definition({"vae_name": [["pixel_space"], {}]}, output=["VAE"]),
    "DualCLIPLoader": definition({"clip_name1": [[], {}], "clip_name2": [[], {}]}, output=["CLIP"]),
    "TextLoader": definition({"model": ["STRING", {}]}, output=["MODEL"]),
    "Sink": definition({"a": ["*"], "b": ["*"], "c": ["*"], "d": ["*"]}, output_node=True),
}


def surveyed(**kinds: dict[str, Any]) -> WorkflowCheck:
    nodes: dict[str, Any] = {
        str(number): {"class_type": kind, "inputs": inputs} for number, (kind, inputs) in enumerate(kinds.items(), 1)
    }
    wires = {name: [node_id, 0] for name, node_id in zip("abcd", nodes, strict=False)}
    nodes["99"] = {"class_type": "Sink", "inputs": wires}
    return check_workflow(load_workflow(to_document(nodes, source="w"), CLASSES), CLASSES, None)


def test_models_of_every_loader_are_listed() -> None:
    found = surveyed(
        CheckpointLoaderSimple={"ckpt_name": "sd15.safetensors"},
        VAELoader={"vae_name": "ae.safetensors"},
        DualCLIPLoader={"clip_name1": "clip_l.safetensors", "clip_name2": "t5.safetensors"},
    )
    assert [(one.input_name, one.file, one.present) for one in found.models] == [
        ("ckpt_name", "sd15.safetensors", True),
        ("vae_name", "ae.safetensors", False),
        ("clip_name1", "clip_l.safetensors", False),
        ("clip_name2", "t5.safetensors", False),
    ]


def test_a_choice_that_is_no_file_is_no_model() -> None:
    assert surveyed(VAELoader={"vae_name": "pixel_space"}).models == ()


def test_models_that_a_text_or_a_class_of_a_missing_pack_names_are_listed() -> None:
    found = surveyed(TextLoader={"model": "xl\\base.safetensors"}, Missing={"lora": "x.safetensors", "n": 1})
    assert [(one.file, one.present) for one in found.models] == [
        ("xl\\base.safetensors", True),
        ("x.safetensors", False),
    ]


def test_what_was_taken_in_another_way_than_written_is_a_warning_beside_the_findings() -> None:
    found = surveyed(CheckpointLoaderSimple={"ckpt_name": "XL\\base.safetensors"})
    assert [(one.code, one.severity) for one in found.preflight.findings if one.node_id == "1"] == [
        ("respelt", "warning")
    ]
    assert found.models[0].present


def test_what_is_here_and_not_in_the_lock_is_a_warning() -> None:
    classes = {**CLASSES, "Pack": {**definition({}, output=["MODEL"]), "python_module": "custom_nodes.some-pack"}}
    nodes = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
        "2": {"class_type": "Pack", "inputs": {}},
        "3": {"class_type": "Sink", "inputs": {"a": ["1", 0], "b": ["2", 0], "c": ["1", 0], "d": ["2", 0]}},
    }
    workflow = load_workflow(to_document(nodes, source="w"), classes)
    lock = Lock(version_name="mine")
    check = find_unpinned(check_workflow(workflow, classes, lock), workflow.graph, classes, lock)
    assert [(one.code, one.severity, one.node_id) for one in check.preflight.findings] == [
        ("model_unpinned", "warning", "1"),
        ("node_unpinned", "warning", "2"),
    ]
    pinned = Lock(
        version_name="mine",
        custom_nodes=(NodePin(name="Some_Pack", repo="https://x.org/some-pack", commit="a" * 40),),
        models=(ModelPin(name="sd15", target_path="$MODELS_DIR/checkpoints/sd15.safetensors"),),
    )
    assert (
        find_unpinned(check_workflow(workflow, classes, pinned), workflow.graph, classes, pinned).preflight.findings
        == ()
    )
