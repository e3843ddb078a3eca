"""Keeps results for the next prompt that has the same node with the same inputs."""

import hashlib
import json
import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from comfypin.digest import JsonValue
from comfypin.engine.embedded.declare import NodeClass, NodeValue
from comfypin.engine.embedded.execution_order import input_links, is_link
from comfypin.engine.embedded.folders import EngineFolders

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedResult:
    """Keeps a node's results: one list of values for each output slot, and what it showed (None: nothing)."""

    slots: tuple[list[NodeValue], ...]
    shown: Mapping[str, JsonValue] | None = None
    meta: Mapping[str, JsonValue] | None = None


class ResultCache:
    """Keeps results by signature. As in ComfyUI, only those that the latest prompt could use stay."""

    def __init__(self) -> None:
        self._kept: dict[str, CachedResult] = {}

    def keep_only(self, signatures: Iterable[str]) -> None:
        """Drop all other results."""
        self._kept = {signature: self._kept[signature] for signature in signatures if signature in self._kept}

    def find_result(self, signature: str) -> CachedResult | None:
        """Return the result, or None."""
        return self._kept.get(signature)

    def store_result(self, signature: str, result: CachedResult) -> None:
        """Remember a result."""
        self._kept[signature] = result

    def clear_results(self) -> None:
        """Forget all results."""
        self._kept.clear()


def compute_fingerprints(
    graph: Mapping[str, Any], classes: Mapping[str, NodeClass], folders: EngineFolders
) -> dict[str, str]:
    """Return the fingerprints of nodes that may have to run again although their inputs are the same.

    A node whose fingerprint fails gets one that nothing else has.
    """
    by_node: dict[str, str] = {}
    for node_id, node in graph.items():
        compute = classes[node["class_type"]].fingerprint
        if compute is None:
            continue
        try:
            by_node[node_id] = compute(folders, node["inputs"])
        except (OSError, ValueError, KeyError, TypeError) as problem:
            log.info("no fingerprint", extra={"action": "fingerprint_failed", "why": str(problem)})
            # Unique, so the node runs; its own error then says what is wrong with the file.
            by_node[node_id] = secrets.token_hex()
    return by_node


def compute_signatures(graph: Mapping[str, Any], fingerprints: Mapping[str, str]) -> dict[str, str]:
    """Return for each node a digest of its class, its fingerprint, its inputs, and the digests of the nodes above it.

    A node without a signature (its links lead nowhere or in a circle) gets one that nothing else has.
    """
    computed: dict[str, str] = {}
    for root in graph:
        stack, entered = [root], set[str]()
        while stack:
            node_id = stack[-1]
            missing = [
                source_id
                for source_id, _ in input_links(graph, node_id)
                if source_id in graph and source_id not in computed
            ]
            # Met again while its sources are still missing: the links run in a circle.
            if node_id in computed or (missing and node_id in entered):
                computed.setdefault(node_id, secrets.token_hex())
            elif missing:
                entered.add(node_id)
                stack += missing
                continue
            else:
                computed[node_id] = _compute_signature(graph[node_id], fingerprints.get(node_id), computed)
            stack.pop()
    return computed


def _compute_signature(node: Mapping[str, Any], fingerprint: str | None, computed_digests: Mapping[str, str]) -> str:
    inputs = node.get("inputs")
    if not isinstance(inputs, dict):
        return secrets.token_hex()
    named_sources = {
        input_name: [computed_digests.get(value[0]), value[1]] if is_link(value) else {"value": value}
        for input_name, value in inputs.items()
    }
    # A value is wrapped, so that a list that is a value never looks like a link.
    signature_text = json.dumps([node["class_type"], fingerprint, named_sources], sort_keys=True)
    # Texts from a client may hold half of a surrogate pair, which UTF-8 alone refuses.
    return hashlib.sha256(signature_text.encode("utf-8", "surrogatepass")).hexdigest()
