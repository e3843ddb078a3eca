"""The way from one lock to another, part by part, so that what changed a picture can be found by halving (pure)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from comfypin.lock.diff import Change, diff
from comfypin.lock.model import Lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The lock after one more part has become the other's: the part, and its pins that changed."""

    part: str
    lock: Lock
    changes: tuple[Change, ...]


def steps(before: Lock, after: Lock) -> tuple[Step, ...]:
    """One step for each part that differs: ComfyUI, each node, the packages together, each model, the engine."""
    way: list[Step] = []
    lock = before
    for part, changed in _parts(before, after, before):
        fresh = diff(lock, changed)
        lock = changed
        if fresh:
            way.append(Step(part=part, lock=lock, changes=fresh))
    return tuple(way)


def _parts(before: Lock, after: Lock, lock: Lock) -> Iterator[tuple[str, Lock]]:
    lock = replace(lock, comfyui=after.comfyui)
    yield "ComfyUI", lock
    nodes = {node.folder: node for node in before.custom_nodes}
    wanted = {node.folder: node for node in after.custom_nodes}
    for folder in sorted({*nodes, *wanted}):
        if folder in wanted:
            nodes[folder] = wanted[folder]
        else:
            nodes.pop(folder)
        lock = replace(lock, custom_nodes=tuple(nodes.values()))
        yield f"the node {folder}", lock
    lock = replace(lock, python=after.python)
    yield "the Python packages", lock
    models = {model.target_path: model for model in before.models}
    chosen = {model.target_path: model for model in after.models}
    for path in sorted({*models, *chosen}):
        if path in chosen:
            models[path] = chosen[path]
        else:
            models.pop(path)
        lock = replace(lock, models=tuple(models.values()))
        yield f"the model {path}", lock
    lock = replace(lock, engine=after.engine)
    yield "the engine", lock
