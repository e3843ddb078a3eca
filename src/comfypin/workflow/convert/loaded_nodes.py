"""Nodes as the page holds them after loading: their inputs in the class's order, their outputs, their widgets."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from comfypin.digest import JsonValue
from comfypin.workflow.convert.page_versions import PageRules
from comfypin.workflow.convert.ui_graph import UiGraph, UiNode, UiSlot, type_text
from comfypin.workflow.convert.widget_layout import Layout, lay_out_values, reopen_option
from comfypin.workflow.convert.widgets import PageClass, Widget, make_page_class
from comfypin.workflow.node_inputs import COMBO, GROWING, MATCHING, growing_list, resolve_match_type
from comfypin.workflow.object_info import Catalogue, InputSpec

PRIMITIVE, REROUTE = "PrimitiveNode", "Reroute"
NOTES = frozenset({"Note", "MarkdownNote"})

# At most six digits, so that a hostile name does not become a huge number.
_NUMBER_AT_END = re.compile(r"\d{1,6}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedNode:
    """A node of a file, matched with its class or its subgraph.

    `page_class` is None for a class that the engine does not have, for notes, reroutes, primitives and subgraphs;
    `layout` holds the widgets of a known class. `virtual` marks a node that only a page knows, whatever its class.
    """

    ui_node: UiNode
    inputs: tuple[UiSlot, ...]
    outputs: tuple[str, ...]
    title: str | None
    page_class: PageClass | None = None
    layout: Layout | None = None
    subgraph: str | None = None
    virtual: bool = False
    # Linked inputs of the file that the class does not have with the option that is chosen.
    dropped: tuple[UiSlot, ...] = field(default=())

    @property
    def is_virtual(self) -> bool:
        """Return whether only the page knows the node, so that it is never sent."""
        return (
            self.virtual
            or self.subgraph is not None
            or self.ui_node.type in NOTES
            or self.ui_node.type in (PRIMITIVE, REROUTE)
        )

    @property
    def is_unknown(self) -> bool:
        """Return whether neither the engine nor the file says what the node is."""
        return self.page_class is None and not self.is_virtual

    @property
    def widgets(self) -> Mapping[str, Widget]:
        """Return the node's widgets by name."""
        return self.layout.widgets if self.layout else {}

    def widget_spec(self, input_name: str) -> InputSpec | None:
        """Return the definition of an input that has a widget, or None."""
        widget = self.widgets.get(input_name)
        return widget.spec if widget else None


class NodeLoader:
    """Loads the nodes of a workflow; each class is read once."""

    def __init__(self, catalogue: Catalogue, definitions: Mapping[str, UiGraph], page_rules: PageRules) -> None:
        self._catalogue = catalogue
        self._definitions = definitions
        self._page_rules = page_rules
        self._classes: dict[tuple[str, frozenset[str]], PageClass] = {}

    def load_node(self, ui_node: UiNode) -> LoadedNode:
        """Match one node with its class or its subgraph."""
        if ui_node.type in self._definitions:
            return self._load_instance(ui_node, self._definitions[ui_node.type])
        page_class = self._find_page_class(ui_node) if ui_node.type not in (*NOTES, PRIMITIVE, REROUTE) else None
        if page_class is None:
            output_types = tuple(output_slot.type for output_slot in ui_node.outputs)
            return LoadedNode(ui_node=ui_node, inputs=ui_node.inputs, outputs=output_types, title=ui_node.title)
        node_layout = lay_out_values(page_class, ui_node.values, self._page_rules)
        saved_slots = {input_slot.name: input_slot for input_slot in ui_node.inputs}
        defined_slots = {
            input_slot.name: input_slot for input_slot in _class_slots(page_class, node_layout, saved_slots)
        }
        extra_slots = [
            input_slot
            for input_slot in ui_node.inputs
            if input_slot.name not in defined_slots and not input_slot.widget
        ]
        # Inputs of an option that is not chosen any more: the page drops their links, and so do we, with a warning.
        dropped_slots = [
            input_slot
            for input_slot in extra_slots
            if input_slot.link is not None and _is_of_option(input_slot.name, node_layout)
        ]
        kept_slots = [input_slot for input_slot in extra_slots if not _is_of_option(input_slot.name, node_layout)]
        return LoadedNode(
            ui_node=ui_node,
            inputs=(*defined_slots.values(), *kept_slots),
            outputs=_output_types(page_class, ui_node),
            title=ui_node.title or page_class.title,
            page_class=page_class,
            layout=node_layout,
            dropped=tuple(dropped_slots),
        )

    def _load_instance(self, ui_node: UiNode, definition: UiGraph) -> LoadedNode:
        saved_slots = {input_slot.name: input_slot for input_slot in ui_node.inputs}
        input_slots = tuple(
            UiSlot(name=graph_input.name, type=graph_input.type, link=_link_of(saved_slots.get(graph_input.name)))
            for graph_input in definition.inputs
        )
        return LoadedNode(
            ui_node=ui_node,
            inputs=input_slots,
            outputs=tuple(graph_input.type for graph_input in definition.outputs),
            title=ui_node.title or definition.name,
            subgraph=definition.id,
        )

    def _find_page_class(self, ui_node: UiNode) -> PageClass | None:
        definition = self._catalogue.get(ui_node.type)
        if definition is None:
            return None
        # An input of several plain types has a widget if the file says so, even if an older engine does not say so.
        drawn_names = frozenset(
            input_slot.name for input_slot in ui_node.inputs if input_slot.widget and "," in input_slot.type
        )
        if (ui_node.type, drawn_names) not in self._classes:
            self._classes[ui_node.type, drawn_names] = make_page_class(
                ui_node.type, definition, self._page_rules, drawn_names=drawn_names
            )
        return self._classes[ui_node.type, drawn_names]


def choose_option(loaded_node: LoadedNode, combo_name: str, chosen_option: JsonValue) -> LoadedNode:
    """Choose another option of a dynamic combo; the links to the old option's inputs are lost."""
    combo_spec = loaded_node.widget_spec(combo_name)
    if loaded_node.layout is None or loaded_node.page_class is None or combo_spec is None:
        return loaded_node
    node_layout = reopen_option(loaded_node.layout, combo_spec, chosen_option)
    saved_slots = {
        input_slot.name: input_slot
        for input_slot in loaded_node.inputs
        if not input_slot.name.startswith(f"{combo_name}.")
    }
    defined_slots = {
        input_slot.name: input_slot for input_slot in _class_slots(loaded_node.page_class, node_layout, saved_slots)
    }
    other_slots = [input_slot for input_name, input_slot in saved_slots.items() if input_name not in defined_slots]
    return replace(loaded_node, inputs=(*defined_slots.values(), *other_slots), layout=node_layout)


def _class_slots(page_class: PageClass, node_layout: Layout, saved_slots: Mapping[str, UiSlot]) -> Iterator[UiSlot]:
    """Yield a class's inputs in the page's order: sockets first, then widgets with what their options bring."""
    for input_spec in page_class.sockets:
        yield from _socket_slots(input_spec, saved_slots)
    for widget_or_socket in node_layout.inputs:
        if isinstance(widget_or_socket, InputSpec):
            yield from _socket_slots(widget_or_socket, saved_slots)
        elif widget_or_socket.spec is not None:
            yield UiSlot(
                name=widget_or_socket.name,
                type=widget_or_socket.spec.type,
                link=_link_of(saved_slots.get(widget_or_socket.name)),
                widget=True,
            )


def _socket_slots(input_spec: InputSpec, saved_slots: Mapping[str, UiSlot]) -> Iterator[UiSlot]:
    if input_spec.type == GROWING:
        yield from _growing_slots(input_spec, saved_slots)
        return
    input_slot = saved_slots.get(input_spec.name)
    # A socket that follows its links was saved with the type that it had found.
    type_found = (
        input_slot.type
        if input_slot is not None and input_spec.type == MATCHING
        else resolve_match_type(input_spec).type
    )
    yield UiSlot(name=input_spec.name, type=type_found, link=_link_of(input_slot))


def _growing_slots(input_spec: InputSpec, saved_slots: Mapping[str, UiSlot]) -> Iterator[UiSlot]:
    """Yield the sockets of a growing list: all connected ones in the order of their numbers, and an open one."""
    growing = growing_list(input_spec)
    item_names = list(growing.items)
    connected_names = [
        input_name
        for input_name, input_slot in saved_slots.items()
        if input_slot.link is not None and input_name.startswith(f"{input_spec.name}.")
    ]
    # The page offers one open socket behind the last connected one.
    last_connected = max(
        (item_names.index(input_name) for input_name in connected_names if input_name in growing.items), default=-1
    )
    shown_names = item_names[: max(growing.required + 1, last_connected + 2)]
    names_beyond = sorted(
        (input_name for input_name in connected_names if input_name not in growing.items), key=_trailing_number
    )
    for input_name in (*shown_names, *names_beyond):
        item_spec = growing.items.get(input_name)
        yield UiSlot(
            name=input_name,
            type=item_spec.type if item_spec else saved_slots[input_name].type,
            link=_link_of(saved_slots.get(input_name)),
        )


def _trailing_number(input_name: str) -> int:
    number_match = _NUMBER_AT_END.search(input_name)
    return int(number_match[0]) if number_match else 0


def _is_of_option(input_name: str, node_layout: Layout) -> bool:
    return any(
        input_name.startswith(f"{widget.name}.")
        for widget in node_layout.widgets.values()
        if widget.spec is not None and widget.spec.type == COMBO
    )


def _output_types(page_class: PageClass, ui_node: UiNode) -> tuple[str, ...]:
    output_types_found: list[str] = []
    for output_number in range(max(len(page_class.outputs), len(ui_node.outputs))):
        type_name = (
            type_text(page_class.outputs[output_number])
            if output_number < len(page_class.outputs)
            else ui_node.outputs[output_number].type
        )
        # Such an output has the type of whatever feeds the node; the file knows which one that was.
        if type_name == MATCHING:
            type_name = ui_node.outputs[output_number].type if output_number < len(ui_node.outputs) else "*"
        output_types_found.append("*" if type_name == MATCHING else type_name)
    return tuple(output_types_found)


def bypass_index(loaded_node: LoadedNode, output_slot: int, wanted_type: str, page_rules: PageRules) -> int | None:
    """Return the input that a bypassed node passes on for one of its outputs, to a consumer of type `wanted_type`."""
    input_slots = loaded_node.inputs
    if not input_slots:
        return None
    # A consumer that takes anything gets the input at the output's own position, or else the first.
    if wanted_type in ("*", ""):
        return output_slot if output_slot < len(input_slots) else 0
    # Page 1.27 compares only what the consumer wants, later pages also what the output gives.
    given_type = (
        loaded_node.outputs[output_slot]
        if page_rules.muted_gives_nothing and 0 <= output_slot < len(loaded_node.outputs)
        else "*"
    )
    if 0 <= output_slot < len(input_slots) and _can_pass(input_slots[output_slot].type, given_type, wanted_type):
        return output_slot
    exact_index = next(
        (input_index for input_index, input_slot in enumerate(input_slots) if input_slot.type == wanted_type), None
    )
    if exact_index is not None:
        return exact_index
    return next(
        (
            input_index
            for input_index, input_slot in enumerate(input_slots)
            if _can_pass(input_slot.type, given_type, wanted_type)
        ),
        None,
    )


def types_connect(first_types: str, second_types: str) -> bool:
    """Return whether the page lets two slots connect: one type in any case, one of a list, or any type at all."""
    if first_types in ("", "*") or second_types in ("", "*"):
        return True
    own_types = {type_part.strip().lower() for type_part in first_types.split(",")}
    other_types = {type_part.strip().lower() for type_part in second_types.split(",")}
    return not own_types.isdisjoint(other_types) or "*" in own_types | other_types


def _can_pass(type_name: str, given_type: str, wanted_type: str) -> bool:
    return types_connect(type_name, wanted_type) and types_connect(type_name, given_type)


def _link_of(input_slot: UiSlot | None) -> str | None:
    return input_slot.link if input_slot else None
