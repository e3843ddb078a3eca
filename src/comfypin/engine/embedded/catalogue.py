"""Describes node classes as /object_info does, in the form of each release of ComfyUI."""

from collections.abc import Iterable

from comfypin.digest import JsonValue
from comfypin.engine.embedded.declare import NodeClass, NodeInput
from comfypin.engine.embedded.folders import EngineFolders
from comfypin.engine.embedded.releases import ComfyRelease


def catalogue_entry(node_class: NodeClass, folders: EngineFolders, release: ComfyRelease) -> dict[str, JsonValue]:
    """Return what /object_info says about a class."""
    groups = _group_inputs(node_class.inputs, node_class, folders) | {"hidden": _hidden_inputs(node_class)}
    # ComfyUI always lists `required`, even empty, and leaves out other empty groups.
    shown_groups = {group: members for group, members in groups.items() if members or group == "required"}
    entry: dict[str, JsonValue] = {
        "input": shown_groups,
        "input_order": {group: list(members) for group, members in shown_groups.items()},
        "output": list(node_class.outputs),
        "output_is_list": list(node_class.output_lists or [False] * len(node_class.outputs)),
        "output_name": list(node_class.output_names or node_class.outputs),
        "name": node_class.name,
        "display_name": node_class.display_name,
        "description": node_class.description,
        "python_module": node_class.module,
        "category": node_class.category,
        "output_node": node_class.is_output,
    }
    if node_class.modern:
        tooltips = node_class.output_tooltips or (None,) * len(node_class.outputs)
        entry |= {"output_tooltips": list(tooltips), "deprecated": node_class.deprecated}
        entry |= {"experimental": node_class.experimental, "api_node": False}
    else:
        entry |= {flag: True for flag in ("experimental", "deprecated") if getattr(node_class, flag)}
    return entry | (_newer_keys(node_class) if release.lists_node_schemas else {})


def describe_input(node_class: NodeClass, node_input: NodeInput, folders: EngineFolders) -> list[JsonValue]:
    """Return an input as the catalogue writes it: its type (or its choices), then its options if it has any."""
    allowed_values = node_input.allowed_values(folders)
    if node_class.modern:
        choice_options: dict[str, JsonValue] = (
            {} if allowed_values is None else {"multiselect": False, "options": allowed_values}
        )
        return [
            node_input.type,
            {**(node_input.options or {}), **choice_options, **_dynamic_options(node_class, node_input, folders)},
        ]
    described: JsonValue = node_input.type if allowed_values is None else allowed_values
    return [described] if node_input.options is None else [described, node_input.options]


def _group_inputs(
    inputs: Iterable[NodeInput], node_class: NodeClass, folders: EngineFolders
) -> dict[str, dict[str, JsonValue]]:
    groups: dict[str, dict[str, JsonValue]] = {"required": {}, "optional": {}}
    for node_input in inputs:
        groups["optional" if node_input.optional else "required"][node_input.name] = describe_input(
            node_class, node_input, folders
        )
    return groups


def _dynamic_options(node_class: NodeClass, node_input: NodeInput, folders: EngineFolders) -> dict[str, JsonValue]:
    if node_input.variants is not None:
        options: list[JsonValue] = [
            {"key": key, "inputs": _drop_empty_groups(_group_inputs(further_inputs, node_class, folders))}
            for key, further_inputs in node_input.variants.items()
        ]
        return {"options": options}
    if node_input.growth is not None:
        member = _drop_empty_groups(_group_inputs([node_input.growth.input], node_class, folders))
        bounds: dict[str, JsonValue] = {"min": node_input.growth.least, "max": node_input.growth.most}
        return {"template": {"input": member, "prefix": node_input.growth.prefix, **bounds}}
    return {}


def _drop_empty_groups(groups: dict[str, dict[str, JsonValue]]) -> dict[str, JsonValue]:
    return {group: members for group, members in groups.items() if members or group == "required"}


def _hidden_inputs(node_class: NodeClass) -> dict[str, JsonValue]:
    return {input_name: [value] if node_class.modern else value for input_name, value in node_class.hidden.items()}


def _newer_keys(node_class: NodeClass) -> dict[str, JsonValue]:
    """Return the keys that the catalogue has since the newer node schema."""
    keys: dict[str, JsonValue] = {
        "is_input_list": node_class.takes_lists,
        "has_intermediate_output": node_class.intermediate,
    }
    if not node_class.modern:
        essentials: dict[str, JsonValue] = (
            {} if node_class.essentials is None else {"essentials_category": node_class.essentials}
        )
        return keys | essentials | {"search_aliases": list(node_class.aliases or ())}
    return keys | {
        "output_matchtypes": None if node_class.output_matches is None else list(node_class.output_matches),
        "dev_only": False,
        "price_badge": None,
        "search_aliases": None if node_class.aliases is None else list(node_class.aliases),
        "essentials_category": node_class.essentials,
    }
