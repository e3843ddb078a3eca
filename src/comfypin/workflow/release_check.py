"""Check whether a workflow would run here: its errors, its model files with their pins, and its input files."""

from collections.abc import Iterator, Set
from dataclasses import dataclass, replace

from comfypin.digest import JsonValue
from comfypin.workflow.findings import WorkflowFinding
from comfypin.workflow.graph import ApiGraph, NodeId
from comfypin.workflow.input_files import FileInput, file_inputs
from comfypin.workflow.load import Workflow
from comfypin.workflow.missing_pins import LockLike, find_model_pin, find_pack_pin
from comfypin.workflow.object_info import Catalogue, input_specs, module_of
from comfypin.workflow.preflight import Preflight, run_preflight
from comfypin.workflow.settable_inputs import describe_inputs, is_model_file
from comfypin.workflow.spelling import respell_graph


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """A model file that a node loads: whether the engine has it, and the pin of the lock that brings it."""

    node_id: NodeId
    input_name: str
    file: str
    present: bool
    pin: str | None
    target_path: str | None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the use as JSON."""
        return {
            "node": self.node_id,
            "input": self.input_name,
            "file": self.file,
            "present": self.present,
            "pin": self.pin,
            "target_path": self.target_path,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCheck:
    """Everything to know about a workflow before it runs."""

    preflight: Preflight
    models: tuple[ModelUse, ...]
    files: tuple[FileInput, ...]

    @property
    def can_run(self) -> bool:
        """Return whether the engine would take the workflow."""
        return not self.preflight.errors


def check_workflow(
    workflow: Workflow, catalogue: Catalogue, lock: LockLike | None, *, brought: Set[tuple[NodeId, str]] = frozenset()
) -> WorkflowCheck:
    """Check a workflow and list what it needs. `brought` are the inputs (node id, name) whose files were found."""
    # First, because the engine's spelling decides whether a file is present.
    respelt_graph = respell_graph(workflow.graph, catalogue, brought=brought)
    api_graph = respelt_graph.graph
    preflight_report = run_preflight(api_graph, catalogue, lock, brought=brought, packs=workflow.node_packs)
    preflight_report = replace(
        preflight_report, findings=(*workflow.warnings, *respelt_graph.findings, *preflight_report.findings)
    )
    return WorkflowCheck(
        preflight=preflight_report,
        models=tuple(_model_uses(api_graph, catalogue, lock)),
        files=file_inputs(api_graph, catalogue),
    )


def find_unpinned(check: WorkflowCheck, graph: ApiGraph, catalogue: Catalogue, lock: LockLike) -> WorkflowCheck:
    """Return the check with a warning for each model and node pack that is here, and that the lock does not pin."""
    message = f"is here, and the lock {lock.version_name} does not pin it: a ComfyUI made of the lock would lack it"
    findings = [
        WorkflowFinding(
            code="model_unpinned",
            message=f"the model {model_use.file} {message}",
            node_id=model_use.node_id,
            input_name=model_use.input_name,
        )
        for model_use in check.models
        # ComfyUI itself brings the configurations of old checkpoints.
        if model_use.present and model_use.pin is None and is_model_file(model_use.file)
    ]
    for node in graph.nodes.values():
        module_name = module_of(catalogue.get(node.class_type, {}))
        root, _, pack = module_name.partition(".")
        if root == "custom_nodes" and pack and find_pack_pin(pack, lock) is None:
            findings.append(
                WorkflowFinding(
                    code="node_unpinned",
                    message=f"the node pack {pack} {message}",
                    node_id=node.id,
                    class_type=node.class_type,
                )
            )
    warnings = (replace(finding, severity="warning") for finding in findings)
    return replace(check, preflight=replace(check.preflight, findings=(*check.preflight.findings, *warnings)))


def _model_uses(api_graph: ApiGraph, catalogue: Catalogue, lock: LockLike | None) -> Iterator[ModelUse]:
    """Yield every model file that a node names: as a choice, as a text, or in a class that the engine lacks."""
    inputs_by_place = {
        (described_input.node_id, described_input.input_name): described_input
        for described_input in describe_inputs(api_graph, catalogue)
    }
    known_names: frozenset[str] | None = None
    for node in api_graph.nodes.values():
        for input_name, input_value in node.inputs.items():
            described_input = inputs_by_place.get((node.id, input_name))
            # A prompt may end in `.pt`, and a brought file is not a model.
            if described_input is not None and described_input.kind in ("prompt", "file"):
                continue
            if not isinstance(input_value, str) or not (
                is_model_file(input_value) or (described_input and described_input.kind == "model")
            ):
                continue
            if described_input is not None and described_input.choices is not None:
                yield _make_model_use(
                    node.id, input_name, input_value, lock, present=input_value in described_input.choices
                )
            elif described_input is not None or node.class_type not in catalogue:
                # No list says which files this input takes; what some loader lists is there.
                known_names = known_files(catalogue) if known_names is None else known_names
                yield _make_model_use(
                    node.id, input_name, input_value, lock, present=input_value.replace("\\", "/") in known_names
                )


def known_files(catalogue: Catalogue) -> frozenset[str]:
    """Return every model file that some class offers as a choice, with forward slashes."""
    return frozenset(
        choice.replace("\\", "/")
        for definition in catalogue.values()
        for input_spec in input_specs(definition).values()
        for choice in input_spec.choices or ()
        if isinstance(choice, str) and is_model_file(choice)
    )


def _make_model_use(
    node_id: NodeId, input_name: str, file_name: str, lock: LockLike | None, *, present: bool
) -> ModelUse:
    model_pin = find_model_pin(file_name, lock) if lock is not None else None
    return ModelUse(
        node_id=node_id,
        input_name=input_name,
        file=file_name,
        present=present,
        pin=model_pin.name if model_pin else None,
        target_path=model_pin.target_path if model_pin else None,
    )
