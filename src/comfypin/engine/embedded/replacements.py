"""The classes that ComfyUI 0.33 renames in a prompt before it checks it, and the renaming itself.

As there, only a class that is not known is replaced, and a prompt that cannot be walked ends in a 500.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from comfypin.digest import JsonValue
from comfypin.engine.embedded.order import is_link


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A class that another one stands in for. `inputs` None: the new node gets no inputs at all."""

    new: str
    old: str
    widgets: tuple[str, ...] | None = None
    inputs: tuple[Mapping[str, JsonValue], ...] | None = None
    outputs: tuple[Mapping[str, int], ...] | None = None

    def wire(self) -> dict[str, JsonValue]:
        """Return it as /node_replacements shows it."""
        return {
            "new_node_id": self.new,
            "old_node_id": self.old,
            "old_widget_ids": None if self.widgets is None else list(self.widgets),
            "input_mapping": None if self.inputs is None else [dict(each) for each in self.inputs],
            "output_mapping": None if self.outputs is None else [dict(each) for each in self.outputs],
        }


def _taken(new: str, old: str) -> dict[str, JsonValue]:
    return {"new_id": new, "old_id": old}


def _set(new: str, value: JsonValue) -> dict[str, JsonValue]:
    return {"new_id": new, "set_value": value}


REPLACEMENTS: Mapping[str, Replacement] = MappingProxyType(
    {
        each.old: each
        for each in (
            Replacement(
                new="ImageScaleToMaxDimension",
                old="ResizeImagesByLongerEdge",
                widgets=("longer_edge",),
                inputs=(
                    _taken("image", "images"),
                    _taken("largest_size", "longer_edge"),
                    _set("upscale_method", "lanczos"),
                ),
                outputs=({"new_idx": 0, "old_idx": 0},),
            ),
            Replacement(
                new="BatchImagesNode",
                old="ImageBatch",
                inputs=(_taken("images.image0", "image1"), _taken("images.image1", "image2")),
            ),
            Replacement(
                new="ResizeImageMaskNode",
                old="ImageScaleBy",
                widgets=("upscale_method", "scale_by"),
                inputs=(
                    _taken("input", "image"),
                    _set("resize_type", "scale by multiplier"),
                    _taken("resize_type.multiplier", "scale_by"),
                    _taken("scale_method", "upscale_method"),
                ),
            ),
            Replacement(
                new="ControlNetLoader",
                old="T2IAdapterLoader",
                inputs=(_taken("control_net_name", "t2i_adapter_name"),),
            ),
            Replacement(new="Load3D", old="Load3DAnimation"),
            Replacement(new="Preview3D", old="Preview3DAnimation"),
            Replacement(new="SVD_img2vid_Conditioning", old="SDV_img2vid_Conditioning"),
            Replacement(new="ConditioningAverage", old="ConditioningAverage "),
        )
    }
)


def replace_nodes(graph: dict[str, Any], known: Container[str]) -> None:
    """Rename, in place, every node whose class is unknown and has a known one that stands in for it."""
    links: dict[str, list[tuple[str, str, int]]] = {}
    replaced: list[str] = []
    for node_id, node in graph.items():
        if "class_type" not in node or "inputs" not in node:
            continue
        if node["class_type"] not in known and node["class_type"] in REPLACEMENTS:
            replaced.append(node_id)
        for name, value in node["inputs"].items():
            if is_link(value):
                links.setdefault(value[0], []).append((node_id, name, value[1]))
    for node_id in replaced:
        found = REPLACEMENTS[graph[node_id]["class_type"]]
        if found.new in known:
            graph[node_id] = _renamed(graph[node_id], found)
            _move_outputs(graph, links.get(node_id, []), found)


def _renamed(node: Mapping[str, Any], found: Replacement) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for each in found.inputs or ():
        inputs[str(each["new_id"])] = each["set_value"] if "set_value" in each else node["inputs"][each["old_id"]]
    return {**node, "inputs": inputs, "_meta": {**node["_meta"]}, "class_type": found.new}


def _move_outputs(graph: dict[str, Any], links: list[tuple[str, str, int]], found: Replacement) -> None:
    for node_id, name, slot in links:
        for each in found.outputs or ():
            if each["old_idx"] == slot and name in graph[node_id]["inputs"]:
                graph[node_id]["inputs"][name][1] = each["new_idx"]
