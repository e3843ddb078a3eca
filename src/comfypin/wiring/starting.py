"""Shortens an engine's start: checks models meanwhile, and leaves out what no job needs."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from comfypin.errors import WorkflowError
from comfypin.wiring.engines import EngineChoice
from comfypin.wiring.models import bring_models, inspect_lock_models

if TYPE_CHECKING:
    from comfypin.jobs.workflow_library import WorkflowLibrary
    from comfypin.lock.model import Lock
    from comfypin.settings.environment import Settings

log = logging.getLogger(__name__)


def are_models_there(lock: "Lock", settings: "Settings") -> bool:
    """Return whether each model is at its path with its size: then an engine may start while they are verified."""
    from comfypin.models.target_paths import TargetRoots, list_targets

    machine = settings.machine
    roots = TargetRoots(models_dir=machine.models_dir.absolute(), comfy_home=machine.comfy_home.absolute())
    try:
        return all(
            file_path.stat().st_size == (file_path.stat().st_size if pin.size_bytes is None else pin.size_bytes)
            for pin, file_path in list_targets(lock, roots)
        )
    except OSError:
        return False


def check_models(lock: "Lock", engine_choice: EngineChoice) -> Callable[[], list[str]]:
    """Verify the lock's models, and pull those that are missing if the env is ours.

    Returns a function that names the unfit models, so that the fitness checks need not look again.
    Raises `ModelError`.
    """
    from comfypin.models.verify import Present

    if lock.engine.kind != "comfyui":
        return list
    if engine_choice.model_settings is not None:
        bring_models(lock, engine_choice.model_settings, offline=engine_choice.model_settings.env.offline)
        return list
    unfit = [
        pin.name
        for pin, finding in inspect_lock_models(lock, engine_choice.settings)
        if not isinstance(finding, Present)
    ]
    return lambda: unfit


def leave_out_api_nodes(lock: "Lock", engine_choice: EngineChoice, *, automatic: bool) -> EngineChoice:
    """Return the choice without ComfyUI's API nodes if COMFYPIN_API_NODES says so, or no workflow needs them.

    They are a fifth of ComfyUI's start. `automatic` decides if the variable does not: they go if the release has
    workflows (the lock's warm-up, those of the image) and none of them names such a class. A release without any
    keeps them, because its jobs bring workflows that nobody knows yet.
    """
    from comfypin.engine.api_nodes import NO_API_NODES, api_node_classes
    from comfypin.jobs.workflow_library import WorkflowLibrary

    machine = engine_choice.settings.machine
    is_asked = machine.api_nodes is False or (machine.api_nodes is None and automatic)
    if engine_choice.kind != "comfyui" or NO_API_NODES in engine_choice.spec.args or not is_asked:
        return engine_choice
    folders = [path for path in (machine.comfy_home / "ComfyUI", machine.comfy_home) if (path / "main.py").is_file()]
    used_classes = frozenset() if machine.api_nodes is False else _release_classes(lock, WorkflowLibrary())
    if not folders or (machine.api_nodes is None and not used_classes):
        return engine_choice
    try:
        disabled_classes = api_node_classes(folders[0])
    except OSError:
        return engine_choice
    if not disabled_classes or used_classes & disabled_classes:
        return engine_choice
    log.info(
        "API nodes left out; COMFYPIN_API_NODES=on loads them",
        extra={"action": "api_nodes_left_out", "classes": len(disabled_classes)},
    )
    return replace(engine_choice, added_arguments=(NO_API_NODES,), left_out_classes=disabled_classes)


def _release_classes(lock: "Lock", workflows: "WorkflowLibrary") -> frozenset[str]:
    """Return the node classes of all workflows of the release; none if one of them cannot be read."""
    from comfypin.workflow.document import to_document
    from comfypin.workflow.named_files import class_names

    try:
        documents = [workflows.read_workflow(workflow_name) for workflow_name in workflows.list_names()]
        if lock.engine.warmup:
            documents.append(to_document(dict(lock.engine.warmup), source="engine.warmup in the lock"))
        return frozenset().union(*map(class_names, documents))
    except WorkflowError:
        return frozenset()
