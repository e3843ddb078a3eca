"""Group nodes of older files turned into subgraphs, as the page does it on loading.

A group node is a class that the file itself describes (`extra.groupNodes`): its inner nodes, the wires between them,
and which of their outputs are seen outside. Its inputs and widgets are those of the inner nodes, in their order, that
no inner wire feeds; a name that is there already gets the inner node's title before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from comfypin.digest import JsonValue
from comfypin.workflow.convert.layout import lay_out_values
from comfypin.workflow.convert.pages import PageRules
from comfypin.workflow.convert.ui import INPUT_NODE, OUTPUT_NODE, UiGraph, UiNode, UiWorkflow, read_group, type_text
from comfypin.workflow.convert.widgets import (
    UNSET,
    WidgetValue,
    control_name,
    has_widget,
    is_controlled,
    make_page_class,
)
from comfypin.workflow.findings import WorkflowFinding
from comfypin.workflow.object_info import Catalogue, InputSpec, input_specs

_PREFIXES = ("workflow>", "workflow/")
PRIMITIVE, REROUTE = "PrimitiveNode", "Reroute"


def rename_classes(workflow: UiWorkflow, page: PageRules) -> UiWorkflow:
    """The workflow with the names that the page itself gives to classes of long ago."""
    if not page.renamed_classes:
        return workflow
    definitions = {name: _rename_in_graph(graph, page) for name, graph in workflow.definitions.items()}
    return replace(workflow, root=_rename_in_graph(workflow.root, page), definitions=definitions)


def unpack_group_nodes(
    workflow: UiWorkflow, catalogue: Catalogue, page: PageRules, findings: list[WorkflowFinding]
) -> UiWorkflow:
    """The workflow with every group node of its root as a subgraph of its own; inner ids come after all others.

    A group that the file does not describe, or with a class that the engine lacks, stays and is reported as unknown.
    """
    root, definitions = workflow.root, dict(workflow.definitions)
    last = max([workflow.last_id, *_node_numbers(workflow)])
    for node in list(root.nodes.values()):
        described = _find_description(node, workflow)
        group = _GroupNode.read_description(described, catalogue, page) if described is not None else None
        if group is None:
            continue
        ids = [str(last + 1 + number) for number in range(len(group.nodes))]
        last += len(group.nodes) + 1
        name = f"{node.type}:{node.id}"
        values = group.values_of(node, page)
        raw = group.to_definition(ids, values)
        definitions[name] = read_group(raw, findings, graph_id=name, name=node.type.split(">")[-1].split("/")[-1])
        root = _replace_node(root, node, replace(node, id=str(last), type=name, values=None))
    return replace(workflow, root=root, definitions=definitions, last_id=last)


@dataclass(frozen=True, slots=True, kw_only=True)
class _InnerNode:
    """One node inside a group: what the file holds of it, and its class's inputs and outputs."""

    raw: Mapping[str, JsonValue]
    kind: str
    definition: Mapping[str, JsonValue]
    slots: tuple[InputSpec, ...]
    converted: tuple[InputSpec, ...]
    plain: tuple[InputSpec, ...]

    @property
    def label(self) -> str:
        title = self.raw.get("title")
        return title if isinstance(title, str) and title else self.kind

    @property
    def outputs(self) -> list[JsonValue]:
        listed = self.definition.get("output")
        return list(listed) if isinstance(listed, list) else []


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupLink:
    origin: int
    origin_slot: int
    target: int
    target_slot: int


@dataclass(slots=True, kw_only=True)
class _GroupNode:
    """A group node's description: `widgets` and `inputs` map its own names to (inner node, input)."""

    nodes: list[_InnerNode]
    wires: list[_GroupLink]
    shown: frozenset[tuple[int, int]]
    widgets: dict[str, tuple[int, InputSpec]] = field(default_factory=dict)
    inputs: dict[str, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def read_description(
        cls, raw: Mapping[str, JsonValue], catalogue: Catalogue, page: PageRules
    ) -> "_GroupNode | None":
        """Read a description; None if it is unusable or names a class that the engine does not have."""
        wires = [wire for wire in map(_read_group_link, _as_list(raw.get("links"))) if wire is not None]
        nodes = [
            _read_inner_node(node, number, wires, catalogue) for number, node in enumerate(_as_list(raw.get("nodes")))
        ]
        known = [node for node in nodes if node is not None]
        if not known or len(known) != len(nodes):
            return None
        shown = frozenset(
            (one[0], one[1])
            for one in _as_list(raw.get("external"))
            if isinstance(one, list) and len(one) > 1 and isinstance(one[0], int) and isinstance(one[1], int)
        )
        group = cls(nodes=known, wires=wires, shown=shown)
        group._name_inputs()
        return group

    def _name_inputs(self) -> None:
        seen: dict[str, int] = {}
        fed = {(wire.target, wire.target_slot) for wire in self.wires}
        for number, node in enumerate(self.nodes):
            for spec in node.plain:
                self.widgets[_unique_name(spec.name, node, seen)] = (number, spec)
            for place, spec in enumerate(node.slots):
                if (number, place) not in fed:
                    self.inputs[_unique_name(spec.name, node, seen)] = (number, spec.name)
        for number, node in enumerate(self.nodes):
            for place, spec in enumerate(node.converted):
                if (number, len(node.slots) + place) not in fed:
                    name = _unique_name(spec.name, node, seen)
                    self.widgets[name] = (number, spec)
                    self.inputs[name] = (number, spec.name)

    def values_of(self, instance: UiNode, page: PageRules) -> list[dict[str, WidgetValue]]:
        """The inner nodes' values: what the group's description holds, and over it what the instance holds."""
        required: dict[str, JsonValue] = {name: _as_class_input(spec) for name, (_, spec) in self.widgets.items()}
        outer: dict[str, JsonValue] = {"input": {"required": required}}
        held = lay_out_values(make_page_class(instance.type, outer, page), instance.values, page).values
        values = [_own_values(node, page) for node in self.nodes]
        for name, (number, spec) in self.widgets.items():
            values[number][spec.name] = held.get(name, UNSET)
            if is_controlled(spec):
                values[number]["control_after_generate"] = held.get(control_name(name), UNSET)
        return values

    def to_definition(self, ids: Sequence[str], values: Sequence[Mapping[str, WidgetValue]]) -> dict[str, JsonValue]:
        """The group as a subgraph's definition."""
        links: list[JsonValue] = []
        wired: dict[tuple[int, str], JsonValue] = {}
        for wire in self.wires:
            name = self._input_name(wire)
            if name is not None:
                links.append(_link_row(len(links), ids[wire.origin], wire.origin_slot, ids[wire.target], name))
                wired[wire.target, name] = len(links)
        inputs: list[JsonValue] = []
        for place, (name, (number, inner)) in enumerate(self.inputs.items()):
            links.append(_link_row(len(links), INPUT_NODE, place, ids[number], inner))
            wired[number, inner] = len(links)
            inputs.append({"name": name, "type": self._type_of(number, inner), "linkIds": [len(links)]})
        outputs: list[JsonValue] = []
        for number, slot, kind in self._seen_outputs():
            row = _link_row(len(links), ids[number], slot, OUTPUT_NODE, "")
            links.append({**row, "target_slot": len(outputs)})
            outputs.append({"name": type_text(kind), "type": type_text(kind), "linkIds": [len(links)]})
        nodes: list[JsonValue] = [
            _inner_node_json(node, ids[number], values[number], {k[1]: v for k, v in wired.items() if k[0] == number})
            for number, node in enumerate(self.nodes)
        ]
        return {"nodes": nodes, "links": links, "inputs": inputs, "outputs": outputs}

    def _seen_outputs(self) -> Iterator[tuple[int, int, JsonValue]]:
        used = {(wire.origin, wire.origin_slot) for wire in self.wires}
        for number, node in enumerate(self.nodes):
            for slot, kind in enumerate(node.outputs):
                if (number, slot) not in used or (number, slot) in self.shown:
                    yield number, slot, kind

    def _input_name(self, wire: _GroupLink) -> str | None:
        node = self.nodes[wire.target]
        named = [*node.slots, *node.converted]
        return named[wire.target_slot].name if 0 <= wire.target_slot < len(named) else None

    def _type_of(self, number: int, name: str) -> str:
        node = self.nodes[number]
        return next((spec.type for spec in (*node.slots, *node.converted) if spec.name == name), "*")


def _as_class_input(spec: InputSpec) -> JsonValue:
    """An inner node's input as an input of the group; a seed keeps its control under whatever name."""
    options = {**spec.options, "control_after_generate": True} if is_controlled(spec) else dict(spec.options)
    return [list(spec.choices) if spec.choices is not None else spec.type, options]


def _read_inner_node(
    raw: JsonValue, number: int, wires: Sequence[_GroupLink], catalogue: Catalogue
) -> _InnerNode | None:
    if not isinstance(raw, Mapping):
        return None
    kind = raw.get("type")
    if not isinstance(kind, str):
        return None
    definition = catalogue.get(kind) or _virtual_definition(kind, raw, number, wires)
    if definition is None:
        return None
    listed = [slot for slot in _as_list(raw.get("inputs")) if isinstance(slot, Mapping)]
    wired = [slot.get("name") for slot in listed if isinstance(slot.get("widget"), Mapping)]
    specs = list(input_specs(definition).values())
    widgets = [spec for spec in specs if has_widget(spec)]
    by_name = {spec.name: spec for spec in widgets}
    return _InnerNode(
        raw=raw,
        kind=kind,
        definition=definition,
        slots=tuple(spec for spec in specs if not has_widget(spec)),
        converted=tuple(by_name[name] for name in wired if isinstance(name, str) and name in by_name),
        plain=tuple(spec for spec in widgets if spec.name not in wired),
    )


def _virtual_definition(
    kind: str, raw: Mapping[str, JsonValue], number: int, wires: Sequence[_GroupLink]
) -> Mapping[str, JsonValue] | None:
    """What the page makes of a primitive or a reroute inside a group: a class with one output."""
    if kind == REROUTE:
        return {"input": {"required": {"": ["*", {"forceInput": True}]}}, "output": ["*"]}
    if kind != PRIMITIVE or not any(wire.origin == number for wire in wires):
        return None
    outputs = _as_list(raw.get("outputs"))
    kinds = [type_text(slot.get("type")) for slot in outputs if isinstance(slot, Mapping)]
    # The group shows the primitive's value with its control, as the primitive does.
    value: JsonValue = [kinds[0] if kinds else "*", {"control_after_generate": True}]
    return {"input": {"required": {"value": value}}, "output": list(kinds[:1])}


def _own_values(node: _InnerNode, page: PageRules) -> dict[str, WidgetValue]:
    saved = node.raw.get("widgets_values")
    shape = make_page_class(node.kind, node.definition, page)
    own = lay_out_values(shape, saved if isinstance(saved, list | dict) else None, page).values
    return {name.rsplit(".", 1)[-1] if name.endswith(".control_after_generate") else name: v for name, v in own.items()}


def _inner_node_json(
    node: _InnerNode, node_id: str, values: Mapping[str, WidgetValue], wired: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    held: dict[str, JsonValue] = {name: value for name, value in values.items() if value is not UNSET}
    saved: JsonValue = held
    if node.kind == PRIMITIVE:
        saved = [held.get("value"), *([held["control_after_generate"]] if "control_after_generate" in held else [])]
    inputs: list[JsonValue] = [{"name": name, "type": "*", "link": link} for name, link in wired.items()]
    kept = {key: node.raw[key] for key in ("title", "properties", "outputs", "mode") if key in node.raw}
    return {**kept, "id": node_id, "type": node.kind, "inputs": inputs, "widgets_values": saved}


def _unique_name(name: str, node: _InnerNode, seen: dict[str, int]) -> str:
    key = found = name
    if (node.kind == PRIMITIVE and node.raw.get("title")) or name in seen:
        key = found = f"{node.label} {name}"
        if found in seen:
            found = f"{node.label} {seen[found]} {name}"
    seen[key] = seen.get(key, 1) + 1
    return found


def _link_row(number: int, origin: str, origin_slot: int, target: str, _name: str) -> dict[str, JsonValue]:
    return {"id": number + 1, "origin_id": origin, "origin_slot": origin_slot, "target_id": target, "target_slot": -1}


def _read_group_link(raw: JsonValue) -> _GroupLink | None:
    parts = raw[:4] if isinstance(raw, list) else []
    numbers = [part for part in parts if isinstance(part, int) and not isinstance(part, bool)]
    if len(numbers) != 4:
        return None
    return _GroupLink(origin=numbers[0], origin_slot=numbers[1], target=numbers[2], target_slot=numbers[3])


def _find_description(node: UiNode, workflow: UiWorkflow) -> Mapping[str, JsonValue] | None:
    for prefix in _PREFIXES:
        if node.type.startswith(prefix):
            raw = workflow.group_nodes.get(node.type.removeprefix(prefix))
            return raw if isinstance(raw, Mapping) else None
    return None


def _replace_node(root: UiGraph, old: UiNode, new: UiNode) -> UiGraph:
    nodes = {(new.id if key == old.id else key): (new if key == old.id else node) for key, node in root.nodes.items()}
    links = {
        key: replace(
            link,
            origin_id=new.id if link.origin_id == old.id else link.origin_id,
            target_id=new.id if link.target_id == old.id else link.target_id,
        )
        for key, link in root.links.items()
    }
    return replace(root, nodes=nodes, links=links)


def _node_numbers(workflow: UiWorkflow) -> Iterator[int]:
    for graph in (workflow.root, *workflow.definitions.values()):
        yield from (int(key) for key in graph.nodes if key.isascii() and key.isdecimal() and len(key) < 16)


def _rename_in_graph(graph: UiGraph, page: PageRules) -> UiGraph:
    names = page.renamed_classes
    nodes = {key: replace(node, type=names.get(node.type, node.type)) for key, node in graph.nodes.items()}
    return replace(graph, nodes=nodes)


def _as_list(raw: JsonValue) -> Sequence[JsonValue]:
    return raw if isinstance(raw, list) else []
