"""A class's entry in /object_info, in the form of each release of ComfyUI."""

from collections.abc import Iterable

from comfypin.digest import JsonValue
from comfypin.engine.embedded.declare import Input, NodeClass
from comfypin.engine.embedded.folders import Folders
from comfypin.engine.embedded.releases import Release


def catalogue_entry(kind: NodeClass, folders: Folders, release: Release) -> dict[str, JsonValue]:
    """Return what /object_info says about a class."""
    groups = _groups(kind.inputs, kind, folders) | {"hidden": _hidden(kind)}
    shown = {group: members for group, members in groups.items() if members or group == "required"}
    entry: dict[str, JsonValue] = {
        "input": shown,
        "input_order": {group: list(members) for group, members in shown.items()},
        "output": list(kind.outputs),
        "output_is_list": list(kind.output_lists or [False] * len(kind.outputs)),
        "output_name": list(kind.output_names or kind.outputs),
        "name": kind.name,
        "display_name": kind.display_name,
        "description": kind.description,
        "python_module": kind.module,
        "category": kind.category,
        "output_node": kind.is_output,
    }
    if kind.modern:
        tooltips = kind.output_tooltips or (None,) * len(kind.outputs)
        entry |= {"output_tooltips": list(tooltips), "deprecated": kind.deprecated}
        entry |= {"experimental": kind.experimental, "api_node": False}
    else:
        entry |= {flag: True for flag in ("experimental", "deprecated") if getattr(kind, flag)}
    return entry | (_newer_keys(kind) if release.lists_node_schemas else {})


def input_config(kind: NodeClass, each: Input, folders: Folders) -> list[JsonValue]:
    """Return an input as the catalogue writes it: its type (or its choices), then its options if it has any."""
    allowed = each.allowed(folders)
    if kind.modern:
        choice: dict[str, JsonValue] = {} if allowed is None else {"multiselect": False, "options": allowed}
        return [each.type, {**(each.options or {}), **choice, **_dynamic_options(kind, each, folders)}]
    written: JsonValue = each.type if allowed is None else allowed
    return [written] if each.options is None else [written, each.options]


def _groups(inputs: Iterable[Input], kind: NodeClass, folders: Folders) -> dict[str, dict[str, JsonValue]]:
    groups: dict[str, dict[str, JsonValue]] = {"required": {}, "optional": {}}
    for each in inputs:
        groups["optional" if each.optional else "required"][each.name] = input_config(kind, each, folders)
    return groups


def _dynamic_options(kind: NodeClass, each: Input, folders: Folders) -> dict[str, JsonValue]:
    if each.variants is not None:
        options: list[JsonValue] = [
            {"key": key, "inputs": _present(_groups(brought, kind, folders))} for key, brought in each.variants.items()
        ]
        return {"options": options}
    if each.growth is not None:
        member = _present(_groups([each.growth.input], kind, folders))
        bounds: dict[str, JsonValue] = {"min": each.growth.least, "max": each.growth.most}
        return {"template": {"input": member, "prefix": each.growth.prefix, **bounds}}
    return {}


def _present(groups: dict[str, dict[str, JsonValue]]) -> dict[str, JsonValue]:
    return {group: members for group, members in groups.items() if members or group == "required"}


def _hidden(kind: NodeClass) -> dict[str, JsonValue]:
    return {name: [value] if kind.modern else value for name, value in kind.hidden.items()}


def _newer_keys(kind: NodeClass) -> dict[str, JsonValue]:
    keys: dict[str, JsonValue] = {"is_input_list": kind.takes_lists, "has_intermediate_output": kind.intermediate}
    if not kind.modern:
        essentials: dict[str, JsonValue] = {} if kind.essentials is None else {"essentials_category": kind.essentials}
        return keys | essentials | {"search_aliases": list(kind.aliases or ())}
    return keys | {
        "output_matchtypes": None if kind.output_matches is None else list(kind.output_matches),
        "dev_only": False,
        "price_badge": None,
        "search_aliases": None if kind.aliases is None else list(kind.aliases),
        "essentials_category": kind.essentials,
    }
