"""Finds the values that a job ran with and that neither its workflow nor its request says: what was drawn. Pure.

They are in its result, so that whoever has that can have the same again: as `set`, or in the workflow that is shown.
"""

from collections.abc import Collection, Mapping

from comfypin.digest import JsonValue
from comfypin.jobs.secret_fields import holds_secret
from comfypin.workflow.graph import ApiGraph, ApiLink, NodeId
from comfypin.workflow.load import Workflow
from comfypin.workflow.overrides import RANDOM, Override


def find_own_values(
    workflow: Workflow,
    changed: ApiGraph,
    overrides: Collection[Override],
    *,
    given: Collection[tuple[NodeId, str]] = (),
) -> Mapping[str, JsonValue]:
    """Return seeds and dynamic prompts that were drawn, and the `given` names of files, by `NODE.INPUT`.

    `changed` is the workflow's graph with the job's values. Empty if one of them may be a secret.
    """
    conversion = workflow.conversion
    prompts = conversion.written.dynamic_prompts if conversion is not None else {}
    always = {*given, *(place for place, is_drawn in prompts.items() if is_drawn)}
    seeds = {(seed.node_id, seed.input_name) for seed in workflow.seeds}
    may_draw_any = any(override.value == RANDOM for override in overrides)
    values: dict[str, JsonValue] = {}
    for node_id, node in changed.nodes.items():
        own_node = workflow.graph.nodes.get(node_id)
        for input_name, value in node.inputs.items():
            if isinstance(value, ApiLink):
                continue
            place = (node_id, input_name)
            is_changed = own_node is None or own_node.inputs.get(input_name) != value
            may_be_drawn = place in seeds or (may_draw_any and isinstance(value, int) and not isinstance(value, bool))
            if place in always or (is_changed and may_be_drawn):
                values[f"{node_id}.{input_name}"] = value
    return {} if holds_secret(values) else values
