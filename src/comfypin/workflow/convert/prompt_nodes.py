"""Write the prompt's nodes one by one: values as the page sends them, links followed to their ends."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from comfypin.workflow.convert.dynamic_prompts import CharacterBudget, Choose, TooMuchText, expand_dynamic_prompt
from comfypin.workflow.convert.link_sources import BrokenLink, FromNode, FromWidget, LinkResolver, LinkSource, Scope
from comfypin.workflow.convert.loaded_nodes import PRIMITIVE, LoadedNode
from comfypin.workflow.convert.named_nodes import NodeNames, name_nodes
from comfypin.workflow.convert.page_versions import PageRules
from comfypin.workflow.convert.ui_graph import BYPASSED, MUTED, UiSlot
from comfypin.workflow.convert.view3d_defaults import VIEWPORT, viewport_state
from comfypin.workflow.convert.widget_layout import CHOICE_INDEX
from comfypin.workflow.convert.widget_values import LoadedGraph, ValuePlaces
from comfypin.workflow.convert.widgets import CUSTOM_COMBO, UNSET, WidgetValue, control_name, is_controlled, widget_kind
from comfypin.workflow.findings import WorkflowFinding
from comfypin.workflow.graph import ApiLink, InputValue
from comfypin.workflow.text_macros import EXPANDED_INPUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A value that the page changes after a run: `control` says how, and seeds of one `group` share it."""

    node_id: str
    input_name: str
    control: str
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPrompt:
    """Holds the inputs of every node of the prompt, the nodes of the file, the seeds, and the texts to fill in.

    `texts` are the inputs, as (node id, input name), in whose own text the page fills `%...%` in; `names` are the nodes
    that such a text may name. `decoration` are nodes that only a pack's page script knows, and that give nothing to
    anybody. `places` say where the file keeps a value, by (node id, input name); `dynamic_prompts` are
    the inputs in whose text the page makes choices, and whether one of several options was taken. `loaded_graphs` are
    the graphs that all this was written from.
    """

    nodes: Mapping[str, Mapping[str, InputValue]]
    loaded_nodes: Mapping[str, LoadedNode]
    seeds: tuple[Seed, ...]
    texts: frozenset[tuple[str, str]]
    names: NodeNames
    decoration: frozenset[str]
    places: Mapping[tuple[str, str], ValuePlaces]
    dynamic_prompts: Mapping[tuple[str, str], bool]
    loaded_graphs: Mapping[str, LoadedGraph]


def write_prompt(
    loaded_graphs: Mapping[str, LoadedGraph], page_rules: PageRules, *, choose: Choose, findings: list[WorkflowFinding]
) -> WrittenPrompt:
    """Write every node that is neither virtual, muted nor bypassed; broken links are added to the findings."""
    all_scopes = list(unfold_scopes(loaded_graphs))
    # By the outer prefix too: one definition has as many scopes as instances.
    inner_scopes = {
        (graph_scope.parent.prefix, graph_scope.instance.ui_node.id): graph_scope
        for graph_scope in all_scopes
        if graph_scope.parent and graph_scope.instance
    }
    prompt_writer = _PromptWriter(
        choose=choose, page=page_rules, resolver=LinkResolver(inner_scopes, page_rules), findings=findings
    )
    for graph_scope in all_scopes:
        if not _is_active(graph_scope) and not _is_left_over(graph_scope, page_rules):
            continue
        for loaded_node in graph_scope.loaded_graph.loaded_nodes.values():
            if not loaded_node.is_virtual and loaded_node.ui_node.mode not in (MUTED, BYPASSED):
                prompt_writer.write_node(graph_scope, loaded_node)
    return WrittenPrompt(
        nodes={
            node_id: _without_dead_links(node_inputs, prompt_writer.nodes)
            for node_id, node_inputs in prompt_writer.nodes.items()
        },
        loaded_nodes=prompt_writer.loaded_nodes,
        seeds=tuple(prompt_writer.seeds),
        texts=frozenset(prompt_writer.texts),
        names=name_nodes(loaded_graphs, all_scopes),
        decoration=frozenset(
            graph_scope.prompt_id(node_id)
            for graph_scope in all_scopes
            for node_id in graph_scope.loaded_graph.decoration
        ),
        places=prompt_writer.places,
        dynamic_prompts=prompt_writer.dynamic_prompts,
        loaded_graphs=loaded_graphs,
    )


def _is_active(graph_scope: Scope) -> bool:
    """Return whether no instance on the way to this scope is muted or bypassed."""
    current_scope: Scope | None = graph_scope
    while current_scope is not None and current_scope.instance is not None:
        if current_scope.instance.ui_node.mode in (MUTED, BYPASSED):
            return False
        current_scope = current_scope.parent
    return True


def _is_left_over(graph_scope: Scope, page_rules: PageRules) -> bool:
    """Return whether the page leaves the inside of an inactive instance in the prompt, although nothing runs it.

    Page 1.27 does so, later ones for an instance within an instance. Nothing there is asked for, unless it holds an
    output of its own, which must not run, or a class that the engine lacks, for which it would refuse the prompt.
    """
    outer_scope = graph_scope.parent
    if page_rules.inactive_instance_is_empty and (
        outer_scope is None or outer_scope.instance is None or not _is_active(outer_scope)
    ):
        return False
    loaded_nodes = graph_scope.loaded_graph.loaded_nodes.values()
    return not any(
        loaded_node.is_unknown or (loaded_node.page_class and loaded_node.page_class.is_output)
        for loaded_node in loaded_nodes
    )


def unfold_scopes(loaded_graphs: Mapping[str, LoadedGraph]) -> Iterator[Scope]:
    """Yield the root and the inside of every instance; order.py has bounded how many there are."""
    unvisited = [Scope(loaded_graphs[""])]
    while unvisited:
        graph_scope = unvisited.pop()
        yield graph_scope
        for loaded_node in reversed(list(graph_scope.loaded_graph.loaded_nodes.values())):
            if loaded_node.subgraph is not None:
                prefix = f"{graph_scope.prefix}{loaded_node.ui_node.id}:"
                unvisited.append(Scope(loaded_graphs[loaded_node.subgraph], prefix, graph_scope, loaded_node))


@dataclass(slots=True)
class _PromptWriter:
    choose: Choose
    page: PageRules
    resolver: LinkResolver
    findings: list[WorkflowFinding]
    nodes: dict[str, dict[str, InputValue]] = field(default_factory=dict)
    loaded_nodes: dict[str, LoadedNode] = field(default_factory=dict)
    seeds: list[Seed] = field(default_factory=list)
    texts: set[tuple[str, str]] = field(default_factory=set)
    places: dict[tuple[str, str], ValuePlaces] = field(default_factory=dict)
    dynamic_prompts: dict[tuple[str, str], bool] = field(default_factory=dict)
    budget: CharacterBudget = field(default_factory=CharacterBudget)

    def write_node(self, graph_scope: Scope, loaded_node: LoadedNode) -> None:
        node_id = graph_scope.prompt_id(loaded_node.ui_node.id)
        node_inputs: dict[str, InputValue] = {}
        widget_values = graph_scope.loaded_graph.values[loaded_node.ui_node.id]
        widgets = loaded_node.widgets
        widget_places = graph_scope.loaded_graph.places[loaded_node.ui_node.id]
        self.places.update({(node_id, name): widget_places.get(name, ()) for name in widget_values})
        for widget_name, widget_value in widget_values.items():
            if widget_name not in widgets or widgets[widget_name].sent:
                _put_value(
                    node_inputs,
                    widget_name,
                    self._sent_value(node_id, loaded_node, widget_name, widget_value),
                    widget_type=_widget_kind_of(loaded_node, widget_name),
                )
        for input_index, input_slot in enumerate(loaded_node.inputs):
            link_source = self.resolver.resolve_input(graph_scope, loaded_node, input_index)
            match link_source:
                case BrokenLink(reason):
                    self.findings.append(_input_finding(node_id, loaded_node, "broken_link", reason, input_slot.name))
                case FromNode(origin_id, output):
                    node_inputs[input_slot.name] = ApiLink(origin_id, output)
                    self.places.pop((node_id, input_slot.name), None)
                case FromWidget(value=widget_value, scope=outer_scope, instance=instance, name=port_name):
                    outer_places = outer_scope.loaded_graph.places[instance.ui_node.id]
                    self.places[node_id, input_slot.name] = outer_places.get(port_name, ())
                    self.dynamic_prompts.pop((node_id, input_slot.name), None)
                    # Put again at the end, so that the inputs have the order in which the page sends them.
                    node_inputs.pop(input_slot.name, None)
                    _put_value(node_inputs, input_slot.name, widget_value)
            if link_source is None and self._is_filled_in(graph_scope, loaded_node, input_index):
                self.texts.add((node_id, input_slot.name))
                if input_slot.name in node_inputs and node_inputs[input_slot.name] is None:
                    message = "it is null, and ComfyUI's page expects text here: set a text"
                    self.findings.append(_input_finding(node_id, loaded_node, "text_missing", message, input_slot.name))
            self._note_seed(graph_scope, loaded_node, input_index, link_source)
        # The page's script counts the index anew when it submits, whatever the file says.
        if loaded_node.ui_node.type == CUSTOM_COMBO and CHOICE_INDEX in widgets:
            node_inputs[CHOICE_INDEX] = _choice_index(node_inputs, widget_values)
        self.nodes[node_id] = node_inputs
        self.loaded_nodes[node_id] = loaded_node

    def _sent_value(
        self, node_id: str, loaded_node: LoadedNode, widget_name: str, widget_value: WidgetValue
    ) -> WidgetValue:
        input_spec = loaded_node.widget_spec(widget_name)
        if input_spec is not None and input_spec.type == "LOAD_3D" and widget_name == VIEWPORT:
            return viewport_state(loaded_node.ui_node)
        if input_spec is None or not input_spec.options.get("dynamicPrompts") or not isinstance(widget_value, str):
            return widget_value

        self.dynamic_prompts[node_id, widget_name] = False

        def choose_option(options: Sequence[str]) -> str:
            if len(options) > 1:
                self.dynamic_prompts[node_id, widget_name] = True
            return self.choose(options)

        try:
            return expand_dynamic_prompt(widget_value, choose_option, self.budget)
        except TooMuchText:
            message = "the braces of its dynamic prompt are nested too deeply to be read"
            self.findings.append(_input_finding(node_id, loaded_node, "dynamic_prompt", message, widget_name))
            return widget_value

    def _is_filled_in(self, graph_scope: Scope, loaded_node: LoadedNode, input_index: int) -> bool:
        """Return whether the page fills `%...%` in: in file names, and in the text of a primitive that is set so."""
        input_slot = loaded_node.inputs[input_index]
        if input_slot.name == EXPANDED_INPUT and loaded_node.ui_node.type in self.page.expanded_classes:
            return True
        origin_node = _direct_origin(graph_scope, input_slot)
        return (
            origin_node is not None
            and origin_node.ui_node.type == PRIMITIVE
            and bool(origin_node.ui_node.properties.get("Run widget replace on values"))
        )

    def _note_seed(
        self, graph_scope: Scope, loaded_node: LoadedNode, input_index: int, link_source: LinkSource
    ) -> None:
        input_slot = loaded_node.inputs[input_index]
        input_spec = loaded_node.widget_spec(input_slot.name)
        if input_spec is None or widget_kind(input_spec) != "INT" or isinstance(link_source, FromNode | BrokenLink):
            return
        node_id = graph_scope.prompt_id(loaded_node.ui_node.id)
        origin_node = _direct_origin(graph_scope, input_slot)
        seed_group = f"{node_id}.{input_slot.name}"
        seed_control: WidgetValue = None
        # A primitive keeps the control beside its value, and all its targets share the seed.
        if origin_node is not None and origin_node.ui_node.type == PRIMITIVE:
            stored_values = origin_node.ui_node.values
            seed_control = stored_values[1] if isinstance(stored_values, list) and len(stored_values) > 1 else None
            seed_group = graph_scope.prompt_id(origin_node.ui_node.id)
        elif is_controlled(input_spec):
            seed_control = graph_scope.loaded_graph.values[loaded_node.ui_node.id].get(control_name(input_slot.name))
            if isinstance(link_source, FromWidget):
                seed_group = f"{link_source.scope.prompt_id(link_source.instance.ui_node.id)}.{link_source.name}"
        # Old files hold true and false for randomize and fixed.
        seed_control = (
            {True: "randomize", False: "fixed"}.get(seed_control, seed_control)
            if isinstance(seed_control, bool)
            else seed_control
        )
        if isinstance(seed_control, str):
            self.seeds.append(Seed(node_id=node_id, input_name=input_slot.name, control=seed_control, group=seed_group))


def _direct_origin(graph_scope: Scope, input_slot: UiSlot) -> LoadedNode | None:
    """Return the node that an input is linked to directly."""
    ui_link = graph_scope.loaded_graph.graph.links.get(input_slot.link) if input_slot.link is not None else None
    return graph_scope.find_node(ui_link.origin_id) if ui_link else None


def _without_dead_links(
    node_inputs: Mapping[str, InputValue], written_nodes: Mapping[str, object]
) -> Mapping[str, InputValue]:
    return {
        input_name: input_value
        for input_name, input_value in node_inputs.items()
        if not isinstance(input_value, ApiLink) or input_value.node_id in written_nodes
    }


def _widget_kind_of(loaded_node: LoadedNode, widget_name: str) -> str | None:
    input_spec = loaded_node.widget_spec(widget_name)
    return widget_kind(input_spec) if input_spec else None


def _choice_index(node_inputs: Mapping[str, InputValue], widget_values: Mapping[str, WidgetValue]) -> int:
    """Return the position of a CustomCombo's choice among its options, as the page's script counts it."""
    combo_options = [
        node_inputs.get(widget_name, widget_value)
        for widget_name, widget_value in widget_values.items()
        if widget_name.startswith("option")
    ]
    chosen_option = node_inputs.get("choice", UNSET)
    return combo_options.index(chosen_option) if chosen_option in combo_options else -1


def _put_value(
    node_inputs: dict[str, InputValue], input_name: str, input_value: WidgetValue, *, widget_type: str | None = None
) -> None:
    if input_value is UNSET:
        return
    # A bare list would be read as a link.
    if isinstance(input_value, list):
        node_inputs[input_name] = (
            {"__type__": "CURVE", "__value__": input_value} if widget_type == "CURVE" else {"__value__": input_value}
        )
    else:
        node_inputs[input_name] = input_value


def _input_finding(
    node_id: str, loaded_node: LoadedNode, finding_code: str, message: str, input_name: str
) -> WorkflowFinding:
    return WorkflowFinding(
        code=finding_code,
        message=message,
        node_id=node_id,
        title=loaded_node.ui_node.title,
        class_type=loaded_node.ui_node.type,
        input_name=input_name,
    )
