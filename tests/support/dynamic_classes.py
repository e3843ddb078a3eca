"""A node list of the newer ComfyUI, made by hand: dynamic combos, growing lists, widgets of many kinds."""

from typing import Any

from comfypin.workflow.convert.build_prompt import ConvertedWorkflow, convert_workflow
from comfypin.workflow.object_info import Catalogue

IMAGE: list[Any] = ["IMAGE", {}]


def combo(options: dict[str, dict[str, Any]]) -> list[Any]:
    """A dynamic combo: its options, each with the inputs that it brings."""
    return ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": key, "inputs": inputs} for key, inputs in options.items()]}]


def growing(prefix: str = "image", least: int = 1, most: int = 4) -> list[Any]:
    """A growing list of image sockets."""
    template = {"input": {"required": {"image": IMAGE}}, "prefix": prefix, "min": least, "max": most}
    return ["COMFY_AUTOGROW_V3", {"template": template}]


def newer_class(
    required: dict[str, Any], *, output: tuple[Any, ...] = ("IMAGE",), core: bool = True, **more: Any
) -> dict[str, Any]:
    """A class as the newer ComfyUI lists it; `has_intermediate_output` tells the newer one."""
    return {
        "input": {"required": required},
        "output": list(output),
        "python_module": "nodes" if core else "custom_nodes.Pack",
        "output_node": False,
        "has_intermediate_output": False,
        **more,
    }


CODECS = combo({"h264": {"required": {"crf": ["INT", {"default": 23}]}}, "av1": {"required": {}}})
NEWER: Catalogue = {
    "EmptyImage": newer_class(
        {name: ["INT", {"default": 512, "min": 1, "max": 4096}] for name in ("width", "height", "batch_size", "color")}
    ),
    "ImageInvert": newer_class({"image": IMAGE}),
    "ImageBlend": newer_class(
        {"image1": IMAGE, "image2": IMAGE, "blend_factor": ["FLOAT", {"default": 0.5}], "mode": [["a", "b"], {}]}
    ),
    "SaveImage": newer_class(
        {"images": IMAGE, "filename_prefix": ["STRING", {"default": "x"}]}, output=(), output_node=True
    ),
    "Save": newer_class(
        {
            "images": growing(),
            "name": ["STRING", {"default": ""}],
            "format": combo({"auto": {"required": {"codec": CODECS}}, "gif": {"optional": {"over": IMAGE}}}),
            "seed": ["INT", {"default": 7}],
            "last": ["FLOAT", {"default": 0.25}],
        },
        output=(),
        output_node=True,
    ),
    "Several": newer_class(
        {
            "image": IMAGE,
            "frames": ["INT", {"default": 1}],
            "rate": ["FLOAT,INT", {"default": 8.0, "widgetType": "FLOAT"}],
            "mask_or_image": ["IMAGE,MASK", {}],
            "batch": ["INT", {"default": 1}],
        },
        core=False,
    ),
    "Prompt": newer_class({"text": ["STRING", {"multiline": True, "default": ""}]}, output=("STRING",)),
    "Whole": newer_class({"value": ["INT", {"default": 0, "control_after_generate": "fixed"}]}, output=("INT",)),
    "CustomCombo": newer_class({"choice": ["COMBO", {"multiselect": False, "options": []}]}, output=("STRING", "INT")),
    "Curves": newer_class({"curve": ["CURVE", {"default": {"points": [[0, 0], [1, 1]]}}]}, output=("CURVE",)),
    "Crop": newer_class({"image": IMAGE, "box": ["BOUNDING_BOX", {}], "after": ["INT", {"default": 3}]}),
    "Switch": newer_class(
        {
            "on_false": ["COMFY_MATCHTYPE_V3", {"template": {"template_id": "t", "allowed_types": "*"}}],
            "on_true": ["COMFY_MATCHTYPE_V3", {"template": {"template_id": "t", "allowed_types": "*"}}],
            "switch": ["BOOLEAN", {}],
        },
        output=("COMFY_MATCHTYPE_V3",),
        output_matchtypes=["t"],
    ),
}


def newer(content: dict[str, Any], **classes: dict[str, Any]) -> ConvertedWorkflow:
    """Convert by the newer rules; `classes` are further ones of the node list."""
    return convert_workflow(content, {**NEWER, **classes}, choose=lambda options: options[-1])


def newer_inputs(content: dict[str, Any], node_id: str, **classes: dict[str, Any]) -> dict[str, Any]:
    """The inputs that one node is sent with."""
    wire: Any = newer(content, **classes).graph.to_api()[node_id]
    return wire["inputs"]  # type: ignore[no-any-return]
