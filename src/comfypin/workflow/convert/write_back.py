"""Write what a job sends back into the saved workflow, so that ComfyUI's page opens the values that ran.

The conversion says where the file keeps each value; whether the page reads the changed file so is not reasoned about,
but tried: converted again, it must give exactly what was sent.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from comfypin.digest import JsonValue
from comfypin.workflow.convert.build_prompt import ConvertedWorkflow, convert_workflow
from comfypin.workflow.convert.loaded_nodes import LoadedNode
from comfypin.workflow.convert.prompt_nodes import WrittenPrompt
from comfypin.workflow.convert.widget_layout import Layout, reopen_option
from comfypin.workflow.convert.widget_values import LoadedGraph, ValuePlace, ValuePlaces
from comfypin.workflow.convert.widgets import UNSET, Widget
from comfypin.workflow.errors import WorkflowInvalid
from comfypin.workflow.graph import ApiGraph, ApiLink, InputValue
from comfypin.workflow.node_inputs import COMBO
from comfypin.workflow.object_info import Catalogue

_InputName = tuple[str, str]
# A node of the file: its graph's id, and its place among the graph's nodes.
_FileNode = tuple[str, int]
# What a dynamic prompt takes as its own signs, and reads as plain text after a backslash.
_ESCAPES = str.maketrans({"{": r"\{", "}": r"\}", "|": r"\|"})


class _NoPlace(Exception):
    """Raised if the file has no place for a value, or two inputs that differ share the only one."""


def write_back(
    content: Mapping[str, JsonValue],
    conversion: ConvertedWorkflow,
    catalogue: Catalogue,
    *,
    changed: ApiGraph,
    sent: ApiGraph,
    local_time: datetime,
) -> Mapping[str, JsonValue] | None:
    """Return the document with the values of a job, or None if it cannot hold them.

    `changed` is the conversion's graph with the job's values, before `fill_texts`; `sent` is the graph in the end.
    """
    wanted = _restore_texts(conversion, changed, sent, local_time)
    try:
        changed_inputs = set(_find_changes(conversion, wanted))
        if not changed_inputs:
            return content
        saved = _ValueWriter(conversion.written, wanted).write(content, changed_inputs)
    except _NoPlace:
        return None
    return saved if _gives(saved, sent, catalogue, local_time) else None


def _restore_texts(
    conversion: ConvertedWorkflow, changed: ApiGraph, sent: ApiGraph, local_time: datetime
) -> Mapping[_InputName, InputValue]:
    """Return what to save by input: `%date%` and its like as they were, for the page fills them in by itself."""
    wanted = {
        (node_id, input_name): sent_value
        for node_id, node in sent.nodes.items()
        for input_name, sent_value in node.inputs.items()
    }
    for graph in (conversion.graph, changed):
        filled = conversion.fill_texts(graph, local_time)
        for node_id, input_name in conversion.written.texts & wanted.keys():
            filled_inputs = filled.nodes[node_id].inputs if node_id in filled.nodes else {}
            if filled_inputs.get(input_name, UNSET) == sent.nodes[node_id].inputs[input_name]:
                wanted[node_id, input_name] = graph.nodes[node_id].inputs[input_name]
    return wanted


def _find_changes(conversion: ConvertedWorkflow, wanted: Mapping[_InputName, InputValue]) -> Iterator[_InputName]:
    drawn = {name for name, is_drawn in conversion.written.dynamic_prompts.items() if is_drawn}
    converted = {
        (node_id, input_name): input_value
        for node_id, node in conversion.graph.nodes.items()
        for input_name, input_value in node.inputs.items()
    }
    for changed_input in converted.keys() | wanted.keys():
        old_value, new_value = converted.get(changed_input, UNSET), wanted.get(changed_input, UNSET)
        if changed_input in drawn or not _is_same(old_value, new_value):
            yield changed_input


def _is_same(old_value: object, new_value: object) -> bool:
    # In Python 1 equals True.
    return old_value == new_value and isinstance(old_value, bool) == isinstance(new_value, bool)


def _gives(content: Mapping[str, JsonValue], sent: ApiGraph, catalogue: Catalogue, local_time: datetime) -> bool:
    try:
        conversion = convert_workflow(content, catalogue, choose=lambda options: options[0])
    except WorkflowInvalid:
        return False
    graph = conversion.fill_texts(conversion.graph, local_time)
    is_certain = not any(conversion.written.dynamic_prompts.values())
    return is_certain and _to_comparable(graph) == _to_comparable(sent)


def _to_comparable(graph: ApiGraph) -> Mapping[str, object]:
    return {
        node_id: (
            node.class_type,
            {input_name: (isinstance(value, bool), value) for input_name, value in node.inputs.items()},
        )
        for node_id, node in graph.nodes.items()
    }


@dataclass(slots=True)
class _ValueWriter:
    """Finds the place of each changed value in the file, and writes them all into a copy of it."""

    written: WrittenPrompt
    wanted: Mapping[_InputName, InputValue]
    # Whole lists of values: of nodes whose dynamic combo opens another option, which moves the values behind it.
    relaid: dict[_FileNode, list[JsonValue] | dict[str, JsonValue]] = field(default_factory=dict)

    def write(self, content: Mapping[str, JsonValue], changed_inputs: set[_InputName]) -> Mapping[str, JsonValue]:
        """Return the document with the changed values. Raises `_NoPlace`."""
        changed_inputs = self._relay_options(changed_inputs)
        new_values = self._assign_places(changed_inputs)
        file_nodes = {(place.graph_id, place.file_index) for place in new_values} | self.relaid.keys()
        saved_values = {
            file_node: self._merge_values(file_node, _stored_values(content, file_node), new_values)
            for file_node in file_nodes
        }
        return _with_stored_values(content, saved_values)

    def _relay_options(self, changed_inputs: set[_InputName]) -> set[_InputName]:
        """Lay out anew the nodes that choose another option; return the other changed inputs."""
        node_ids = {node_id for node_id, input_name in changed_inputs if self._is_own_option(node_id, input_name)}
        for node_id in node_ids:
            loaded_node = self.written.loaded_nodes[node_id]
            graph_id = self._graph_of(loaded_node).graph.id
            values = self._lay_out_node(node_id, loaded_node)
            file_node = (graph_id, loaded_node.ui_node.file_index)
            if self.relaid.setdefault(file_node, values) != values:
                raise _NoPlace
        return {
            changed_input
            for changed_input in changed_inputs
            if changed_input[0] not in node_ids or self._is_kept_elsewhere(*changed_input)
        }

    def _is_kept_elsewhere(self, node_id: str, input_name: str) -> bool:
        places = self.written.places.get((node_id, input_name), ())
        return bool(places) and self._own_place(self.written.loaded_nodes[node_id], input_name) not in places

    def _is_own_option(self, node_id: str, input_name: str) -> bool:
        loaded_node = self.written.loaded_nodes.get(node_id)
        input_spec = loaded_node.widget_spec(input_name) if loaded_node else None
        return (
            loaded_node is not None
            and input_spec is not None
            and input_spec.type == COMBO
            and self._own_place(loaded_node, input_name) in self.written.places.get((node_id, input_name), ())
        )

    def _lay_out_node(self, node_id: str, loaded_node: LoadedNode) -> list[JsonValue] | dict[str, JsonValue]:
        layout = loaded_node.layout
        if layout is None:
            raise _NoPlace
        layout, is_named = self._open_options(node_id, layout), isinstance(loaded_node.ui_node.values, Mapping)
        by_name: dict[str, JsonValue] = {}
        for widget_or_socket in layout.inputs:
            if isinstance(widget_or_socket, Widget) and widget_or_socket.stored:
                name = widget_or_socket.name
                wanted_value = self.wanted.get((node_id, name), UNSET)
                old_value = layout.values.get(name, UNSET)
                is_linked = wanted_value is UNSET or isinstance(wanted_value, ApiLink)
                value = old_value if is_linked else self._to_stored((node_id, name))
                by_name[str(layout.keys.get(name, name)) if is_named else name] = None if value is UNSET else value
        if is_named:
            return {**layout.extra, **by_name}
        return [*by_name.values(), *layout.surplus]

    def _open_options(self, node_id: str, layout: Layout) -> Layout:
        opened: set[str] = set()
        while True:
            # An option may bring a dynamic combo of its own, so look again after each.
            combo = next(
                (
                    widget
                    for widget in layout.widgets.values()
                    if widget.spec is not None and widget.spec.type == COMBO and widget.name not in opened
                ),
                None,
            )
            if combo is None or combo.spec is None:
                return layout
            opened.add(combo.name)
            chosen = self.wanted.get((node_id, combo.name), UNSET)
            if chosen is not UNSET and not isinstance(chosen, ApiLink) and chosen != layout.values.get(combo.name):
                layout = reopen_option(layout, combo.spec, chosen)

    def _assign_places(self, changed_inputs: set[_InputName]) -> dict[ValuePlace, JsonValue]:
        """Return the new values by place: the innermost one that all its inputs agree on."""
        sharing: dict[ValuePlace, set[_InputName]] = {}
        for input_place, places in self.written.places.items():
            if places and not isinstance(self.wanted.get(input_place, UNSET), ApiLink):
                sharing.setdefault(places[0], set()).add(input_place)
        unplaced: list[tuple[set[_InputName], int]] = []
        for changed_input in changed_inputs:
            places = self.written.places.get(changed_input, ())
            if not places or isinstance(self.wanted.get(changed_input, UNSET), ApiLink):
                raise _NoPlace
            unplaced.append((sharing[places[0]], 0))
        new_values: dict[ValuePlace, JsonValue] = {}
        while unplaced:
            inputs, depth = unplaced.pop()
            place = self._place_at(next(iter(inputs)), depth)
            if self._agree(inputs):
                new_values[place] = self._to_stored(next(iter(inputs)))
                continue
            # Instances that share a definition and differ: each then keeps its own value.
            further_out: dict[ValuePlace, set[_InputName]] = {}
            for input_name in inputs:
                further_out.setdefault(self._place_at(input_name, depth + 1), set()).add(input_name)
            unplaced.extend((outer_inputs, depth + 1) for outer_inputs in further_out.values())
        return {**self._copies_at_targets(changed_inputs, new_values), **new_values}

    def _place_at(self, input_name: _InputName, depth: int) -> ValuePlace:
        places: ValuePlaces = self.written.places[input_name]
        if depth >= len(places):
            raise _NoPlace
        return places[depth]

    def _agree(self, inputs: set[_InputName]) -> bool:
        values = [self.wanted.get(input_name, UNSET) for input_name in inputs]
        return all(_is_same(values[0], value) for value in values[1:])

    def _copies_at_targets(
        self, changed_inputs: set[_InputName], new_values: Mapping[ValuePlace, JsonValue]
    ) -> dict[ValuePlace, JsonValue]:
        """Return the values that the page also keeps at the inputs that a primitive feeds, in the same graph."""
        copies: dict[ValuePlace, JsonValue] = {}
        for node_id, input_name in changed_inputs:
            place, loaded_node = self.written.places[node_id, input_name][0], self.written.loaded_nodes[node_id]
            own_place = self._own_place(loaded_node, input_name)
            if place in new_values and own_place is not None and own_place.graph_id == place.graph_id:
                copies[own_place] = new_values[place]
        return copies

    def _own_place(self, loaded_node: LoadedNode, input_name: str) -> ValuePlace | None:
        key = loaded_node.layout.keys.get(input_name) if loaded_node.layout else None
        graph_id = self._graph_of(loaded_node).graph.id
        return None if key is None else ValuePlace(graph_id, loaded_node.ui_node.file_index, key)

    def _graph_of(self, loaded_node: LoadedNode) -> LoadedGraph:
        node_id = loaded_node.ui_node.id
        return next(
            loaded_graph
            for loaded_graph in self.written.loaded_graphs.values()
            if loaded_graph.loaded_nodes.get(node_id) is loaded_node
        )

    def _to_stored(self, input_name: _InputName) -> JsonValue:
        value = self.wanted.get(input_name, UNSET)
        if value is UNSET or isinstance(value, ApiLink):
            raise _NoPlace
        if isinstance(value, Mapping) and "__value__" in value:
            return value["__value__"]
        is_dynamic = input_name in self.written.dynamic_prompts
        return value.translate(_ESCAPES) if is_dynamic and isinstance(value, str) else value

    def _merge_values(
        self, file_node: _FileNode, stored: JsonValue, new_values: Mapping[ValuePlace, JsonValue]
    ) -> JsonValue:
        relaid = self.relaid.get(file_node)
        if relaid is not None:
            return relaid
        own_values = {
            place.key: value for place, value in new_values.items() if (place.graph_id, place.file_index) == file_node
        }
        if isinstance(stored, Mapping):
            return {**stored, **{str(key): value for key, value in own_values.items()}}
        values = list(stored) if isinstance(stored, list) else []
        for key in sorted(key for key in own_values if isinstance(key, int)):
            # A list that is too short: what the page reads for the others until now.
            values.extend(self._current_value(file_node, position) for position in range(len(values), key + 1))
            values[key] = own_values[key]
        return values

    def _current_value(self, file_node: _FileNode, position: int) -> JsonValue:
        graph_id, file_index = file_node
        place = ValuePlace(graph_id, file_index, position)
        loaded_graph = self.written.loaded_graphs[graph_id]
        for node_id, loaded_node in loaded_graph.loaded_nodes.items():
            if loaded_node.ui_node.file_index != file_index:
                continue
            for widget_name, places in loaded_graph.places[node_id].items():
                value = loaded_graph.values[node_id].get(widget_name, UNSET)
                if place in places and value is not UNSET:
                    return value
        return None


def _stored_values(content: Mapping[str, JsonValue], file_node: _FileNode) -> JsonValue:
    graph = _find_graph(content, file_node[0])
    nodes = graph.get("nodes")
    listed = list(nodes.values()) if isinstance(nodes, Mapping) else nodes
    if not isinstance(listed, list) or not 0 <= file_node[1] < len(listed):
        raise _NoPlace
    node = listed[file_node[1]]
    return node.get("widgets_values") if isinstance(node, Mapping) else None


def _find_graph(content: Mapping[str, JsonValue], graph_id: str) -> Mapping[str, JsonValue]:
    if graph_id == "":
        return content
    for definition in reversed(_listed_definitions(content)):
        if isinstance(definition, Mapping) and definition.get("id") == graph_id:
            return definition
    # A group node of an older file: its description is no subgraph of the file.
    raise _NoPlace


def _listed_definitions(content: Mapping[str, JsonValue]) -> list[JsonValue]:
    definitions = content.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    return subgraphs if isinstance(subgraphs, list) else []


def _with_stored_values(
    content: Mapping[str, JsonValue], saved_values: Mapping[_FileNode, JsonValue]
) -> Mapping[str, JsonValue]:
    """Copy the document as far as it changes; its largest part is layout that stays."""
    by_graph: dict[str, dict[int, JsonValue]] = {}
    for (graph_id, file_index), values in saved_values.items():
        by_graph.setdefault(graph_id, {})[file_index] = values
    saved = _with_nodes(content, by_graph.get("", {}))
    if by_graph.keys() - {""}:
        # `_find_graph` took the last of those with one id, as the conversion does.
        last_positions = {
            definition.get("id"): position
            for position, definition in enumerate(_listed_definitions(content))
            if isinstance(definition, Mapping)
        }
        subgraphs = list(_listed_definitions(content))
        for graph_id in by_graph.keys() - {""}:
            position = last_positions[graph_id]
            subgraphs[position] = _with_nodes(cast("dict[str, JsonValue]", subgraphs[position]), by_graph[graph_id])
        saved["definitions"] = {**cast("dict[str, JsonValue]", content["definitions"]), "subgraphs": subgraphs}
    return saved


def _with_nodes(graph: Mapping[str, JsonValue], values_by_index: Mapping[int, JsonValue]) -> dict[str, JsonValue]:
    nodes = graph.get("nodes")

    def change(file_index: int, node: JsonValue) -> JsonValue:
        if file_index not in values_by_index or not isinstance(node, Mapping):
            return node
        return {**node, "widgets_values": values_by_index[file_index]}

    if isinstance(nodes, Mapping):
        changed: JsonValue = {key: change(index, node) for index, (key, node) in enumerate(nodes.items())}
    else:
        changed = [change(index, node) for index, node in enumerate(cast("list[JsonValue]", nodes or []))]
    return {**graph, "nodes": changed}
