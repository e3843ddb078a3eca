"""How far a prompt is, as one fraction that never goes back: nodes weighed by what they usually cost. Pure."""

import re
from collections.abc import Mapping

from comfypin.engine.interface import EngineEvent, NodeFinished, NodeProgress, NodeStarted, Started
from comfypin.workflow.graph import ApiGraph, ApiNode, NodeId

# Seconds in proportion, as a GPU spends them; the first pattern that a class matches counts.
_WEIGHTS: tuple[tuple[re.Pattern[str], float], ...] = (
    (re.compile(r"(checkpoint|unet|diffusion|vae|clip|lora|model).*load|load.*(checkpoint|unet|vae|clip)", re.I), 8.0),
    (re.compile(r"sampler(?!.*select)", re.I), 30.0),
    (re.compile(r"upscale.*model|interpolat|rife", re.I), 15.0),
    (re.compile(r"vae.*(decode|encode)", re.I), 5.0),
    (re.compile(r"video|save.*(webm|mp4|animated)|combine", re.I), 4.0),
    (re.compile(r"textencode|clipvision", re.I), 2.0),
)
_LIGHT = 1.0
_STEPS_OF_WEIGHT = 20.0
_MOST_STEPS = 1000.0


class Progress:
    """The fraction of a prompt that is done, fed with its events."""

    def __init__(self, graph: ApiGraph, weights: Mapping[NodeId, float] | None = None) -> None:
        given = weights or {}
        self._weights = {node_id: given.get(node_id) or weigh(node) for node_id, node in graph.nodes.items()}
        self._done: dict[NodeId, float] = {}
        self._fraction = 0.0

    @property
    def fraction(self) -> float:
        """From 0 to 1; 1 is only ever reached by `finish`."""
        return self._fraction

    def hear(self, event: EngineEvent) -> float:
        """Take an event into account; the fraction after it."""
        match event:
            case Started(cached=cached):
                # Cached nodes cost nothing: what remains is the whole.
                for node_id in cached:
                    self._weights.pop(node_id, None)
            case NodeStarted(node_id=node_id):
                self._done.setdefault(node_id, 0.0)
            case NodeProgress(node_id=node_id, value=value, maximum=maximum) if maximum > 0:
                self._done[node_id] = max(self._done.get(node_id, 0.0), min(value / maximum, 1.0))
            case NodeFinished(node_id=node_id):
                self._done[node_id] = 1.0
            case _:
                return self._fraction
        return self._advance()

    def finish(self) -> float:
        """The prompt has succeeded, whatever was heard of its nodes."""
        self._fraction = 1.0
        return self._fraction

    def _advance(self) -> float:
        whole = sum(self._weights.values())
        done = sum(self._weights.get(node_id, 0.0) * part for node_id, part in self._done.items())
        # Nodes that do not run at all (a lazy input's) leave a rest, which only the end may fill.
        self._fraction = max(self._fraction, min(done / whole, 0.99)) if whole else self._fraction
        return self._fraction


def weigh(node: ApiNode) -> float:
    """What a node is likely to cost, against 1 for a light one; a sampler by its steps."""
    weight = next((weight for pattern, weight in _WEIGHTS if pattern.search(node.class_type)), _LIGHT)
    steps = node.inputs.get("steps")
    if isinstance(steps, int | float) and not isinstance(steps, bool) and 0 < steps <= _MOST_STEPS:
        weight *= max(steps / _STEPS_OF_WEIGHT, 0.1)
    return weight
