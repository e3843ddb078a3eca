"""Read JSON in ComfyUI's API format as an `ApiGraph`, and name everything that is wrong with it at once."""

from collections.abc import Mapping

from comfypin.digest import JsonValue
from comfypin.workflow.document import Document, to_document
from comfypin.workflow.errors import WorkflowUnreadable
from comfypin.workflow.findings import WorkflowFinding, raise_if_errors, show_value
from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode, InputValue

_UI_FORMAT = "it is in ComfyUI's UI format, which must be converted with an engine's node list before it can run"
_EXPORT_ADVICE = "Export it in ComfyUI with Workflow > Export (API)"
_CONVERT_HINT = "Or convert it: comfypin workflow convert."


def parse_graph(json_value: object, *, source: str = "given") -> ApiGraph:
    """Read a JSON value in API format, also inside the usual wrappers.

    Raises `WorkflowUnreadable` (no workflow at all, or the UI format) or `WorkflowInvalid` with every finding.
    """
    return parse_document(to_document(json_value, source=source))


def parse_document(document: Document) -> ApiGraph:
    """Read a document in API format; an empty one gives an empty graph. Raises what `parse_graph` raises."""
    if document.format == "ui":
        raise WorkflowUnreadable(source=document.source, reason=_UI_FORMAT, _advice=_EXPORT_ADVICE, _hint=_CONVERT_HINT)
    nodes: dict[str, ApiNode] = {}
    findings: list[WorkflowFinding] = []
    for node_id, raw_node in document.content.items():
        node = _parse_node(node_id, raw_node, document.content, findings)
        if node is not None:
            nodes[node_id] = node
    raise_if_errors(document.source, findings)
    return ApiGraph(nodes=nodes)


def _parse_node(
    node_id: str, raw_node: JsonValue, content: Mapping[str, JsonValue], findings: list[WorkflowFinding]
) -> ApiNode | None:
    if not isinstance(raw_node, Mapping):
        message = f'it is {show_value(raw_node)}, and a node is an object with "class_type" and "inputs"'
        findings.append(WorkflowFinding(code="node_not_an_object", message=message, node_id=node_id))
        return None
    title = _read_title(raw_node)
    class_type = raw_node.get("class_type")
    if not isinstance(class_type, str) or not class_type:
        message = (
            'it has no "class_type": ComfyUI exports a node like this if its pack is not '
            "installed there; install the pack, open the workflow and export it again"
        )
        if isinstance(class_type, str) or "class_type" in raw_node:
            message = f'its "class_type" is {show_value(class_type)}, and must be the name of a node class'
        findings.append(WorkflowFinding(code="class_type_missing", message=message, node_id=node_id, title=title))
        return None
    inputs = raw_node.get("inputs", {})
    if not isinstance(inputs, Mapping):
        message = f'its "inputs" are {show_value(inputs)}, and must be an object of values and links by name'
        findings.append(
            WorkflowFinding(
                code="inputs_not_an_object", message=message, node_id=node_id, title=title, class_type=class_type
            )
        )
        return None
    # The server writes `is_changed` into the prompt that it stores in a picture; sent back, it would make the server
    # believe that a changed input file is the same.
    return ApiNode(
        id=node_id,
        class_type=class_type,
        inputs={input_name: _parse_input(json_value, content) for input_name, json_value in inputs.items()},
        title=title,
    )


def _parse_input(json_value: JsonValue, content: Mapping[str, JsonValue]) -> InputValue:
    if not isinstance(json_value, list) or len(json_value) != 2:
        return json_value
    node_id, output_slot = json_value
    # Some tools write every number as a float; the server takes 0.0 for 0.
    if isinstance(output_slot, float) and output_slot.is_integer():
        output_slot = int(output_slot)
    if not isinstance(output_slot, int) or isinstance(output_slot, bool):
        return json_value
    # Ids are texts in the format, but hand-written prompts often have numbers.
    if isinstance(node_id, int) and not isinstance(node_id, bool) and str(node_id) in content:
        return ApiLink(str(node_id), output_slot)
    return ApiLink(node_id, output_slot) if isinstance(node_id, str) else json_value


def _read_title(raw_node: Mapping[str, JsonValue]) -> str | None:
    metadata = raw_node.get("_meta")
    title = metadata.get("title") if isinstance(metadata, Mapping) else None
    return title if isinstance(title, str) else None
