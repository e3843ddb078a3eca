"""Turn group nodes of older files into subgraphs, as the page does on loading.

A group node is a class that the file itself describes (`extra.groupNodes`): its inner nodes, the links between them,
and which of their outputs are seen outside. Its inputs and widgets are those of the inner nodes, in their order, that
no inner link feeds; a name that is there already gets the inner node's title before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from comfypin.digest import JsonValue
from comfypin.workflow.convert.group_members import (
    PRIMITIVE,
    GroupLink,
    InnerNode,
    as_list,
    read_group_link,
    read_inner_node,
)
from comfypin.workflow.convert.page_versions import PageRules
from comfypin.workflow.convert.ui_graph import (
    INPUT_NODE,
    OUTPUT_NODE,
    UiGraph,
    UiNode,
    UiWorkflow,
    read_group,
    type_text,
)
from comfypin.workflow.convert.widget_layout import lay_out_values
from comfypin.workflow.convert.widgets import (
    UNSET,
    WidgetValue,
    control_name,
    is_controlled,
    make_page_class,
)
from comfypin.workflow.findings import WorkflowFinding
from comfypin.workflow.object_info import Catalogue, InputSpec

# The page wrote `workflow/NAME` first and `workflow>NAME` later.
_PREFIXES = ("workflow>", "workflow/")


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
    # `last_node_id` can be behind the real ids in files that other tools wrote.
    last_id = max([workflow.last_id, *_node_numbers(workflow)])
    for ui_node in list(root_graph.nodes.values()):
        described = _find_description(ui_node, workflow)
        group_node = _GroupNode.read_description(described, catalogue, page_rules) if described is not None else None
        if group_node is None:
            continue
        inner_ids = [str(last_id + 1 + offset) for offset in range(len(group_node.nodes))]
        # One more than the inner nodes: the page gives the instance itself a new id too, after theirs.
        last_id += len(group_node.nodes) + 1
        # Two instances of one group get a definition each, because each carries values of its own.
        definition_id = f"{ui_node.type}:{ui_node.id}"
        node_values = group_node.values_of(ui_node, page_rules)
        raw_definition = group_node.to_definition(inner_ids, node_values)
        definitions[definition_id] = read_group(
            raw_definition, findings, graph_id=definition_id, group_name=ui_node.type.split(">")[-1].split("/")[-1]
        )
        root_graph = _replace_node(
            root_graph, ui_node, replace(ui_node, id=str(last_id), type=definition_id, values=None)
        )
    return replace(workflow, root=root_graph, definitions=definitions, last_id=last_id)


@dataclass(slots=True, kw_only=True)
class _GroupNode:
    """Describes a group node: `widgets` and `inputs` map its own names to (inner node, input)."""

    nodes: list[InnerNode]
    links: list[GroupLink]
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
            for group_link in map(read_group_link, as_list(description.get("links")))
            if group_link is not None
        ]
        inner_nodes = [
            read_inner_node(inner_node, node_number, group_links, catalogue)
            for node_number, inner_node in enumerate(as_list(description.get("nodes")))
        ]
        known_nodes = [inner_node for inner_node in inner_nodes if inner_node is not None]
        # A group with one unknown class cannot be unpacked: its inputs would be named and counted wrongly.
        if not known_nodes or len(known_nodes) != len(inner_nodes):
            return None
        shown_inputs = frozenset(
            (shown_pair[0], shown_pair[1])
            for shown_pair in as_list(description.get("external"))
            if isinstance(shown_pair, list)
            and len(shown_pair) > 1
            and isinstance(shown_pair[0], int)
            and isinstance(shown_pair[1], int)
        )
        group_node = cls(nodes=known_nodes, links=group_links, shown=shown_inputs)
        group_node._name_inputs()
        return group_node

    def _name_inputs(self) -> None:
        seen_counts: dict[str, int] = {}
        fed_inputs = {(group_link.target, group_link.target_slot) for group_link in self.links}
        for node_number, inner_node in enumerate(self.nodes):
            for input_spec in inner_node.plain:
                self.widgets[_unique_name(input_spec.name, inner_node, seen_counts)] = (node_number, input_spec)
            for input_position, input_spec in enumerate(inner_node.slots):
                if (node_number, input_position) not in fed_inputs:
                    self.inputs[_unique_name(input_spec.name, inner_node, seen_counts)] = (node_number, input_spec.name)
        # Converted widgets come after all others, in a second pass, as on the page: their names depend on it.
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
        # The group's own widgets behave like a class's, so the same code lays its saved values out.
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
        linked_inputs: dict[tuple[int, str], JsonValue] = {}
        for group_link in self.links:
            input_name = self._input_name(group_link)
            if input_name is not None:
                origin_id, target_id = node_ids[group_link.origin], node_ids[group_link.target]
                link_rows.append(_link_row(len(link_rows), origin_id, group_link.origin_slot, target_id))
                linked_inputs[group_link.target, input_name] = len(link_rows)
        input_ports: list[JsonValue] = []
        for input_position, (input_name, (node_number, inner_name)) in enumerate(self.inputs.items()):
            link_rows.append(_link_row(len(link_rows), INPUT_NODE, input_position, node_ids[node_number]))
            linked_inputs[node_number, inner_name] = len(link_rows)
            input_ports.append(
                {"name": input_name, "type": self._type_of(node_number, inner_name), "linkIds": [len(link_rows)]}
            )
        output_ports: list[JsonValue] = []
        for node_number, slot_number, type_name in self._seen_outputs():
            link_row = _link_row(len(link_rows), node_ids[node_number], slot_number, OUTPUT_NODE)
            # Rows of outputs have the position of the subgraph's output as their target slot.
            link_rows.append({**link_row, "target_slot": len(output_ports)})
            type_name = type_text(type_name)
            output_ports.append({"name": type_name, "type": type_name, "linkIds": [len(link_rows)]})
        raw_nodes: list[JsonValue] = [
            _inner_node_json(
                inner_node,
                node_ids[node_number],
                node_values[node_number],
                {
                    input_name: link_id
                    for (number, input_name), link_id in linked_inputs.items()
                    if number == node_number
                },
            )
            for node_number, inner_node in enumerate(self.nodes)
        ]
        return {"nodes": raw_nodes, "links": link_rows, "inputs": input_ports, "outputs": output_ports}

    def _seen_outputs(self) -> Iterator[tuple[int, int, JsonValue]]:
        used_outputs = {(group_link.origin, group_link.origin_slot) for group_link in self.links}
        for node_number, inner_node in enumerate(self.nodes):
            for slot_number, type_name in enumerate(inner_node.outputs):
                # The page shows an output that feeds an inner node only if the description asks for it.
                if (node_number, slot_number) not in used_outputs or (node_number, slot_number) in self.shown:
                    yield node_number, slot_number, type_name

    def _input_name(self, group_link: GroupLink) -> str | None:
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


def _own_values(inner_node: InnerNode, page_rules: PageRules) -> dict[str, WidgetValue]:
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
    inner_node: InnerNode, node_id: str, node_values: Mapping[str, WidgetValue], linked_inputs: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    held_values: dict[str, JsonValue] = {
        input_name: widget_value for input_name, widget_value in node_values.items() if widget_value is not UNSET
    }
    # By name, so that the order of the class's widgets does not matter; a primitive has no class to name them.
    saved_values: JsonValue = held_values
    if inner_node.kind == PRIMITIVE:
        saved_values = [
            held_values.get("value"),
            *([held_values["control_after_generate"]] if "control_after_generate" in held_values else []),
        ]
    input_rows: list[JsonValue] = [
        {"name": input_name, "type": "*", "link": link_id} for input_name, link_id in linked_inputs.items()
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
        "inputs": input_rows,
        "widgets_values": saved_values,
    }


def _unique_name(input_name: str, inner_node: InnerNode, seen_counts: dict[str, int]) -> str:
    base_name = unique_name = input_name
    if (inner_node.kind == PRIMITIVE and inner_node.raw.get("title")) or input_name in seen_counts:
        base_name = unique_name = f"{inner_node.label} {input_name}"
        if unique_name in seen_counts:
            unique_name = f"{inner_node.label} {seen_counts[unique_name]} {input_name}"
    seen_counts[base_name] = seen_counts.get(base_name, 1) + 1
    return unique_name


def _link_row(link_count: int, origin_id: str, origin_slot: int, target_id: str) -> dict[str, JsonValue]:
    return {
        "id": link_count + 1,
        "origin_id": origin_id,
        "origin_slot": origin_slot,
        "target_id": target_id,
        "target_slot": -1,
    }


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
