"""Small workflows that tests run."""

import uuid

from comfypin.digest import JsonValue
from comfypin.engine.interface import InputFile, Prompt
from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode, InputValue


def node(node_id: str, class_type: str, **inputs: InputValue) -> ApiNode:
    return ApiNode(id=node_id, class_type=class_type, inputs=inputs)


def graph(*nodes: ApiNode) -> ApiGraph:
    return ApiGraph(nodes={each.id: each for each in nodes})


def picture(*, color: int = 255, prefix: str = "test", size: int = 64, batch: int = 1) -> ApiGraph:
    """EmptyImage to SaveImage: nodes 1 and 2."""
    return graph(
        node("1", "EmptyImage", width=size, height=size, batch_size=batch, color=color),
        node("2", "SaveImage", images=ApiLink("1", 0), filename_prefix=prefix),
    )


def loaded(*, prefix: str = "test") -> ApiGraph:
    """LoadImage to SaveImage: nodes 1 and 2."""
    return graph(
        node("1", "LoadImage", image="here.png"),
        node("2", "SaveImage", images=ApiLink("1", 0), filename_prefix=prefix),
    )


def a_prompt(of: ApiGraph | None = None, *inputs: InputFile, **extra: JsonValue) -> Prompt:
    return Prompt(prompt_id=str(uuid.uuid4()), graph=of or picture(), inputs=inputs, extra_data=extra)
