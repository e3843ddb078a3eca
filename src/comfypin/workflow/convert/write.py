"""The prompt's nodes, written one by one: values as the page sends them, wires followed to their ends."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from comfypin.workflow.convert.dynamic import Budget, Choose, TooMuchText, expand_dynamic
from comfypin.workflow.convert.layout import CHOICE_INDEX
from comfypin.workflow.convert.names import Names, name_nodes
from comfypin.workflow.convert.pages import PageRules
from comfypin.workflow.convert.resolve import Broken, FromNode, FromWidget, Resolved, Resolver, Scope
from comfypin.workflow.convert.scenes import VIEWPORT, viewport_state
from comfypin.workflow.convert.shapes import PRIMITIVE, Shape
from comfypin.workflow.convert.state import Container
from comfypin.workflow.convert.ui import BYPASSED, MUTED, UiSlot
from comfypin.workflow.convert.widgets import CUSTOM_COMBO, UNSET, Value, control_of, is_controlled, widget_kind
from comfypin.workflow.findings import Finding
from comfypin.workflow.graph import InputValue, Link
from comfypin.workflow.text_macros import EXPANDED_INPUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A value that the page changes after a run: how (`control`), and who shares it (the same `group`)."""

    node_id: str
    input_name: str
    control: str
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The inputs of every node of the prompt, what each node is in the file, the seeds, and the texts to be filled in.

    `texts` are the inputs, as (node id, input name), in whose own text the page fills `%...%` in; `names` are the nodes
    that such a text may name. `decoration` are nodes that only a pack's page script knows, and that give nothing to
    anybody.
    """

    nodes: Mapping[str, Mapping[str, InputValue]]
    shapes: Mapping[str, Shape]
    seeds: tuple[Seed, ...]
    texts: frozenset[tuple[str, str]]
    names: Names
    decoration: frozenset[str]


def write(containers: Mapping[str, Container], page: PageRules, *, choose: Choose, findings: list[Finding]) -> Written:
    """Write every node that is neither virtual, muted nor bypassed; broken wires are added to the findings."""
    scopes = list(unfold(containers))
    inside = {
        (scope.parent.prefix, scope.instance.node.id): scope for scope in scopes if scope.parent and scope.instance
    }
    writer = _Writer(choose=choose, page=page, resolver=Resolver(inside, page), findings=findings)
    for scope in scopes:
        if not _is_active(scope) and not _is_left_over(scope, page):
            continue
        for shape in scope.container.shapes.values():
            if not shape.is_virtual and shape.node.mode not in (MUTED, BYPASSED):
                writer.write(scope, shape)
    return Written(
        nodes={node_id: _without_dead_links(inputs, writer.nodes) for node_id, inputs in writer.nodes.items()},
        shapes=writer.shapes,
        seeds=tuple(writer.seeds),
        texts=frozenset(writer.texts),
        names=name_nodes(containers, scopes),
        decoration=frozenset(scope.path_of(node_id) for scope in scopes for node_id in scope.container.decoration),
    )


def _is_active(scope: Scope) -> bool:
    """Whether no instance on the way to this scope is muted or bypassed."""
    at: Scope | None = scope
    while at is not None and at.instance is not None:
        if at.instance.node.mode in (MUTED, BYPASSED):
            return False
        at = at.parent
    return True


def _is_left_over(scope: Scope, page: PageRules) -> bool:
    """Whether the page leaves the inside of an inactive instance in the prompt, where nothing makes it run.

    Page 1.27 does so, later ones for an instance within an instance. Nothing there is asked for, unless it holds an
    output of its own, which must not run, or a class that the engine lacks, for which it would refuse the prompt.
    """
    parent = scope.parent
    if page.inactive_instance_is_empty and (parent is None or parent.instance is None or not _is_active(parent)):
        return False
    shapes = scope.container.shapes.values()
    return not any(shape.is_unknown or (shape.known and shape.known.is_output) for shape in shapes)


def unfold(containers: Mapping[str, Container]) -> Iterator[Scope]:
    """The root and the inside of every instance, each instance of its own; order.py has bounded how many."""
    waiting = [Scope(containers[""])]
    while waiting:
        scope = waiting.pop()
        yield scope
        for shape in reversed(list(scope.container.shapes.values())):
            if shape.subgraph is not None:
                prefix = f"{scope.prefix}{shape.node.id}:"
                waiting.append(Scope(containers[shape.subgraph], prefix, scope, shape))


@dataclass(slots=True)
class _Writer:
    choose: Choose
    page: PageRules
    resolver: Resolver
    findings: list[Finding]
    nodes: dict[str, dict[str, InputValue]] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    seeds: list[Seed] = field(default_factory=list)
    texts: set[tuple[str, str]] = field(default_factory=set)
    budget: Budget = field(default_factory=Budget)

    def write(self, scope: Scope, shape: Shape) -> None:
        node_id = scope.path_of(shape.node.id)
        inputs: dict[str, InputValue] = {}
        values = scope.container.values[shape.node.id]
        widgets = shape.widgets
        for name, value in values.items():
            if name not in widgets or widgets[name].sent:
                _put(inputs, name, self._sent(node_id, shape, name, value), kind=_kind(shape, name))
        for index, slot in enumerate(shape.inputs):
            source = self.resolver.resolve_input(scope, shape, index)
            match source:
                case Broken(reason):
                    self.findings.append(_finding(node_id, shape, "broken_link", reason, slot.name))
                case FromNode(origin, output):
                    inputs[slot.name] = Link(origin, output)
                case FromWidget(value=value):
                    inputs.pop(slot.name, None)
                    _put(inputs, slot.name, value)
            if source is None and self._is_filled_in(scope, shape, index):
                self.texts.add((node_id, slot.name))
                if slot.name in inputs and inputs[slot.name] is None:
                    message = "it is null, and ComfyUI's page cannot fill texts into that: give it a text"
                    self.findings.append(_finding(node_id, shape, "text_missing", message, slot.name))
            self._note_seed(scope, shape, index, source)
        if shape.node.type == CUSTOM_COMBO and CHOICE_INDEX in widgets:
            inputs[CHOICE_INDEX] = _choice_index(inputs, values)
        self.nodes[node_id] = inputs
        self.shapes[node_id] = shape

    def _sent(self, node_id: str, shape: Shape, name: str, value: Value) -> Value:
        spec = shape.spec(name)
        if spec is not None and spec.type == "LOAD_3D" and name == VIEWPORT:
            return viewport_state(shape.node)
        if spec is None or not spec.options.get("dynamicPrompts") or not isinstance(value, str):
            return value
        try:
            return expand_dynamic(value, self.choose, self.budget)
        except TooMuchText:
            message = "the braces of its dynamic prompt are nested too deeply to be read"
            self.findings.append(_finding(node_id, shape, "dynamic_prompt", message, name))
            return value

    def _is_filled_in(self, scope: Scope, shape: Shape, index: int) -> bool:
        """Whether the page fills `%...%` texts in: in file names, and in what a primitive gives that was told to."""
        slot = shape.inputs[index]
        if slot.name == EXPANDED_INPUT and shape.node.type in self.page.expanded_classes:
            return True
        origin = _origin(scope, slot)
        return (
            origin is not None
            and origin.node.type == PRIMITIVE
            and bool(origin.node.properties.get("Run widget replace on values"))
        )

    def _note_seed(self, scope: Scope, shape: Shape, index: int, source: Resolved) -> None:
        slot = shape.inputs[index]
        spec = shape.spec(slot.name)
        if spec is None or widget_kind(spec) != "INT" or isinstance(source, FromNode | Broken):
            return
        node_id = scope.path_of(shape.node.id)
        origin = _origin(scope, slot)
        group = f"{node_id}.{slot.name}"
        control: Value = None
        if origin is not None and origin.node.type == PRIMITIVE:
            stored = origin.node.values
            control = stored[1] if isinstance(stored, list) and len(stored) > 1 else None
            group = scope.path_of(origin.node.id)
        elif is_controlled(spec):
            control = scope.container.values[shape.node.id].get(control_of(slot.name))
            if isinstance(source, FromWidget):
                group = f"{source.scope.path_of(source.instance.node.id)}.{source.name}"
        control = {True: "randomize", False: "fixed"}.get(control, control) if isinstance(control, bool) else control
        if isinstance(control, str):
            self.seeds.append(Seed(node_id=node_id, input_name=slot.name, control=control, group=group))


def _origin(scope: Scope, slot: UiSlot) -> Shape | None:
    """The node that an input is wired to directly."""
    link = scope.container.graph.links.get(slot.link) if slot.link is not None else None
    return scope.shape(link.origin_id) if link else None


def _without_dead_links(inputs: Mapping[str, InputValue], alive: Mapping[str, object]) -> Mapping[str, InputValue]:
    return {name: value for name, value in inputs.items() if not isinstance(value, Link) or value.node_id in alive}


def _kind(shape: Shape, name: str) -> str | None:
    spec = shape.spec(name)
    return widget_kind(spec) if spec else None


def _choice_index(inputs: Mapping[str, InputValue], values: Mapping[str, Value]) -> int:
    """The place of a CustomCombo's choice among its options, as the page's script counts it."""
    options = [inputs.get(name, value) for name, value in values.items() if name.startswith("option")]
    choice = inputs.get("choice", UNSET)
    return options.index(choice) if choice in options else -1


def _put(inputs: dict[str, InputValue], name: str, value: Value, *, kind: str | None = None) -> None:
    if value is UNSET:
        return
    # A bare list would be read as a link.
    if isinstance(value, list):
        inputs[name] = {"__type__": "CURVE", "__value__": value} if kind == "CURVE" else {"__value__": value}
    else:
        inputs[name] = value


def _finding(node_id: str, shape: Shape, code: str, message: str, input_name: str) -> Finding:
    return Finding(
        code=code,
        message=message,
        node_id=node_id,
        title=shape.node.title,
        class_type=shape.node.type,
        input_name=input_name,
    )
