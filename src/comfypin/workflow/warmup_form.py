"""Turns a workflow into its warm-up form: the same models, the smallest size, one step. Pure.

A worker runs it before its first job, so that the models are read, loaded and on the GPU by then. What takes long in a
workflow and loads nothing (steps, pixels, frames) is made small; whatever chooses a model stays as it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode, InputValue, NodeId
from comfypin.workflow.graph_walk import GraphWalk
from comfypin.workflow.node_inputs import open_inputs
from comfypin.workflow.object_info import Catalogue, InputSpec, is_output, names_file

# Autoencoders divide by 8 to 32 and UNets again by 8: with less than this, some layer of a model gets an empty picture.
_SIDE_PIXELS = 64
# The names that ComfyUI's own classes and the large packs use; each value is only ever lowered.
_SMALL_VALUES: Mapping[str, int] = {
    **dict.fromkeys(("width", "height", "empty_latent_width", "empty_latent_height"), _SIDE_PIXELS),
    **dict.fromkeys(("steps", "batch_size", "length", "num_frames", "video_frames", "frames", "seconds"), 1),
    # Two samplers share their steps: the second one must not begin after the only step that is left.
    "start_at_step": 0,
}
_LOADED_PICTURE, _LOADED_MASK = 0, 1


def warmup_form(graph: ApiGraph, catalogue: Catalogue) -> ApiGraph:
    """Return the graph with one step, one frame and the smallest pictures that its classes and models take.

    Pictures that the workflow loads and nobody has sent become empty ones, so that it runs without its inputs.
    """
    nodes: dict[NodeId, ApiNode] = {}
    for node in graph.nodes.values():
        if node.class_type in ("LoadImage", "LoadImageMask") and not _has_file(node, catalogue):
            nodes.update((standin.id, standin) for standin in _empty_pictures(node, graph))
        else:
            nodes[node.id] = replace(node, inputs={**node.inputs, **dict(_small_inputs(node, catalogue))})
    return _relink_masks(ApiGraph(nodes=nodes), graph)


def uses_api_nodes(graph: ApiGraph, catalogue: Catalogue) -> bool:
    """Return whether an output needs a node that calls a paid API: such a workflow must not run without a job."""
    outputs = [node.id for node in graph.nodes.values() if is_output(catalogue.get(node.class_type, {}))]
    walk = GraphWalk.from_outputs(graph, outputs, lambda node: (link.node_id for _, link in node.linked_inputs()))
    return any(
        catalogue.get(graph.nodes[node_id].class_type, {}).get("api_node") is True
        for node_id in (*walk.reached, *outputs)
    )


def _small_inputs(node: ApiNode, catalogue: Catalogue) -> Iterator[tuple[str, InputValue]]:
    for spec in open_inputs(catalogue.get(node.class_type, {}), node.inputs).specs.values():
        # The inputs of a dynamic combo have dotted names (`mode.width`).
        wanted_value = _SMALL_VALUES.get(spec.name.rpartition(".")[2])
        value = node.inputs.get(spec.name)
        if wanted_value is None or spec.widget_type not in ("INT", "FLOAT") or isinstance(value, bool):
            continue
        if isinstance(value, int | float) and value > (smallest := _smallest_allowed(spec, wanted_value)):
            yield spec.name, smallest


def _smallest_allowed(spec: InputSpec, wanted_value: int) -> int | float:
    """Return the smallest value from `wanted` on that the input's limits and its step allow."""
    low, step = spec.options.get("min"), spec.options.get("step")
    if not isinstance(low, int | float) or low < 0:
        return wanted_value
    if not isinstance(step, int | float) or step <= 0 or wanted_value <= low:
        return max(low, wanted_value)
    # Steps count from the least value: a length of 1, 5, 9 frames.
    return low + -(-(wanted_value - low) // step) * step


def _has_file(node: ApiNode, catalogue: Catalogue) -> bool:
    """Return whether the engine has the picture already; so do pictures that another node names."""
    specs = open_inputs(catalogue.get(node.class_type, {}), node.inputs).specs.values()
    values = [(spec, node.inputs.get(spec.name)) for spec in specs if names_file(node.class_type, spec)]
    return all(not isinstance(value, str) or value in (spec.choices or ()) for spec, value in values)


def _empty_pictures(node: ApiNode, graph: ApiGraph) -> Iterator[ApiNode]:
    """Yield what stands in for a picture: an empty one under the node's id, and a mask under another, if it is used."""
    mask_values: Mapping[str, InputValue] = {"value": 0.0, "width": _SIDE_PIXELS, "height": _SIDE_PIXELS}
    if node.class_type == "LoadImageMask":
        yield ApiNode(id=node.id, class_type="SolidMask", inputs=mask_values)
        return
    picture_values: Mapping[str, InputValue] = {
        **{"width": _SIDE_PIXELS, "height": _SIDE_PIXELS},
        **{"batch_size": 1, "color": 0},
    }
    yield ApiNode(id=node.id, class_type="EmptyImage", inputs=picture_values)
    mask = ApiLink(node.id, _LOADED_MASK)
    if any(link == mask for other in graph.nodes.values() for _, link in other.linked_inputs()):
        yield ApiNode(id=_mask_id(node.id), class_type="SolidMask", inputs=mask_values)


def _relink_masks(graph: ApiGraph, original: ApiGraph) -> ApiGraph:
    """Point links to the second output of a picture that was replaced to its mask."""
    replaced = {
        node_id
        for node_id, node in original.nodes.items()
        if node.class_type == "LoadImage" and _mask_id(node_id) in graph.nodes
    }

    def relink(value: InputValue) -> InputValue:
        if isinstance(value, ApiLink) and value.node_id in replaced and value.slot == _LOADED_MASK:
            return ApiLink(_mask_id(value.node_id), _LOADED_PICTURE)
        return value

    return ApiGraph(
        nodes={
            node_id: replace(node, inputs={input_name: relink(value) for input_name, value in node.inputs.items()})
            for node_id, node in graph.nodes.items()
        }
    )


def _mask_id(node_id: NodeId) -> NodeId:
    return f"{node_id}-mask"
