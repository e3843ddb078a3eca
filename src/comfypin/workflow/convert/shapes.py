"""Nodes as the page holds them after loading: their inputs in the class's order, their outputs, their widgets."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from comfypin.digest import JsonValue
from comfypin.workflow.convert.layout import Layout, lay_out_values, reopen_option
from comfypin.workflow.convert.pages import PageRules
from comfypin.workflow.convert.ui import UiGraph, UiNode, UiSlot, type_text
from comfypin.workflow.convert.widgets import PageClass, Widget, make_page_class
from comfypin.workflow.node_inputs import COMBO, GROWING, MATCHING, growing_list, resolve_match_type
from comfypin.workflow.object_info import Catalogue, InputSpec

PRIMITIVE, REROUTE = "PrimitiveNode", "Reroute"
NOTES = frozenset({"Note", "MarkdownNote"})

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
    dropped: tuple[UiSlot, ...] = field(default=())
    """Wired inputs of the file that the class does not have with the option that is chosen."""

    @property
    def is_virtual(self) -> bool:
        """Whether only the page knows the node, so that it is never sent."""
        return (
            self.virtual
            or self.subgraph is not None
            or self.ui_node.type in NOTES
            or self.ui_node.type in (PRIMITIVE, REROUTE)
        )

    @property
    def is_unknown(self) -> bool:
        """Whether neither the engine nor the file says what the node is."""
        return self.page_class is None and not self.is_virtual

    @property
    def widgets(self) -> Mapping[str, Widget]:
        """The node's widgets by name."""
        return self.layout.widgets if self.layout else {}

    def widget_spec(self, name: str) -> InputSpec | None:
        """The definition of an input that has a widget, or None."""
        widget = self.widgets.get(name)
        return widget.spec if widget else None


class NodeLoader:
    """Makes the shapes of a workflow's nodes; each class is looked at once."""

    def __init__(self, catalogue: Catalogue, definitions: Mapping[str, UiGraph], page: PageRules) -> None:
        self._catalogue = catalogue
        self._definitions = definitions
        self._page = page
        self._classes: dict[tuple[str, frozenset[str]], PageClass] = {}

    def load_node(self, node: UiNode) -> LoadedNode:
        """The shape of one node."""
        if node.type in self._definitions:
            return self._load_instance(node, self._definitions[node.type])
        known = self._find_page_class(node) if node.type not in (*NOTES, PRIMITIVE, REROUTE) else None
        if known is None:
            outputs = tuple(slot.type for slot in node.outputs)
            return LoadedNode(ui_node=node, inputs=node.inputs, outputs=outputs, title=node.title)
        layout = lay_out_values(known, node.values, self._page)
        listed = {slot.name: slot for slot in node.inputs}
        defined = {slot.name: slot for slot in _class_slots(known, layout, listed)}
        extra = [slot for slot in node.inputs if slot.name not in defined and not slot.widget]
        gone = [slot for slot in extra if slot.link is not None and _is_of_option(slot.name, layout)]
        kept = [slot for slot in extra if not _is_of_option(slot.name, layout)]
        return LoadedNode(
            ui_node=node,
            inputs=(*defined.values(), *kept),
            outputs=_output_types(known, node),
            title=node.title or known.title,
            page_class=known,
            layout=layout,
            dropped=tuple(gone),
        )

    def _load_instance(self, node: UiNode, definition: UiGraph) -> LoadedNode:
        listed = {slot.name: slot for slot in node.inputs}
        inputs = tuple(
            UiSlot(name=port.name, type=port.type, link=_link_of(listed.get(port.name))) for port in definition.inputs
        )
        return LoadedNode(
            ui_node=node,
            inputs=inputs,
            outputs=tuple(port.type for port in definition.outputs),
            title=node.title or definition.name,
            subgraph=definition.id,
        )

    def _find_page_class(self, node: UiNode) -> PageClass | None:
        definition = self._catalogue.get(node.type)
        if definition is None:
            return None
        # An input of several plain types has a widget if the file says so, also where an older engine does not.
        drawn = frozenset(slot.name for slot in node.inputs if slot.widget and "," in slot.type)
        if (node.type, drawn) not in self._classes:
            self._classes[node.type, drawn] = make_page_class(node.type, definition, self._page, drawn=drawn)
        return self._classes[node.type, drawn]


def choose_option(shape: LoadedNode, combo_name: str, option: JsonValue) -> LoadedNode:
    """The shape with another option of a dynamic combo: the wires to the old one's inputs are lost."""
    combo = shape.widget_spec(combo_name)
    if shape.layout is None or shape.page_class is None or combo is None:
        return shape
    layout = reopen_option(shape.layout, combo, option)
    listed = {slot.name: slot for slot in shape.inputs if not slot.name.startswith(f"{combo_name}.")}
    defined = {slot.name: slot for slot in _class_slots(shape.page_class, layout, listed)}
    rest = [slot for name, slot in listed.items() if name not in defined]
    return replace(shape, inputs=(*defined.values(), *rest), layout=layout)


def _class_slots(known: PageClass, layout: Layout, listed: Mapping[str, UiSlot]) -> Iterator[UiSlot]:
    """A class's inputs in the page's order: sockets first, then widgets with what their options bring."""
    for spec in known.sockets:
        yield from _socket_slots(spec, listed)
    for item in layout.inputs:
        if isinstance(item, InputSpec):
            yield from _socket_slots(item, listed)
        elif item.spec is not None:
            yield UiSlot(name=item.name, type=item.spec.type, link=_link_of(listed.get(item.name)), widget=True)


def _socket_slots(spec: InputSpec, listed: Mapping[str, UiSlot]) -> Iterator[UiSlot]:
    if spec.type == GROWING:
        yield from _growing_slots(spec, listed)
        return
    slot = listed.get(spec.name)
    # A socket that follows its wires was saved with the type that it had found.
    found = slot.type if slot is not None and spec.type == MATCHING else resolve_match_type(spec).type
    yield UiSlot(name=spec.name, type=found, link=_link_of(slot))


def _growing_slots(spec: InputSpec, listed: Mapping[str, UiSlot]) -> Iterator[UiSlot]:
    """The sockets of a growing list: one more than are wired, in the order of their numbers, beyond the end too."""
    grown = growing_list(spec)
    names = list(grown.items)
    wired = [name for name, slot in listed.items() if slot.link is not None and name.startswith(f"{spec.name}.")]
    last = max((names.index(name) for name in wired if name in grown.items), default=-1)
    shown = names[: max(grown.required + 1, last + 2)]
    beyond = sorted((name for name in wired if name not in grown.items), key=_trailing_number)
    for name in (*shown, *beyond):
        item = grown.items.get(name)
        yield UiSlot(name=name, type=item.type if item else listed[name].type, link=_link_of(listed.get(name)))


def _trailing_number(name: str) -> int:
    match = _NUMBER_AT_END.search(name)
    return int(match[0]) if match else 0


def _is_of_option(name: str, layout: Layout) -> bool:
    return any(
        name.startswith(f"{widget.name}.")
        for widget in layout.widgets.values()
        if widget.spec is not None and widget.spec.type == COMBO
    )


def _output_types(known: PageClass, node: UiNode) -> tuple[str, ...]:
    found: list[str] = []
    for number in range(max(len(known.outputs), len(node.outputs))):
        kind = type_text(known.outputs[number]) if number < len(known.outputs) else node.outputs[number].type
        if kind == MATCHING:
            kind = node.outputs[number].type if number < len(node.outputs) else "*"
        found.append("*" if kind == MATCHING else kind)
    return tuple(found)


def bypass_index(shape: LoadedNode, slot: int, wanted: str, page: PageRules) -> int | None:
    """The input that a bypassed node passes on in place of its output `slot`, for a consumer of type `wanted`."""
    inputs = shape.inputs
    if not inputs:
        return None
    if wanted in ("*", ""):
        return slot if slot < len(inputs) else 0
    given = shape.outputs[slot] if page.muted_gives_nothing and 0 <= slot < len(shape.outputs) else "*"
    if 0 <= slot < len(inputs) and _can_pass(inputs[slot].type, given, wanted):
        return slot
    exact = next((index for index, one in enumerate(inputs) if one.type == wanted), None)
    if exact is not None:
        return exact
    return next((index for index, one in enumerate(inputs) if _can_pass(one.type, given, wanted)), None)


def types_connect(one: str, other: str) -> bool:
    """Whether the page lets two slots be wired: the same type in any case, one of a list, or anything at all."""
    if one in ("", "*") or other in ("", "*"):
        return True
    ours = {part.strip().lower() for part in one.split(",")}
    theirs = {part.strip().lower() for part in other.split(",")}
    return not ours.isdisjoint(theirs) or "*" in ours | theirs


def _can_pass(kind: str, given: str, wanted: str) -> bool:
    return types_connect(kind, wanted) and types_connect(kind, given)


def _link_of(slot: UiSlot | None) -> str | None:
    return slot.link if slot else None
