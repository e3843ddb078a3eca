"""Workflows in API format for the embedded engine."""

from typing import Any


def picture(color: int, *, size: int = 64, prefix: str = "out") -> dict[str, Any]:
    empty = {"width": size, "height": size, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def slow(blurs: int, *, size: int = 96) -> dict[str, Any]:
    """A workflow that works for a while, node by node, and can be stopped after each."""
    graph = picture(5, size=size, prefix=f"slow{blurs}")
    last = ["1", 0]
    for index in range(blurs):
        node = str(100 + index)
        graph[node] = {"class_type": "ImageBlur", "inputs": {"image": last, "blur_radius": 5, "sigma": 2.0}}
        last = [node, 0]
    graph["2"]["inputs"]["images"] = last
    return graph


def load(name: str) -> dict[str, Any]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ComfyUI"}},
    }
