"""Nodes as the page holds them after loading: their inputs in the class's order, their outputs, their widgets."""

from collections.abc import Mapping
from dataclasses import dataclass

from comfypin.workflow.catalogue import Catalogue
from comfypin.workflow.convert.ui import UiGraph, UiNode, UiSlot
from comfypin.workflow.convert.widgets import ClassShape, class_shape

PRIMITIVE, REROUTE = "PrimitiveNode", "Reroute"
NOTES = frozenset({"Note", "MarkdownNote"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A node of a file, matched with its class or its subgraph.

    `known` is None for a class that the engine does not have, for notes, reroutes, primitives and subgraphs.
    """

    node: UiNode
    inputs: tuple[UiSlot, ...]
    output_count: int
    title: str | None
    known: ClassShape | None = None
    subgraph: str | None = None

    @property
    def is_virtual(self) -> bool:
        """Whether only the page knows the node, so that it is never sent."""
        return self.subgraph is not None or self.node.type in NOTES or self.node.type in (PRIMITIVE, REROUTE)

    @property
    def is_unknown(self) -> bool:
        """Whether neither the engine nor the file says what the node is."""
        return self.known is None and not self.is_virtual


class Shapes:
    """Makes the shapes of a workflow's nodes; each class is looked at once."""

    def __init__(self, catalogue: Catalogue, definitions: Mapping[str, UiGraph]) -> None:
        self._catalogue = catalogue
        self._definitions = definitions
        self._classes: dict[str, ClassShape] = {}

    def of(self, node: UiNode) -> Shape:
        """The shape of one node."""
        if node.type in self._definitions:
            return self._instance(node, self._definitions[node.type])
        known = self._class(node.type) if node.type not in (*NOTES, PRIMITIVE, REROUTE) else None
        if known is None:
            return Shape(node=node, inputs=node.inputs, output_count=len(node.outputs), title=node.title)
        listed = {slot.name: slot for slot in node.inputs}
        sockets = [UiSlot(name=spec.name, type=spec.type, link=_link(listed.get(spec.name))) for spec in known.sockets]
        widgets = [
            UiSlot(name=widget.name, type=widget.spec.type, link=_link(listed.get(widget.name)), widget=True)
            for widget in known.widgets
            if widget.spec is not None
        ]
        defined = {slot.name for slot in (*sockets, *widgets)}
        extra = [slot for slot in node.inputs if slot.name not in defined and not slot.widget]
        return Shape(
            node=node,
            inputs=(*sockets, *widgets, *extra),
            output_count=max(len(known.outputs), len(node.outputs)),
            title=node.title or known.title,
            known=known,
        )

    def _instance(self, node: UiNode, definition: UiGraph) -> Shape:
        listed = {slot.name: slot for slot in node.inputs}
        inputs = tuple(
            UiSlot(name=port.name, type=port.type, link=_link(listed.get(port.name))) for port in definition.inputs
        )
        return Shape(
            node=node,
            inputs=inputs,
            output_count=len(definition.outputs),
            title=node.title or definition.name,
            subgraph=definition.id,
        )

    def _class(self, class_type: str) -> ClassShape | None:
        definition = self._catalogue.get(class_type)
        if definition is None:
            return None
        if class_type not in self._classes:
            self._classes[class_type] = class_shape(class_type, definition)
        return self._classes[class_type]


def bypass_index(shape: Shape, slot: int, wanted: str) -> int | None:
    """The input that a bypassed node passes on in place of its output `slot`, for a consumer of type `wanted`."""
    inputs = shape.inputs
    if not inputs:
        return None
    if wanted in ("*", ""):
        return slot if slot < len(inputs) else 0
    if 0 <= slot < len(inputs) and types_connect(inputs[slot].type, wanted):
        return slot
    exact = next((index for index, one in enumerate(inputs) if one.type == wanted), None)
    if exact is not None:
        return exact
    return next((index for index, one in enumerate(inputs) if types_connect(one.type, wanted)), None)


def types_connect(one: str, other: str) -> bool:
    """Whether the page lets two slots be wired: the same type in any case, one of a list, or anything at all."""
    if one in ("", "*") or other in ("", "*"):
        return True
    ours = {part.strip().lower() for part in one.split(",")}
    theirs = {part.strip().lower() for part in other.split(",")}
    return not ours.isdisjoint(theirs) or "*" in ours | theirs


def _link(slot: UiSlot | None) -> str | None:
    return slot.link if slot else None
