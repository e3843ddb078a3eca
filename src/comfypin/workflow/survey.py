"""Would a workflow run here: what is wrong with it, the model files it loads and who brings them, its input files."""

from collections.abc import Sequence, Set
from dataclasses import dataclass

from comfypin.digest import JsonValue
from comfypin.workflow.catalogue import Catalogue
from comfypin.workflow.describe import describe_inputs
from comfypin.workflow.files import FileInput, file_inputs
from comfypin.workflow.graph import NodeId
from comfypin.workflow.load import Workflow
from comfypin.workflow.pins import LockLike, model_pin
from comfypin.workflow.preflight import Preflight, preflight


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
        """The use for machines."""
        return {
            "node": self.node_id,
            "input": self.input_name,
            "file": self.file,
            "present": self.present,
            "pin": self.pin,
            "target_path": self.target_path,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """All that is to know before a run."""

    preflight: Preflight
    models: tuple[ModelUse, ...]
    files: tuple[FileInput, ...]

    @property
    def runs(self) -> bool:
        """Whether the engine would take the workflow."""
        return not self.preflight.errors


def survey(
    workflow: Workflow, catalogue: Catalogue, lock: LockLike | None, *, brought: Set[tuple[NodeId, str]] = frozenset()
) -> Survey:
    """Check a workflow and list what it needs. `brought` are the inputs (node id, name) whose files were found."""
    graph = workflow.graph
    report = preflight(graph, catalogue, lock, brought=brought, packs=workflow.packs)
    models = tuple(
        _use(one.node_id, one.input_name, str(one.default), one.choices or (), lock)
        for one in describe_inputs(graph, catalogue)
        if one.kind == "model" and isinstance(one.default, str)
    )
    return Survey(preflight=report, models=models, files=file_inputs(graph, catalogue))


def _use(node_id: NodeId, input_name: str, file: str, choices: Sequence[JsonValue], lock: LockLike | None) -> ModelUse:
    pin = model_pin(file, lock) if lock is not None else None
    return ModelUse(
        node_id=node_id,
        input_name=input_name,
        file=file,
        present=file in choices,
        pin=pin.name if pin else None,
        target_path=pin.target_path if pin else None,
    )
