"""Renames classes in a prompt before it is checked, as ComfyUI 0.33 does.

As there, only an unknown class is replaced, and a prompt that cannot be walked ends in a 500.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from comfypin.digest import JsonValue
from comfypin.engine.embedded.execution_order import is_link


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReplacement:
    """Replaces one class by another. `inputs` None: the new node gets no inputs at all."""

    new: str
    old: str
    widgets: tuple[str, ...] | None = None
    inputs: tuple[Mapping[str, JsonValue], ...] | None = None
    outputs: tuple[Mapping[str, int], ...] | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return it as /node_replacements shows it."""
        return {
            "new_node_id": self.new,
            "old_node_id": self.old,
            "old_widget_ids": None if self.widgets is None else list(self.widgets),
            "input_mapping": None if self.inputs is None else [dict(each) for each in self.inputs],
            "output_mapping": None if self.outputs is None else [dict(each) for each in self.outputs],
        }


def _copied_input(new_name: str, old_name: str) -> dict[str, JsonValue]:
    return {"new_id": new_name, "old_id": old_name}


def _fixed_input(new_name: str, value: JsonValue) -> dict[str, JsonValue]:
    return {"new_id": new_name, "set_value": value}


REPLACEMENTS: Mapping[str, NodeReplacement] = MappingProxyType(
    {
        each.old: each
        for each in (
            NodeReplacement(
                new="ImageScaleToMaxDimension",
                old="ResizeImagesByLongerEdge",
                widgets=("longer_edge",),
                inputs=(
                    _copied_input("image", "images"),
                    _copied_input("largest_size", "longer_edge"),
                    _fixed_input("upscale_method", "lanczos"),
                ),
                outputs=({"new_idx": 0, "old_idx": 0},),
            ),
            NodeReplacement(
                new="BatchImagesNode",
                old="ImageBatch",
                inputs=(_copied_input("images.image0", "image1"), _copied_input("images.image1", "image2")),
            ),
            NodeReplacement(
                new="ResizeImageMaskNode",
                old="ImageScaleBy",
                widgets=("upscale_method", "scale_by"),
                inputs=(
                    _copied_input("input", "image"),
                    _fixed_input("resize_type", "scale by multiplier"),
                    _copied_input("resize_type.multiplier", "scale_by"),
                    _copied_input("scale_method", "upscale_method"),
                ),
            ),
            NodeReplacement(
                new="ControlNetLoader",
                old="T2IAdapterLoader",
                inputs=(_copied_input("control_net_name", "t2i_adapter_name"),),
            ),
            NodeReplacement(new="Load3D", old="Load3DAnimation"),
            NodeReplacement(new="Preview3D", old="Preview3DAnimation"),
            NodeReplacement(new="SVD_img2vid_Conditioning", old="SDV_img2vid_Conditioning"),
            NodeReplacement(new="ConditioningAverage", old="ConditioningAverage "),
        )
    }
)


def replace_nodes(graph: dict[str, Any], known_classes: Container[str]) -> None:
    """Rename, in place, every node whose class is unknown if a known class replaces it."""
    links: dict[str, list[tuple[str, str, int]]] = {}
    replaced: list[str] = []
    for node_id, node in graph.items():
        if "class_type" not in node or "inputs" not in node:
            continue
        if node["class_type"] not in known_classes and node["class_type"] in REPLACEMENTS:
            replaced.append(node_id)
        for input_name, value in node["inputs"].items():
            if is_link(value):
                links.setdefault(value[0], []).append((node_id, input_name, value[1]))
    for node_id in replaced:
        replacement = REPLACEMENTS[graph[node_id]["class_type"]]
        if replacement.new in known_classes:
            graph[node_id] = _rename_node(graph[node_id], replacement)
            _move_outputs(graph, links.get(node_id, []), replacement)


def _rename_node(node: Mapping[str, Any], replacement: NodeReplacement) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for mapping in replacement.inputs or ():
        inputs[str(mapping["new_id"])] = (
            mapping["set_value"] if "set_value" in mapping else node["inputs"][mapping["old_id"]]
        )
    # A node without `_meta` fails here, as in ComfyUI, which answers 500.
    return {**node, "inputs": inputs, "_meta": {**node["_meta"]}, "class_type": replacement.new}


def _move_outputs(graph: dict[str, Any], links: list[tuple[str, str, int]], replacement: NodeReplacement) -> None:
    for node_id, input_name, slot in links:
        for mapping in replacement.outputs or ():
            if mapping["old_idx"] == slot and input_name in graph[node_id]["inputs"]:
                graph[node_id]["inputs"][input_name][1] = mapping["new_idx"]
