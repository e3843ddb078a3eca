"""Names of models that a job brings: accepted before the engine's list has them, in any spelling of slashes."""

from typing import Any

from comfypin.workflow.brought_models import find_model_names
from comfypin.workflow.graph import ApiGraph
from comfypin.workflow.preflight import run_preflight
from tests.support.graphs import graph, node

CATALOGUE: dict[str, Any] = {
    "LoraSaver": {
        "input": {"required": {"lora_name": [["old.safetensors"], {}], "note": ["STRING", {}]}},
        "output": [],
        "output_node": True,
        "python_module": "nodes",
    }
}


def saver(name: str) -> ApiGraph:
    return graph(node("1", "LoraSaver", lora_name=name, note="style/new.safetensors"))


def test_a_brought_name_passes_preflight_and_gets_its_path() -> None:
    found = find_model_names(saver("style\\new.safetensors"), {"style/new.safetensors"}, CATALOGUE)
    assert found.inputs == {("1", "lora_name")}
    assert found.used == {"style/new.safetensors"}
    assert found.graph.nodes["1"].inputs["lora_name"] == "style/new.safetensors"
    assert not run_preflight(found.graph, CATALOGUE, brought=found.inputs).errors


def test_another_name_is_refused_as_before() -> None:
    found = find_model_names(saver("missing.safetensors"), {"style/new.safetensors"}, CATALOGUE)
    assert not found.inputs
    assert run_preflight(found.graph, CATALOGUE, brought=found.inputs).errors
