"""Every node class of the embedded engine, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from comfypin.engine.embedded.declare import NodeClass
from comfypin.engine.embedded.nodes import load, save, scale

NODE_CLASSES: Mapping[str, NodeClass] = MappingProxyType(
    {each.name: each for module in (load, scale, save) for each in module.CLASSES}
)
