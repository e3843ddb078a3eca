"""The prompt's nodes, written one by one: values as the page sends them, wires followed to their ends."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from comfypin.workflow.convert.dynamic import CharacterBudget, Choose, TooMuchText, expand_dynamic_prompt
from comfypin.workflow.convert.layout import CHOICE_INDEX
from comfypin.workflow.convert.names import NodeNames, name_nodes
from comfypin.workflow.convert.pages import PageRules
from comfypin.workflow.convert.resolve import BrokenWire, FromNode, FromWidget, Scope, WireResolver, WireSource
from comfypin.workflow.convert.scenes import VIEWPORT, viewport_state
from comfypin.workflow.convert.shapes import PRIMITIVE, LoadedNode
from comfypin.workflow.convert.state import LoadedGraph
from comfypin.workflow.convert.ui import BYPASSED, MUTED, UiSlot
from comfypin.workflow.convert.widgets import CUSTOM_COMBO, UNSET, WidgetValue, control_name, is_controlled, widget_kind
from comfypin.workflow.findings import WorkflowFinding
from comfypin.workflow.graph import ApiLink, InputValue
from comfypin.workflow.text_macros import EXPANDED_INPUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A value that the page changes after a run: how (`control`), and who shares it (the same `group`)."""

    node_id: str
    input_name: str
    control: str
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPrompt:
    """The inputs of every node of the prompt, what each node is in the file, the seeds, and the texts to be filled in.

    `texts` are the inputs, as (node id, input name), in whose own text the page fills `%...%` in; `names` are the nodes
    that such a text may name. `decoration` are nodes that only a pack's page script knows, and that give nothing to
    anybody.
    """

    nodes: Mapping[str, Mapping[str, InputValue]]
    loaded_nodes: Mapping[str, LoadedNode]
    seeds: tuple[Seed, ...]
    texts: frozenset[tuple[str, str]]
    names: NodeNames
    decoration: frozenset[str]


def write_prompt(
    containers: Mapping[str, LoadedGraph], page: PageRules, *, choose: Choose, findings: list[WorkflowFinding]
) -> WrittenPrompt:
    """Write every node that is neither virtual, muted nor bypassed; broken wires are added to the findings."""
    scopes = list(unfold_scopes(containers))
    inside = {
        (scope.parent.prefix, scope.instance.ui_node.id): scope for scope in scopes if scope.parent and scope.instance
    }
    writer = _PromptWriter(choose=choose, page=page, resolver=WireResolver(inside, page), findings=findings)
    for scope in scopes:
        if not _is_active(scope) and not _is_left_over(scope, page):
            continue
        for shape in scope.container.loaded_nodes.values():
            if not shape.is_virtual and shape.ui_node.mode not in (MUTED, BYPASSED):
                writer.write_node(scope, shape)
    return WrittenPrompt(
        nodes={node_id: _without_dead_links(inputs, writer.nodes) for node_id, inputs in writer.nodes.items()},
        loaded_nodes=writer.loaded_nodes,
        seeds=tuple(writer.seeds),
        texts=frozenset(writer.texts),
        names=name_nodes(containers, scopes),
        decoration=frozenset(scope.prompt_id(node_id) for scope in scopes for node_id in scope.container.decoration),
    )


def _is_active(scope: Scope) -> bool:
    """Whether no instance on the way to this scope is muted or bypassed."""
    at: Scope | None = scope
    while at is not None and at.instance is not None:
        if at.instance.ui_node.mode in (MUTED, BYPASSED):
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
    shapes = scope.container.loaded_nodes.values()
    return not any(shape.is_unknown or (shape.page_class and shape.page_class.is_output) for shape in shapes)


def unfold_scopes(containers: Mapping[str, LoadedGraph]) -> Iterator[Scope]:
    """The root and the inside of every instance, each instance of its own; order.py has bounded how many."""
    waiting = [Scope(containers[""])]
    while waiting:
        scope = waiting.pop()
        yield scope
        for shape in reversed(list(scope.container.loaded_nodes.values())):
            if shape.subgraph is not None:
                prefix = f"{scope.prefix}{shape.ui_node.id}:"
                waiting.append(Scope(containers[shape.subgraph], prefix, scope, shape))


@dataclass(slots=True)
class _PromptWriter:
    choose: Choose
    page: PageRules
    resolver: WireResolver
    findings: list[WorkflowFinding]
    nodes: dict[str, dict[str, InputValue]] = field(default_factory=dict)
    loaded_nodes: dict[str, LoadedNode] = field(default_factory=dict)
    seeds: list[Seed] = field(default_factory=list)
    texts: set[tuple[str, str]] = field(default_factory=set)
    budget: CharacterBudget = field(default_factory=CharacterBudget)

    def write_node(self, scope: Scope, shape: LoadedNode) -> None:
        node_id = scope.prompt_id(shape.ui_node.id)
        inputs: dict[str, InputValue] = {}
        values = scope.container.values[shape.ui_node.id]
        widgets = shape.widgets
        for name, value in values.items():
            if name not in widgets or widgets[name].sent:
                _put_value(
                    inputs, name, self._sent_value(node_id, shape, name, value), kind=_widget_kind_of(shape, name)
                )
        for index, slot in enumerate(shape.inputs):
            source = self.resolver.resolve_input(scope, shape, index)
            match source:
                case BrokenWire(reason):
                    self.findings.append(_input_finding(node_id, shape, "broken_link", reason, slot.name))
                case FromNode(origin, output):
                    inputs[slot.name] = ApiLink(origin, output)
                case FromWidget(value=value):
                    inputs.pop(slot.name, None)
                    _put_value(inputs, slot.name, value)
            if source is None and self._is_filled_in(scope, shape, index):
                self.texts.add((node_id, slot.name))
                if slot.name in inputs and inputs[slot.name] is None:
                    message = "it is null, and ComfyUI's page cannot fill texts into that: give it a text"
                    self.findings.append(_input_finding(node_id, shape, "text_missing", message, slot.name))
            self._note_seed(scope, shape, index, source)
        if shape.ui_node.type == CUSTOM_COMBO and CHOICE_INDEX in widgets:
            inputs[CHOICE_INDEX] = _choice_index(inputs, values)
        self.nodes[node_id] = inputs
        self.loaded_nodes[node_id] = shape

    def _sent_value(self, node_id: str, shape: LoadedNode, name: str, value: WidgetValue) -> WidgetValue:
        spec = shape.widget_spec(name)
        if spec is not None and spec.type == "LOAD_3D" and name == VIEWPORT:
            return viewport_state(shape.ui_node)
        if spec is None or not spec.options.get("dynamicPrompts") or not isinstance(value, str):
            return value
        try:
            return expand_dynamic_prompt(value, self.choose, self.budget)
        except TooMuchText:
            message = "the braces of its dynamic prompt are nested too deeply to be read"
            self.findings.append(_input_finding(node_id, shape, "dynamic_prompt", message, name))
            return value

    def _is_filled_in(self, scope: Scope, shape: LoadedNode, index: int) -> bool:
        """Whether the page fills `%...%` texts in: in file names, and in what a primitive gives that was told to."""
        slot = shape.inputs[index]
        if slot.name == EXPANDED_INPUT and shape.ui_node.type in self.page.expanded_classes:
            return True
        origin = _direct_origin(scope, slot)
        return (
            origin is not None
            and origin.ui_node.type == PRIMITIVE
            and bool(origin.ui_node.properties.get("Run widget replace on values"))
        )

    def _note_seed(self, scope: Scope, shape: LoadedNode, index: int, source: WireSource) -> None:
        slot = shape.inputs[index]
        spec = shape.widget_spec(slot.name)
        if spec is None or widget_kind(spec) != "INT" or isinstance(source, FromNode | BrokenWire):
            return
        node_id = scope.prompt_id(shape.ui_node.id)
        origin = _direct_origin(scope, slot)
        group = f"{node_id}.{slot.name}"
        control: WidgetValue = None
        if origin is not None and origin.ui_node.type == PRIMITIVE:
            stored = origin.ui_node.values
            control = stored[1] if isinstance(stored, list) and len(stored) > 1 else None
            group = scope.prompt_id(origin.ui_node.id)
        elif is_controlled(spec):
            control = scope.container.values[shape.ui_node.id].get(control_name(slot.name))
            if isinstance(source, FromWidget):
                group = f"{source.scope.prompt_id(source.instance.ui_node.id)}.{source.name}"
        control = {True: "randomize", False: "fixed"}.get(control, control) if isinstance(control, bool) else control
        if isinstance(control, str):
            self.seeds.append(Seed(node_id=node_id, input_name=slot.name, control=control, group=group))


def _direct_origin(scope: Scope, slot: UiSlot) -> LoadedNode | None:
    """The node that an input is wired to directly."""
    link = scope.container.graph.links.get(slot.link) if slot.link is not None else None
    return scope.find_node(link.origin_id) if link else None


def _without_dead_links(inputs: Mapping[str, InputValue], alive: Mapping[str, object]) -> Mapping[str, InputValue]:
    return {name: value for name, value in inputs.items() if not isinstance(value, ApiLink) or value.node_id in alive}


def _widget_kind_of(shape: LoadedNode, name: str) -> str | None:
    spec = shape.widget_spec(name)
    return widget_kind(spec) if spec else None


def _choice_index(inputs: Mapping[str, InputValue], values: Mapping[str, WidgetValue]) -> int:
    """The place of a CustomCombo's choice among its options, as the page's script counts it."""
    options = [inputs.get(name, value) for name, value in values.items() if name.startswith("option")]
    choice = inputs.get("choice", UNSET)
    return options.index(choice) if choice in options else -1


def _put_value(inputs: dict[str, InputValue], name: str, value: WidgetValue, *, kind: str | None = None) -> None:
    if value is UNSET:
        return
    # A bare list would be read as a link.
    if isinstance(value, list):
        inputs[name] = {"__type__": "CURVE", "__value__": value} if kind == "CURVE" else {"__value__": value}
    else:
        inputs[name] = value


def _input_finding(node_id: str, shape: LoadedNode, code: str, message: str, input_name: str) -> WorkflowFinding:
    return WorkflowFinding(
        code=code,
        message=message,
        node_id=node_id,
        title=shape.ui_node.title,
        class_type=shape.ui_node.type,
        input_name=input_name,
    )
