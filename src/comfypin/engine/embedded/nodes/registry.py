"""Lists the embedded engine's node classes by name, for each release of ComfyUI."""

from collections.abc import Mapping
from types import MappingProxyType

from comfypin.engine.embedded.declare import NodeClass
from comfypin.engine.embedded.nodes import (
    adjust,
    color_transfer,
    effects,
    load,
    logic,
    masks,
    primitive,
    resize_mask,
    save,
    save_advanced,
    scale,
    transform,
)
from comfypin.engine.embedded.nodes.revised import REVISIONS

_OLDER = (load, scale, transform, effects, masks, save, primitive)
_NEWER = (resize_mask, adjust, color_transfer, logic, save_advanced)

NODE_CLASSES: Mapping[str, NodeClass] = MappingProxyType(
    {each.name: each for module in _OLDER for each in module.CLASSES}
)
"""The classes of ComfyUI 0.3.64."""

NODE_CLASSES_0_33: Mapping[str, NodeClass] = MappingProxyType(
    {class_name: REVISIONS[class_name].apply_to(kind) for class_name, kind in NODE_CLASSES.items()}
    | {each.name: each for module in _NEWER for each in module.CLASSES}
)
"""The classes of ComfyUI 0.33: the older ones as they are now, and the new ones."""

_BY_VERSION = {"0.3.64": NODE_CLASSES, "0.33.0": NODE_CLASSES_0_33}


def node_classes_of(version: str) -> Mapping[str, NodeClass]:
    """Return the classes of a release that the embedded engine knows."""
    return _BY_VERSION[version]
