"""A workflow that a client submits, checked against the engine before its job is taken."""

from collections.abc import Collection, Mapping, Sequence, Set

from comfypin.digest import JsonValue
from comfypin.engine.interface import Catalogue
from comfypin.lock.model import Lock
from comfypin.server.comfy_api.errors import ApiFailure
from comfypin.server.comfy_api.references import AssetInput
from comfypin.workflow.brought_models import find_model_names
from comfypin.workflow.document import to_document
from comfypin.workflow.errors import WorkflowInvalid, WorkflowUnreadable
from comfypin.workflow.input_files import file_inputs
from comfypin.workflow.load import load_workflow
from comfypin.workflow.preflight import run_preflight
from comfypin.workflow.spelling import respell_graph

_SOURCE = "in the job"


def check_workflow(
    workflow: Mapping[str, object],
    references: Sequence[AssetInput],
    *,
    catalogue: Catalogue,
    lock: Lock | None,
    brought_models: Collection[str] = (),
) -> None:
    """Refuse what could not run, with what is wrong at each node. Blocks. Raises `ApiFailure`.

    It must be a graph (`require_graph`), with file names in place of the references. `brought_models` are the paths,
    below their folders, of models that came while the engine ran, which its catalogue may not have yet.
    """
    brought = frozenset((reference.node_id, reference.input_name) for reference in references)
    try:
        loaded = load_workflow(to_document(workflow, source=_SOURCE), catalogue)
        named_models = find_model_names(loaded.graph, brought_models, catalogue)
        accepted = brought | named_models.inputs
        graph = respell_graph(named_models.graph, catalogue, brought=accepted).graph
        if brought:
            readers = {(file_input.node_id, file_input.input_name) for file_input in file_inputs(graph, catalogue)}
            _require_readers(brought, readers)
        run_preflight(graph, catalogue, lock, brought=accepted, packs=loaded.node_packs).raise_if_refused(_SOURCE)
    except WorkflowInvalid as exc:
        details: dict[str, JsonValue] = {"node_errors": _by_node(exc.findings)}
        raise ApiFailure(422, "invalid_workflow", exc.message, details=details) from exc
    except WorkflowUnreadable as exc:
        raise ApiFailure(422, "invalid_workflow", exc.message) from exc


def require_graph(workflow: Mapping[str, object]) -> None:
    """Refuse what is not a graph in API format. Raises `ApiFailure` (workflow_format_ui, invalid_workflow)."""
    if isinstance(workflow.get("nodes"), list):
        message = "The workflow is in ComfyUI's UI format; export it in ComfyUI with Workflow > Export (API)."
        raise ApiFailure(422, "workflow_format_ui", message)
    try:
        document = to_document(workflow, source=_SOURCE)
    except WorkflowUnreadable as exc:
        raise ApiFailure(422, "invalid_workflow", exc.message) from exc
    if document.content is not workflow:
        message = "The workflow must be the graph itself: nodes by their ids."
        raise ApiFailure(422, "invalid_workflow", message)
    if not workflow:
        raise ApiFailure(422, "invalid_workflow", "The workflow has no nodes.")


def _require_readers(brought: Set[tuple[str, str]], readers: Set[tuple[str, str]]) -> None:
    for node_id, input_name in brought - readers:
        message = (
            f"Node {node_id[:100]}, input {input_name[:100]}: it does not load a file, so an asset cannot stand there."
        )
        details: dict[str, JsonValue] = {
            "node_errors": {node_id: [{"field": input_name, "reason": "not_a_file_input"}]}
        }
        raise ApiFailure(422, "invalid_workflow", message, details=details)


def _by_node(findings: Sequence[Mapping[str, object]]) -> dict[str, JsonValue]:
    nodes: dict[str, list[JsonValue]] = {}
    for finding in findings:
        finding_facts = {
            "field": finding.get("input"),
            "reason": finding.get("code"),
            "message": finding.get("message"),
        }
        facts_json: JsonValue = {
            fact_name: str(value) for fact_name, value in finding_facts.items() if value is not None
        }
        nodes.setdefault(str(finding.get("node") or ""), []).append(facts_json)
    return {node: list(problems) for node, problems in nodes.items()}
