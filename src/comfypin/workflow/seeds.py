"""Change seeds between jobs by the rule that each has in the workflow: fixed, increment, decrement, randomize."""

from collections.abc import Iterable
from dataclasses import replace

from comfypin.workflow.convert.prompt_nodes import Seed
from comfypin.workflow.graph import ApiGraph, ApiLink
from comfypin.workflow.node_inputs import open_inputs
from comfypin.workflow.object_info import Catalogue, InputSpec
from comfypin.workflow.overrides import RandomInt, random_between, random_seed


def change_seeds(
    graph: ApiGraph, seeds: Iterable[Seed], catalogue: Catalogue, *, randint: RandomInt = random_between
) -> ApiGraph:
    """Change the seeds as the page does after a run; seeds that share a value go on sharing it."""
    nodes = dict(graph.nodes)
    drawn_by_group: dict[str, int] = {}
    for seed in seeds:
        node = nodes.get(seed.node_id)
        seed_value = node.inputs.get(seed.input_name) if node else None
        if node is None or isinstance(seed_value, ApiLink | bool) or not isinstance(seed_value, int | float):
            continue
        input_spec = open_inputs(catalogue.get(node.class_type, {}), node.inputs).specs.get(seed.input_name)
        # Seeds of one primitive, or of one promoted input, are one widget on the page.
        if seed.group not in drawn_by_group:
            drawn_by_group[seed.group] = _next_seed(int(seed_value), seed.control, input_spec, randint)
        nodes[seed.node_id] = replace(node, inputs={**node.inputs, seed.input_name: drawn_by_group[seed.group]})
    return ApiGraph(nodes=nodes)


def _next_seed(seed_value: int, control: str, input_spec: InputSpec | None, randint: RandomInt) -> int:
    match control:
        case "randomize":
            return random_seed(input_spec, randint)
        case "increment" | "decrement":
            step = _number_option(input_spec, "step", 1)
            moved_value = seed_value + step if control == "increment" else seed_value - step
            return min(
                max(moved_value, _number_option(input_spec, "min", moved_value)),
                _number_option(input_spec, "max", moved_value),
            )
        case _:
            return seed_value


def _number_option(input_spec: InputSpec | None, option_name: str, default: int) -> int:
    option_value = input_spec.options.get(option_name) if input_spec else None
    return int(option_value) if isinstance(option_value, int | float) else default
