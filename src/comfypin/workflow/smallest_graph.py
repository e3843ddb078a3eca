"""The smallest graph that makes an engine give a real picture: what an empty workflow (`{}`) runs."""

from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode


def smoke_graph() -> ApiGraph:
    """Build EmptyImage into SaveImage: it needs no model and no input file, and every ComfyUI has both classes."""
    empty_image = ApiNode(
        id="1",
        class_type="EmptyImage",
        inputs={"width": 64, "height": 64, "batch_size": 1, "color": 0x2F6F4F},
        title="Smoke test picture",
    )
    save_image = ApiNode(
        id="2",
        class_type="SaveImage",
        inputs={"images": ApiLink("1", 0), "filename_prefix": "smoke"},
        title="Save smoke test picture",
    )
    return ApiGraph(nodes={"1": empty_image, "2": save_image})
