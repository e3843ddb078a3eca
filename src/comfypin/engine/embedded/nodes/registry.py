"""Every node class of the embedded engine, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from comfypin.engine.embedded.declare import NodeClass
from comfypin.engine.embedded.nodes import effects, load, masks, primitive, save, scale, transform

NODE_CLASSES: Mapping[str, NodeClass] = MappingProxyType(
    {each.name: each for module in (load, scale, transform, effects, masks, save, primitive) for each in module.CLASSES}
)
