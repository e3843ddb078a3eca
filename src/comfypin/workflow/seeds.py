"""New seeds between jobs, by the rule that each seed has in the workflow: fixed, increment, decrement, randomize."""

from collections.abc import Iterable
from dataclasses import replace

from comfypin.workflow.convert.write import Seed
from comfypin.workflow.graph import ApiGraph, ApiLink
from comfypin.workflow.node_inputs import open_inputs
from comfypin.workflow.object_info import Catalogue, InputSpec
from comfypin.workflow.overrides import RandomInt, random_between, random_seed


def change_seeds(
    graph: ApiGraph, seeds: Iterable[Seed], catalogue: Catalogue, *, randint: RandomInt = random_between
) -> ApiGraph:
    """The graph as the page would have it after a run; seeds that share a value go on sharing it."""
    nodes = dict(graph.nodes)
    drawn: dict[str, int] = {}
    for seed in seeds:
        node = nodes.get(seed.node_id)
        value = node.inputs.get(seed.input_name) if node else None
        if node is None or isinstance(value, ApiLink | bool) or not isinstance(value, int | float):
            continue
        spec = open_inputs(catalogue.get(node.class_type, {}), node.inputs).specs.get(seed.input_name)
        if seed.group not in drawn:
            drawn[seed.group] = _next_seed(int(value), seed.control, spec, randint)
        nodes[seed.node_id] = replace(node, inputs={**node.inputs, seed.input_name: drawn[seed.group]})
    return ApiGraph(nodes=nodes)


def _next_seed(value: int, control: str, spec: InputSpec | None, randint: RandomInt) -> int:
    match control:
        case "randomize":
            return random_seed(spec, randint)
        case "increment" | "decrement":
            step = _number_option(spec, "step", 1)
            moved = value + step if control == "increment" else value - step
            return min(max(moved, _number_option(spec, "min", moved)), _number_option(spec, "max", moved))
        case _:
            return value


def _number_option(spec: InputSpec | None, name: str, default: int) -> int:
    option = spec.options.get(name) if spec else None
    return int(option) if isinstance(option, int | float) else default
