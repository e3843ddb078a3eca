"""Estimates how far a prompt is, as a fraction that never decreases: nodes weighed by their usual cost. Pure."""

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
# The weight of a sampler is meant for 20 steps, the default of ComfyUI's KSampler.
_STEPS_OF_WEIGHT = 20.0
# A typing error of a million steps must not make all other nodes vanish from the bar.
_MOST_STEPS = 1000.0


class PromptProgress:
    """Tracks the fraction of a prompt that is done, from its events."""

    def __init__(self, graph: ApiGraph, weights: Mapping[NodeId, float] | None = None) -> None:
        given = weights or {}
        self._weights = {node_id: given.get(node_id) or estimate_weight(node) for node_id, node in graph.nodes.items()}
        self._done: dict[NodeId, float] = {}
        self._fraction = 0.0

    @property
    def fraction(self) -> float:
        """Return the fraction from 0 to 1; only `mark_finished` reaches 1."""
        return self._fraction

    def apply_event(self, event: EngineEvent) -> float:
        """Take an event into account; return the fraction after it."""
        match event:
            case Started(cached=cached):
                # Cached nodes cost nothing: what remains is the whole.
                for node_id in cached:
                    self._weights.pop(node_id, None)
            case NodeStarted(node_id=node_id):
                self._done.setdefault(node_id, 0.0)
            case NodeProgress(node_id=node_id, value=value, maximum=maximum) if maximum > 0:
                # Steps may be reported out of order, or anew by a second sampler in the same node.
                self._done[node_id] = max(self._done.get(node_id, 0.0), min(value / maximum, 1.0))
            case NodeFinished(node_id=node_id):
                self._done[node_id] = 1.0
            case _:
                return self._fraction
        return self._advance_node()

    def mark_finished(self) -> float:
        """Note that the prompt has succeeded, whatever was heard of its nodes."""
        self._fraction = 1.0
        return self._fraction

    def _advance_node(self) -> float:
        total_weight = sum(self._weights.values())
        done = sum(self._weights.get(node_id, 0.0) * new_fraction for node_id, new_fraction in self._done.items())
        # Nodes that do not run at all (a lazy input's) leave a rest, which only the end may fill.
        self._fraction = max(self._fraction, min(done / total_weight, 0.99)) if total_weight else self._fraction
        return self._fraction


def estimate_weight(node: ApiNode) -> float:
    """Estimate what a node costs, against 1 for a light one; a sampler by its steps."""
    weight = next((weight for pattern, weight in _WEIGHTS if pattern.search(node.class_type)), _LIGHT)
    steps = node.inputs.get("steps")
    if isinstance(steps, int | float) and not isinstance(steps, bool) and 0 < steps <= _MOST_STEPS:
        weight *= max(steps / _STEPS_OF_WEIGHT, 0.1)
    return weight
