"""Turn group nodes of older files into subgraphs, as the page does on loading.

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


def rename_classes(workflow: UiWorkflow, page_rules: PageRules) -> UiWorkflow:
    """Give classes of long ago the names that the page itself gives them."""
    if not page_rules.renamed_classes:
        return workflow
    definitions = {
        graph_id: _rename_in_graph(ui_graph, page_rules) for graph_id, ui_graph in workflow.definitions.items()
    }
    return replace(workflow, root=_rename_in_graph(workflow.root, page_rules), definitions=definitions)


def unpack_group_nodes(
    workflow: UiWorkflow, catalogue: Catalogue, page_rules: PageRules, findings: list[WorkflowFinding]
) -> UiWorkflow:
    """Turn every group node of the root into a subgraph; new inner ids follow the highest existing one.

    A group that the file does not describe, or with a class that the engine lacks, stays and is reported as unknown.
    """
    root_graph, definitions = workflow.root, dict(workflow.definitions)
    last_id = max([workflow.last_id, *_node_numbers(workflow)])
    for ui_node in list(root_graph.nodes.values()):
        described = _find_description(ui_node, workflow)
        group_node = _GroupNode.read_description(described, catalogue, page_rules) if described is not None else None
        if group_node is None:
            continue
        inner_ids = [str(last_id + 1 + offset) for offset in range(len(group_node.nodes))]
        last_id += len(group_node.nodes) + 1
        definition_id = f"{ui_node.type}:{ui_node.id}"
        node_values = group_node.values_of(ui_node, page_rules)
        raw_definition = group_node.to_definition(inner_ids, node_values)
        definitions[definition_id] = read_group(
            raw_definition, findings, graph_id=definition_id, name=ui_node.type.split(">")[-1].split("/")[-1]
        )
        root_graph = _replace_node(
            root_graph, ui_node, replace(ui_node, id=str(last_id), type=definition_id, values=None)
        )
    return replace(workflow, root=root_graph, definitions=definitions, last_id=last_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _InnerNode:
    """One node inside a group: its JSON in the file, and its class's inputs and outputs."""

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
        output_list = self.definition.get("output")
        return list(output_list) if isinstance(output_list, list) else []


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupLink:
    origin: int
    origin_slot: int
    target: int
    target_slot: int


@dataclass(slots=True, kw_only=True)
class _GroupNode:
    """Describes a group node: `widgets` and `inputs` map its own names to (inner node, input)."""

    nodes: list[_InnerNode]
    wires: list[_GroupLink]
    shown: frozenset[tuple[int, int]]
    widgets: dict[str, tuple[int, InputSpec]] = field(default_factory=dict)
    inputs: dict[str, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def read_description(
        cls, description: Mapping[str, JsonValue], catalogue: Catalogue, page_rules: PageRules
    ) -> "_GroupNode | None":
        """Read a description; return None if it is unusable or names a class that the engine does not have."""
        group_links = [
            group_link
            for group_link in map(_read_group_link, _as_list(description.get("links")))
            if group_link is not None
        ]
        inner_nodes = [
            _read_inner_node(inner_node, node_number, group_links, catalogue)
            for node_number, inner_node in enumerate(_as_list(description.get("nodes")))
        ]
        known_nodes = [inner_node for inner_node in inner_nodes if inner_node is not None]
        if not known_nodes or len(known_nodes) != len(inner_nodes):
            return None
        shown = frozenset(
            (shown_pair[0], shown_pair[1])
            for shown_pair in _as_list(description.get("external"))
            if isinstance(shown_pair, list)
            and len(shown_pair) > 1
            and isinstance(shown_pair[0], int)
            and isinstance(shown_pair[1], int)
        )
        group_node = cls(nodes=known_nodes, wires=group_links, shown=shown)
        group_node._name_inputs()
        return group_node

    def _name_inputs(self) -> None:
        seen_counts: dict[str, int] = {}
        fed_inputs = {(group_link.target, group_link.target_slot) for group_link in self.wires}
        for node_number, inner_node in enumerate(self.nodes):
            for input_spec in inner_node.plain:
                self.widgets[_unique_name(input_spec.name, inner_node, seen_counts)] = (node_number, input_spec)
            for input_position, input_spec in enumerate(inner_node.slots):
                if (node_number, input_position) not in fed_inputs:
                    self.inputs[_unique_name(input_spec.name, inner_node, seen_counts)] = (node_number, input_spec.name)
        for node_number, inner_node in enumerate(self.nodes):
            for input_position, input_spec in enumerate(inner_node.converted):
                if (node_number, len(inner_node.slots) + input_position) not in fed_inputs:
                    input_name = _unique_name(input_spec.name, inner_node, seen_counts)
                    self.widgets[input_name] = (node_number, input_spec)
                    self.inputs[input_name] = (node_number, input_spec.name)

    def values_of(self, instance: UiNode, page_rules: PageRules) -> list[dict[str, WidgetValue]]:
        """Return the inner nodes' values: the group's own, overwritten by the instance's."""
        required: dict[str, JsonValue] = {
            input_name: _as_class_input(input_spec) for input_name, (_, input_spec) in self.widgets.items()
        }
        group_inputs: dict[str, JsonValue] = {"input": {"required": required}}
        held_values = lay_out_values(
            make_page_class(instance.type, group_inputs, page_rules), instance.values, page_rules
        ).values
        node_values = [_own_values(inner_node, page_rules) for inner_node in self.nodes]
        for input_name, (node_number, input_spec) in self.widgets.items():
            node_values[node_number][input_spec.name] = held_values.get(input_name, UNSET)
            if is_controlled(input_spec):
                node_values[node_number]["control_after_generate"] = held_values.get(control_name(input_name), UNSET)
        return node_values

    def to_definition(
        self, node_ids: Sequence[str], node_values: Sequence[Mapping[str, WidgetValue]]
    ) -> dict[str, JsonValue]:
        """Write the group as a subgraph's definition."""
        link_rows: list[JsonValue] = []
        wired_links: dict[tuple[int, str], JsonValue] = {}
        for group_link in self.wires:
            input_name = self._input_name(group_link)
            if input_name is not None:
                link_rows.append(
                    _link_row(
                        len(link_rows),
                        node_ids[group_link.origin],
                        group_link.origin_slot,
                        node_ids[group_link.target],
                        input_name,
                    )
                )
                wired_links[group_link.target, input_name] = len(link_rows)
        input_ports: list[JsonValue] = []
        for input_position, (input_name, (node_number, inner_name)) in enumerate(self.inputs.items()):
            link_rows.append(_link_row(len(link_rows), INPUT_NODE, input_position, node_ids[node_number], inner_name))
            wired_links[node_number, inner_name] = len(link_rows)
            input_ports.append(
                {"name": input_name, "type": self._type_of(node_number, inner_name), "linkIds": [len(link_rows)]}
            )
        output_ports: list[JsonValue] = []
        for node_number, slot_number, type_name in self._seen_outputs():
            link_row = _link_row(len(link_rows), node_ids[node_number], slot_number, OUTPUT_NODE, "")
            link_rows.append({**link_row, "target_slot": len(output_ports)})
            output_ports.append(
                {"name": type_text(type_name), "type": type_text(type_name), "linkIds": [len(link_rows)]}
            )
        raw_nodes: list[JsonValue] = [
            _inner_node_json(
                inner_node,
                node_ids[node_number],
                node_values[node_number],
                {
                    wired_key[1]: widget_value
                    for wired_key, widget_value in wired_links.items()
                    if wired_key[0] == node_number
                },
            )
            for node_number, inner_node in enumerate(self.nodes)
        ]
        return {"nodes": raw_nodes, "links": link_rows, "inputs": input_ports, "outputs": output_ports}

    def _seen_outputs(self) -> Iterator[tuple[int, int, JsonValue]]:
        used_outputs = {(group_link.origin, group_link.origin_slot) for group_link in self.wires}
        for node_number, inner_node in enumerate(self.nodes):
            for slot_number, type_name in enumerate(inner_node.outputs):
                if (node_number, slot_number) not in used_outputs or (node_number, slot_number) in self.shown:
                    yield node_number, slot_number, type_name

    def _input_name(self, group_link: _GroupLink) -> str | None:
        inner_node = self.nodes[group_link.target]
        input_specs = [*inner_node.slots, *inner_node.converted]
        return input_specs[group_link.target_slot].name if 0 <= group_link.target_slot < len(input_specs) else None

    def _type_of(self, node_number: int, input_name: str) -> str:
        inner_node = self.nodes[node_number]
        return next(
            (
                input_spec.type
                for input_spec in (*inner_node.slots, *inner_node.converted)
                if input_spec.name == input_name
            ),
            "*",
        )


def _as_class_input(input_spec: InputSpec) -> JsonValue:
    """Write an inner node's input as an input of the group. A seed keeps its control, whatever its name."""
    options = (
        {**input_spec.options, "control_after_generate": True}
        if is_controlled(input_spec)
        else dict(input_spec.options)
    )
    return [list(input_spec.choices) if input_spec.choices is not None else input_spec.type, options]


def _read_inner_node(
    raw_node: JsonValue, node_number: int, group_links: Sequence[_GroupLink], catalogue: Catalogue
) -> _InnerNode | None:
    if not isinstance(raw_node, Mapping):
        return None
    class_name = raw_node.get("type")
    if not isinstance(class_name, str):
        return None
    definition = catalogue.get(class_name) or _virtual_definition(class_name, raw_node, node_number, group_links)
    if definition is None:
        return None
    raw_inputs = [raw_slot for raw_slot in _as_list(raw_node.get("inputs")) if isinstance(raw_slot, Mapping)]
    wired_names = [raw_slot.get("name") for raw_slot in raw_inputs if isinstance(raw_slot.get("widget"), Mapping)]
    input_specs_of_class = list(input_specs(definition).values())
    widgets = [input_spec for input_spec in input_specs_of_class if has_widget(input_spec)]
    by_name = {input_spec.name: input_spec for input_spec in widgets}
    return _InnerNode(
        raw=raw_node,
        kind=class_name,
        definition=definition,
        slots=tuple(input_spec for input_spec in input_specs_of_class if not has_widget(input_spec)),
        converted=tuple(
            by_name[input_name] for input_name in wired_names if isinstance(input_name, str) and input_name in by_name
        ),
        plain=tuple(input_spec for input_spec in widgets if input_spec.name not in wired_names),
    )


def _virtual_definition(
    class_name: str, raw_node: Mapping[str, JsonValue], node_number: int, group_links: Sequence[_GroupLink]
) -> Mapping[str, JsonValue] | None:
    """Define a primitive or a reroute inside a group as the page does: a class with one output."""
    if class_name == REROUTE:
        return {"input": {"required": {"": ["*", {"forceInput": True}]}}, "output": ["*"]}
    if class_name != PRIMITIVE or not any(group_link.origin == node_number for group_link in group_links):
        return None
    raw_outputs = _as_list(raw_node.get("outputs"))
    output_types = [type_text(raw_slot.get("type")) for raw_slot in raw_outputs if isinstance(raw_slot, Mapping)]
    # The group shows the primitive's value with its control, as the primitive does.
    widget_value: JsonValue = [output_types[0] if output_types else "*", {"control_after_generate": True}]
    return {"input": {"required": {"value": widget_value}}, "output": list(output_types[:1])}


def _own_values(inner_node: _InnerNode, page_rules: PageRules) -> dict[str, WidgetValue]:
    saved_values = inner_node.raw.get("widgets_values")
    page_class = make_page_class(inner_node.kind, inner_node.definition, page_rules)
    own_values = lay_out_values(
        page_class, saved_values if isinstance(saved_values, list | dict) else None, page_rules
    ).values
    return {
        widget_name.rsplit(".", 1)[-1] if widget_name.endswith(".control_after_generate") else widget_name: widget_value
        for widget_name, widget_value in own_values.items()
    }


def _inner_node_json(
    inner_node: _InnerNode, node_id: str, node_values: Mapping[str, WidgetValue], wired_links: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    held_values: dict[str, JsonValue] = {
        input_name: widget_value for input_name, widget_value in node_values.items() if widget_value is not UNSET
    }
    saved_values: JsonValue = held_values
    if inner_node.kind == PRIMITIVE:
        saved_values = [
            held_values.get("value"),
            *([held_values["control_after_generate"]] if "control_after_generate" in held_values else []),
        ]
    wired_inputs: list[JsonValue] = [
        {"name": input_name, "type": "*", "link": link_id} for input_name, link_id in wired_links.items()
    ]
    kept_fields = {
        field_name: inner_node.raw[field_name]
        for field_name in ("title", "properties", "outputs", "mode")
        if field_name in inner_node.raw
    }
    return {
        **kept_fields,
        "id": node_id,
        "type": inner_node.kind,
        "inputs": wired_inputs,
        "widgets_values": saved_values,
    }


def _unique_name(input_name: str, inner_node: _InnerNode, seen_counts: dict[str, int]) -> str:
    base_name = unique_name = input_name
    if (inner_node.kind == PRIMITIVE and inner_node.raw.get("title")) or input_name in seen_counts:
        base_name = unique_name = f"{inner_node.label} {input_name}"
        if unique_name in seen_counts:
            unique_name = f"{inner_node.label} {seen_counts[unique_name]} {input_name}"
    seen_counts[base_name] = seen_counts.get(base_name, 1) + 1
    return unique_name


def _link_row(link_count: int, origin_id: str, origin_slot: int, target_id: str, _name: str) -> dict[str, JsonValue]:
    return {
        "id": link_count + 1,
        "origin_id": origin_id,
        "origin_slot": origin_slot,
        "target_id": target_id,
        "target_slot": -1,
    }


def _read_group_link(raw_link: JsonValue) -> _GroupLink | None:
    raw_parts = raw_link[:4] if isinstance(raw_link, list) else []
    numbers = [raw_part for raw_part in raw_parts if isinstance(raw_part, int) and not isinstance(raw_part, bool)]
    if len(numbers) != 4:
        return None
    return _GroupLink(origin=numbers[0], origin_slot=numbers[1], target=numbers[2], target_slot=numbers[3])


def _find_description(ui_node: UiNode, workflow: UiWorkflow) -> Mapping[str, JsonValue] | None:
    for prefix in _PREFIXES:
        if ui_node.type.startswith(prefix):
            description = workflow.group_nodes.get(ui_node.type.removeprefix(prefix))
            return description if isinstance(description, Mapping) else None
    return None


def _replace_node(root_graph: UiGraph, old_node: UiNode, new_node: UiNode) -> UiGraph:
    ui_nodes = {
        (new_node.id if map_key == old_node.id else map_key): (new_node if map_key == old_node.id else ui_node)
        for map_key, ui_node in root_graph.nodes.items()
    }
    ui_links = {
        map_key: replace(
            ui_link,
            origin_id=new_node.id if ui_link.origin_id == old_node.id else ui_link.origin_id,
            target_id=new_node.id if ui_link.target_id == old_node.id else ui_link.target_id,
        )
        for map_key, ui_link in root_graph.links.items()
    }
    return replace(root_graph, nodes=ui_nodes, links=ui_links)


def _node_numbers(workflow: UiWorkflow) -> Iterator[int]:
    for ui_graph in (workflow.root, *workflow.definitions.values()):
        yield from (
            int(node_id)
            for node_id in ui_graph.nodes
            if node_id.isascii() and node_id.isdecimal() and len(node_id) < 16
        )


def _rename_in_graph(ui_graph: UiGraph, page_rules: PageRules) -> UiGraph:
    renamed_classes = page_rules.renamed_classes
    ui_nodes = {
        node_id: replace(ui_node, type=renamed_classes.get(ui_node.type, ui_node.type))
        for node_id, ui_node in ui_graph.nodes.items()
    }
    return replace(ui_graph, nodes=ui_nodes)


def _as_list(json_value: JsonValue) -> Sequence[JsonValue]:
    return json_value if isinstance(json_value, list) else []
