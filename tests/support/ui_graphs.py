"""Makes graphs in UI format, and the node list they are made of."""

from collections.abc import Sequence
from typing import Any

from comfypin.digest import JsonValue
from comfypin.workflow.convert.build_prompt import ConvertedWorkflow, convert_workflow
from comfypin.workflow.object_info import Catalogue
from tests.support.node_list import CATALOGUE, definition

CLASSES: Catalogue = {
    **CATALOGUE,
    "Blend": definition({"a": ["IMAGE"], "b": ["IMAGE"], "factor": ["FLOAT", {"default": 0.5}]}, output=["IMAGE"]),
    "Prompt": definition(
        {"text": ["STRING", {"multiline": True, "dynamicPrompts": True, "default": ""}]}, output=["STRING"]
    ),
}


def ui(nodes: Sequence[dict[str, Any]], links: Sequence[Sequence[JsonValue]] = (), **more: Any) -> dict[str, Any]:
    return {"nodes": list(nodes), "links": [list(link) for link in links], "version": 0.4, **more}


def node(node_id: int, kind: str, values: Sequence[JsonValue] = (), **more: Any) -> dict[str, Any]:
    """A node; `wires` is {input name: link id}, `widgets` are those of them that lie over a widget."""
    wires: dict[str, int] = more.pop("wires", {})
    inputs = [{"name": name, "type": "*", "link": link} for name, link in wires.items()]
    return {"id": node_id, "type": kind, "mode": 0, "inputs": inputs, "widgets_values": list(values), **more}


def converted(content: dict[str, Any]) -> ConvertedWorkflow:
    return convert_workflow(content, CLASSES, choose=lambda options: options[-1])


def inputs(content: dict[str, Any], node_id: str) -> dict[str, object]:
    wire = converted(content).graph.to_api()[node_id]
    assert isinstance(wire, dict)
    found = wire["inputs"]
    assert isinstance(found, dict)
    return found
