"""Results that outlive a prompt: the next one with the same node and inputs takes them over."""

import hashlib
import json
import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from comfypin.digest import JsonValue
from comfypin.engine.embedded.declare import NodeClass, Value
from comfypin.engine.embedded.folders import Folders
from comfypin.engine.embedded.order import is_link, links_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a node produced: one list of values for each output slot, and what it showed (None: nothing)."""

    slots: tuple[list[Value], ...]
    shown: Mapping[str, JsonValue] | None = None
    meta: Mapping[str, JsonValue] | None = None


class ResultCache:
    """Results by signature. As in ComfyUI, only those that the latest prompt could use are kept."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}

    def keep_only(self, signatures: Iterable[str]) -> None:
        """Drop all others."""
        self._kept = {each: self._kept[each] for each in signatures if each in self._kept}

    def get(self, signature: str) -> Kept | None:
        """The result, where there is one."""
        return self._kept.get(signature)

    def put(self, signature: str, kept: Kept) -> None:
        """Remember a result."""
        self._kept[signature] = kept

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def fingerprints(graph: Mapping[str, Any], classes: Mapping[str, NodeClass], folders: Folders) -> dict[str, str]:
    """What tells that a node must run again though its inputs are the same, for nodes that have such a thing.

    A node whose fingerprint fails gets one that nothing else has.
    """
    found: dict[str, str] = {}
    for node_id, node in graph.items():
        tell = classes[node["class_type"]].fingerprint
        if tell is None:
            continue
        try:
            found[node_id] = tell(folders, node["inputs"])
        except (OSError, ValueError, KeyError, TypeError) as problem:
            log.info("no fingerprint", extra={"action": "fingerprint_failed", "why": str(problem)})
            found[node_id] = secrets.token_hex()
    return found


def signatures(graph: Mapping[str, Any], fingerprints: Mapping[str, str]) -> dict[str, str]:
    """For each node a digest of its class, its fingerprint, its inputs, and the digests of the nodes above it.

    A node that no signature can be told for (its links lead nowhere or in a circle) gets one that nothing else has.
    """
    known: dict[str, str] = {}
    for root in graph:
        stack, entered = [root], set[str]()
        while stack:
            node_id = stack[-1]
            missing = [source for source, _ in links_of(graph, node_id) if source in graph and source not in known]
            if node_id in known or (missing and node_id in entered):
                known.setdefault(node_id, secrets.token_hex())
            elif missing:
                entered.add(node_id)
                stack += missing
                continue
            else:
                known[node_id] = _signature(graph[node_id], fingerprints.get(node_id), known)
            stack.pop()
    return known


def _signature(node: Mapping[str, Any], fingerprint: str | None, known: Mapping[str, str]) -> str:
    inputs = node.get("inputs")
    if not isinstance(inputs, dict):
        return secrets.token_hex()
    named = {
        name: [known.get(value[0]), value[1]] if is_link(value) else {"value": value} for name, value in inputs.items()
    }
    text = json.dumps([node["class_type"], fingerprint, named], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
