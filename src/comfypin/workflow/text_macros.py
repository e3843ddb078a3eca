"""Fills in the `%date:...%` and `%Node.widget%` texts of file names, which ComfyUI leaves to its page."""

import re
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias

from comfypin.digest import JsonValue
from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode

EXPANDED_INPUT = "filename_prefix"

_PATTERN = re.compile(r"%([^%]+)%")
_DATE_PARTS = re.compile(r"dd?|MM?|hh?|mm?|ss?|yyy?y?")
# The page replaces these characters in what it fills in, so that a prompt cannot name another folder.
_NOT_IN_FILE_NAMES = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')

# What ComfyUI itself fills in when it saves (folder_paths.get_save_image_path, SaveImage).
_SERVER_TEXTS = frozenset({"width", "height", "year", "month", "day", "hour", "minute", "second", "batch_num"})

# (node name, widget name) -> the widget's value as `javascript_text`, or None if there is no such widget.
WidgetLookup: TypeAlias = "Callable[[str, str], str | None]"


def expand_texts(graph: ApiGraph, local_time: datetime, *, classes: Set[str]) -> ApiGraph:
    """Fill in the page's texts, in nodes of these classes. `local_time` is in the user's own time zone.

    A name is looked up among the classes first (the page's "Node name for S&R"), then among the titles; what is not
    found stays as it is, as on the page.
    """

    def lookup_widget(node_name: str, widget_name: str) -> str | None:
        nodes = graph.nodes.values()
        node = next((node for node in nodes if node.class_type == node_name), None) or next(
            (node for node in nodes if node.title == node_name), None
        )
        if node is None or widget_name not in node.inputs:
            return None
        json_value = node.inputs[widget_name]
        return None if isinstance(json_value, ApiLink) else javascript_text(json_value)

    return ApiGraph(
        nodes={
            node_id: _expand_node(node, lookup_widget, local_time) if node.class_type in classes else node
            for node_id, node in graph.nodes.items()
        }
    )


def find_unfilled(graph: ApiGraph) -> dict[str, tuple[str, ...]]:
    """Return, by node, the texts in file names that neither the page nor the server fills in, such as `%basename%`."""
    unfilled: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes.values():
        prefix = node.inputs.get(EXPANDED_INPUT)
        names = _PATTERN.findall(prefix) if isinstance(prefix, str) else []
        if unknown := tuple(f"%{macro_name}%" for macro_name in names if macro_name not in _SERVER_TEXTS):
            unfilled[node.id] = unknown
    return unfilled


def expand_text(macro_text: str, lookup_value: WidgetLookup, local_time: datetime) -> str:
    """Fill in one text; the server's own placeholders (`%width%`, `%year%`, ...) stay for the server."""

    def replace_macro(macro_match: re.Match[str]) -> str:
        macro_parts = macro_match[1].split(".")
        if len(macro_parts) != 2:
            return format_date(macro_parts[0][5:], local_time) if macro_parts[0].startswith("date:") else macro_match[0]
        json_value = lookup_value(macro_parts[0], macro_parts[1])
        return macro_match[0] if json_value is None else _NOT_IN_FILE_NAMES.sub("_", json_value)

    return _PATTERN.sub(replace_macro, macro_text)


def format_date(date_pattern: str, local_time: datetime) -> str:
    """Format a date by the page's letters: d, M, h, m, s once or twice (padded), yy, yyyy; the rest is literal."""
    date_values: Mapping[str, int] = {
        "d": local_time.day,
        "M": local_time.month,
        "h": local_time.hour,
        "m": local_time.minute,
        "s": local_time.second,
    }

    def format_part(macro_match: re.Match[str]) -> str:
        date_letters = macro_match[0]
        if date_letters == "yyyy":
            return str(local_time.year)
        if date_letters == "yy":
            return str(local_time.year)[2:]
        json_value = date_values.get(date_letters[0])
        return date_letters if json_value is None else str(json_value).rjust(len(date_letters), "0")

    return _DATE_PARTS.sub(format_part, date_pattern)


def javascript_text(json_value: JsonValue) -> str:
    """Turn a JSON value into text as JavaScript does: 8.0 is `8`, true is `true`, null is empty."""
    if json_value is None:
        return ""
    if isinstance(json_value, bool):
        return "true" if json_value else "false"
    if isinstance(json_value, float):
        return _javascript_number(json_value)
    if isinstance(json_value, list | tuple):
        return ",".join(javascript_text(list_item) for list_item in json_value)
    return "[object Object]" if isinstance(json_value, Mapping) else str(json_value)


def _javascript_number(json_value: float) -> str:
    # JavaScript writes whole numbers without a fraction, and with an exponent only from 1e21 on.
    if json_value.is_integer() and abs(json_value) < 1e21:
        return str(int(json_value))
    macro_text = repr(json_value)
    mantissa, _, exponent = macro_text.partition("e")
    if not exponent:
        return macro_text
    # Python changes to an exponent below 1e-4, JavaScript only below 1e-6.
    if -6 <= int(exponent) < 0:
        return f"{json_value:.{len(mantissa.replace('-', '').replace('.', '')) - 1 - int(exponent)}f}"
    return f"{mantissa}e{int(exponent):+d}"


def _expand_node(node: ApiNode, lookup_value: WidgetLookup, local_time: datetime) -> ApiNode:
    macro_text = node.inputs.get(EXPANDED_INPUT)
    if not isinstance(macro_text, str) or "%" not in macro_text:
        return node
    return replace(node, inputs={**node.inputs, EXPANDED_INPUT: expand_text(macro_text, lookup_value, local_time)})
