"""What a workflow's author chose to be set in it (ComfyUI's app mode), described as other inputs are. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from comfypin.workflow.convert.app_mode import AppInput
from comfypin.workflow.graph import ApiGraph, ApiLink, NodeId
from comfypin.workflow.inputs_file import InputsFile, describe_unlisted, named_inputs
from comfypin.workflow.load import Workflow
from comfypin.workflow.object_info import Catalogue
from comfypin.workflow.overrides import Override
from comfypin.workflow.settable_inputs import WorkflowInput, describe_inputs


def app_inputs(workflow: Workflow, catalogue: Catalogue) -> tuple[WorkflowInput, ...]:
    """Return the inputs that the author chose, in that order, or none; of what a run would not use, none is listed.

    A name is what the page shows; if several share it, the node's title goes before it, or else the node's id.
    """
    graph = workflow.graph
    known = {(app_input.node_id, app_input.input_name): app_input for app_input in describe_inputs(graph, catalogue)}
    chosen = [(app_input, _open_places(app_input, graph)) for app_input in workflow.app_inputs]
    listed = [(app_input, places) for app_input, places in chosen if places]
    names = _unique_names([app_input for app_input, _ in listed])
    return tuple(
        replace(known.get(places[0]) or describe_unlisted(graph, places[0]), name=input_name, also=places[1:])
        for input_name, (_, places) in zip(names, listed, strict=True)
    )


def offered_inputs(
    workflow: Workflow, catalogue: Catalogue, inputs_file: InputsFile | None
) -> tuple[WorkflowInput, ...]:
    """Return what others may set by name: as the inputs file says, or else app mode; none if neither says it.

    Raises `InputsFileInvalid`.
    """
    if inputs_file is not None:
        return named_inputs(workflow.graph, catalogue, inputs_file)
    return app_inputs(workflow, catalogue)


def with_shared_places(overrides: Iterable[Override], inputs: Sequence[WorkflowInput]) -> tuple[Override, ...]:
    """Return the overrides with one more for each further place that an input sets, if it is set by its name."""
    by_name = {app_input.name: app_input for app_input in inputs if app_input.also}
    expanded: list[Override] = []
    for requested in overrides:
        expanded.append(requested)
        if (shared := by_name.get(requested.target)) is not None:
            expanded += [replace(requested, target=f"{node_id}.{input_name}") for node_id, input_name in shared.also]
    return tuple(expanded)


def _open_places(app_input: AppInput, graph: ApiGraph) -> tuple[tuple[NodeId, str], ...]:
    return tuple(
        (node_id, input_name)
        for node_id, input_name in app_input.places
        if node_id in graph.nodes
        and input_name in graph.nodes[node_id].inputs
        and not isinstance(graph.nodes[node_id].inputs[input_name], ApiLink)
    )


def _unique_names(inputs: Sequence[AppInput]) -> list[str]:
    counts = Counter(app_input.name for app_input in inputs)
    titled = [
        app_input.name if counts[app_input.name] == 1 else f"{app_input.title or app_input.host_id}.{app_input.name}"
        for app_input in inputs
    ]
    titled_counts = Counter(titled)
    numbered = [
        input_name if titled_counts[input_name] == 1 else f"{app_input.host_id}.{app_input.name}"
        for input_name, app_input in zip(titled, inputs, strict=True)
    ]
    # Two entries of one host and name may only differ further in; a name must still mean one of them.
    seen: Counter[str] = Counter()
    unique = []
    for input_name in numbered:
        seen[input_name] += 1
        unique.append(input_name if seen[input_name] == 1 else f"{input_name} ({seen[input_name]})")
    return unique
