"""The smallest graph that makes an engine give a real picture: what an empty workflow (`{}`) runs."""

from comfypin.workflow.graph import Graph, Link, Node


def smoke_graph() -> Graph:
    """EmptyImage into SaveImage: no model, no input file, classes that every ComfyUI has."""
    image = Node(
        id="1",
        class_type="EmptyImage",
        inputs={"width": 64, "height": 64, "batch_size": 1, "color": 0x2F6F4F},
        title="Smoke test picture",
    )
    save = Node(
        id="2",
        class_type="SaveImage",
        inputs={"images": Link("1", 0), "filename_prefix": "smoke"},
        title="Save smoke test picture",
    )
    return Graph(nodes={"1": image, "2": save})
