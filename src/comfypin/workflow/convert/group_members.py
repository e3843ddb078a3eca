"""The nodes and links inside a group node, read from the description in the file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comfypin.digest import JsonValue
from comfypin.workflow.convert.ui_graph import type_text
from comfypin.workflow.convert.widgets import has_widget
from comfypin.workflow.object_info import Catalogue, InputSpec, input_specs

PRIMITIVE, REROUTE = "PrimitiveNode", "Reroute"


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerNode:
    """One node inside a group: its JSON in the file, and its class's inputs and outputs."""

    raw: Mapping[str, JsonValue]
    kind: str
    definition: Mapping[str, JsonValue]
    # `slots` are sockets, `converted` are widgets that the file turned into inputs, `plain` the other widgets.
    slots: tuple[InputSpec, ...]
    converted: tuple[InputSpec, ...]
    plain: tuple[InputSpec, ...]

    @property
    def label(self) -> str:
        """Return the node's title, or else its class."""
        title = self.raw.get("title")
        return title if isinstance(title, str) and title else self.kind

    @property
    def outputs(self) -> list[JsonValue]:
        """Return the output types of the node's class."""
        output_list = self.definition.get("output")
        return list(output_list) if isinstance(output_list, list) else []


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLink:
    """A link between two nodes of a group, by their positions in its description."""

    origin: int
    origin_slot: int
    target: int
    target_slot: int


def read_inner_node(
    raw_node: JsonValue, node_number: int, group_links: Sequence[GroupLink], catalogue: Catalogue
) -> InnerNode | None:
    """Read one node of a group; return None if it is unusable or the engine does not have its class."""
    if not isinstance(raw_node, Mapping):
        return None
    class_name = raw_node.get("type")
    if not isinstance(class_name, str):
        return None
    definition = catalogue.get(class_name) or _virtual_definition(class_name, raw_node, node_number, group_links)
    if definition is None:
        return None
    raw_inputs = [raw_slot for raw_slot in as_list(raw_node.get("inputs")) if isinstance(raw_slot, Mapping)]
    linked_names = [raw_slot.get("name") for raw_slot in raw_inputs if isinstance(raw_slot.get("widget"), Mapping)]
    input_specs_of_class = list(input_specs(definition).values())
    widgets = [input_spec for input_spec in input_specs_of_class if has_widget(input_spec)]
    by_name = {input_spec.name: input_spec for input_spec in widgets}
    return InnerNode(
        raw=raw_node,
        kind=class_name,
        definition=definition,
        slots=tuple(input_spec for input_spec in input_specs_of_class if not has_widget(input_spec)),
        converted=tuple(
            by_name[input_name] for input_name in linked_names if isinstance(input_name, str) and input_name in by_name
        ),
        plain=tuple(input_spec for input_spec in widgets if input_spec.name not in linked_names),
    )


def _virtual_definition(
    class_name: str, raw_node: Mapping[str, JsonValue], node_number: int, group_links: Sequence[GroupLink]
) -> Mapping[str, JsonValue] | None:
    """Define a primitive or a reroute inside a group as the page does: a class with one output."""
    if class_name == REROUTE:
        # It takes anything through an input without a name.
        return {"input": {"required": {"": ["*", {"forceInput": True}]}}, "output": ["*"]}
    # The page makes nothing of a primitive that feeds nothing.
    if class_name != PRIMITIVE or not any(group_link.origin == node_number for group_link in group_links):
        return None
    raw_outputs = as_list(raw_node.get("outputs"))
    output_types = [type_text(raw_slot.get("type")) for raw_slot in raw_outputs if isinstance(raw_slot, Mapping)]
    # The group shows the primitive's value with its control, as the primitive does.
    widget_value: JsonValue = [output_types[0] if output_types else "*", {"control_after_generate": True}]
    return {"input": {"required": {"value": widget_value}}, "output": list(output_types[:1])}


def read_group_link(raw_link: JsonValue) -> GroupLink | None:
    """Read a row of a group's links, or return None if it is not four numbers."""
    raw_parts = raw_link[:4] if isinstance(raw_link, list) else []
    # True is an int in Python, and no slot number in a file.
    numbers = [raw_part for raw_part in raw_parts if isinstance(raw_part, int) and not isinstance(raw_part, bool)]
    if len(numbers) != 4:
        return None
    return GroupLink(origin=numbers[0], origin_slot=numbers[1], target=numbers[2], target_slot=numbers[3])


def as_list(json_value: JsonValue) -> Sequence[JsonValue]:
    """Return a JSON list, and an empty one for anything else."""
    return json_value if isinstance(json_value, list) else []
