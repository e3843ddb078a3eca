"""A workflow in ComfyUI's API format as frozen values: nodes by id, values or links by input name."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from comfypin.digest import JsonValue

NodeId: TypeAlias = str


@dataclass(frozen=True, slots=True)
class ApiLink:
    """An input that takes output number `slot` of node `node_id`; `["4", 0]` in JSON."""

    node_id: NodeId
    slot: int


InputValue: TypeAlias = "ApiLink | JsonValue"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiNode:
    """One node: its class, its inputs, and the title people gave it (`_meta.title`)."""

    id: NodeId
    class_type: str
    inputs: Mapping[str, InputValue]
    title: str | None = None
    # What the server stored of its IS_CHANGED check; not sent again (see `parse`).
    is_changed: JsonValue = None

    def linked_inputs(self) -> Iterator[tuple[str, ApiLink]]:
        """Yield the inputs that are links, by input name."""
        return ((input_name, value) for input_name, value in self.inputs.items() if isinstance(value, ApiLink))


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiGraph:
    """Holds a whole workflow. `to_api()` gives what POST /prompt takes; `parse.parse_graph` reads one."""

    nodes: Mapping[NodeId, ApiNode]

    def without(self, node_ids: Iterable[NodeId]) -> "ApiGraph":
        """Return the graph without these nodes; links to them stay, which is of no matter if no output needs them."""
        gone = frozenset(node_ids)
        return ApiGraph(nodes={node_id: node for node_id, node in self.nodes.items() if node_id not in gone})

    def to_api(self) -> dict[str, JsonValue]:
        """Return the graph in ComfyUI's API format, titles under `_meta`."""
        return {node_id: _node_to_api(node) for node_id, node in self.nodes.items()}

    def to_prompt(self) -> dict[str, JsonValue]:
        """The graph for POST /prompt, with `_meta` in every node: ComfyUI 0.33 fails without it where it replaces a
        class (https://github.com/comfyanonymous/ComfyUI, app/node_replace_manager.py).
        """
        return {node_id: {"_meta": {}, **_node_to_api(node)} for node_id, node in self.nodes.items()}


def _node_to_api(node: ApiNode) -> dict[str, JsonValue]:
    inputs: dict[str, JsonValue] = {
        input_name: [value.node_id, value.slot] if isinstance(value, ApiLink) else value
        for input_name, value in node.inputs.items()
    }
    api_node: dict[str, JsonValue] = {"inputs": inputs, "class_type": node.class_type}
    if node.title is not None:
        api_node["_meta"] = {"title": node.title}
    if node.is_changed is not None:
        api_node["is_changed"] = node.is_changed
    return api_node
