"""Walk from one lock to another, part by part, so that what changed a picture can be found by halving (pure)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from comfypin.lock.diff import PinChange, diff_locks
from comfypin.lock.model import Lock


@dataclass(frozen=True, slots=True, kw_only=True)
class BisectStep:
    """The lock after one more part has become the other's, with that part's name and its changed pins."""

    part: str
    lock: Lock
    changes: tuple[PinChange, ...]


def bisect_steps(before: Lock, after: Lock) -> tuple[BisectStep, ...]:
    """Return one step for each part that differs: ComfyUI, each node, all packages together, each model, the engine."""
    steps_so_far: list[BisectStep] = []
    current_lock = before
    for part_name, changed in _changed_parts(before, after, before):
        # A part may differ in a way that no pin shows, such as the order of nodes: such a step proves nothing.
        part_changes = diff_locks(current_lock, changed)
        current_lock = changed
        if part_changes:
            steps_so_far.append(BisectStep(part=part_name, lock=current_lock, changes=part_changes))
    return tuple(steps_so_far)


def _changed_parts(before: Lock, after: Lock, current_lock: Lock) -> Iterator[tuple[str, Lock]]:
    current_lock = replace(current_lock, comfyui=after.comfyui)
    yield "ComfyUI", current_lock
    # Each step keeps what the steps before it changed, so the last one is the other lock.
    nodes_by_folder = {node_pin.folder: node_pin for node_pin in before.custom_nodes}
    wanted_nodes = {node_pin.folder: node_pin for node_pin in after.custom_nodes}
    for folder in sorted({*nodes_by_folder, *wanted_nodes}):
        if folder in wanted_nodes:
            nodes_by_folder[folder] = wanted_nodes[folder]
        else:
            nodes_by_folder.pop(folder)
        current_lock = replace(current_lock, custom_nodes=tuple(nodes_by_folder.values()))
        yield f"the node {folder}", current_lock
    # All packages are one step: half of a resolution was never resolved, and rarely installs.
    current_lock = replace(current_lock, python=after.python)
    yield "the Python packages", current_lock
    models_by_path = {model_pin.target_path: model_pin for model_pin in before.models}
    wanted_models = {model_pin.target_path: model_pin for model_pin in after.models}
    for target_path in sorted({*models_by_path, *wanted_models}):
        if target_path in wanted_models:
            models_by_path[target_path] = wanted_models[target_path]
        else:
            models_by_path.pop(target_path)
        current_lock = replace(current_lock, models=tuple(models_by_path.values()))
        yield f"the model {target_path}", current_lock
    current_lock = replace(current_lock, engine=after.engine)
    yield "the engine", current_lock
