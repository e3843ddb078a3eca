"""Finds the classes of ComfyUI's API nodes, which call paid services, in its files: without starting it."""

import re
from pathlib import Path

API_NODES_FOLDER = "comfy_api_nodes"
NO_API_NODES = "--disable-api-nodes"
# The newer schema names a class in its definition, the older one in a table of the module.
_CLASS_NAME = re.compile(r"""node_id\s*=\s*["'](\w+)["']|^\s*["'](\w+)["']\s*:\s*\w+\s*,?\s*$""", re.MULTILINE)


def api_node_classes(comfyui_folder: Path) -> frozenset[str]:
    """Return the names of the classes; none for a ComfyUI that has no such folder. Raises `OSError`."""
    class_names: set[str] = set()
    for module_path in sorted((comfyui_folder / API_NODES_FOLDER).glob("nodes_*.py")):
        module_text = module_path.read_text(encoding="utf-8", errors="replace")
        class_names.update(new_name or old_name for new_name, old_name in _CLASS_NAME.findall(module_text))
    return frozenset(class_names)
