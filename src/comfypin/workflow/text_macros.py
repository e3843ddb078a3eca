"""The `%date:...%` and `%Node.widget%` texts that ComfyUI's page, and not its server, fills into file names."""

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
_NOT_IN_FILE_NAMES = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')

WidgetLookup: TypeAlias = "Callable[[str, str], str | None]"
"""(node name, widget name) -> the widget's value as `javascript_text`, or None where there is no such widget."""


def expand_texts(graph: ApiGraph, now: datetime, *, classes: Set[str]) -> ApiGraph:
    """The graph with the page's texts filled in, in nodes of these classes. `now` is in the user's own time zone.

    A name is looked up among the classes first (the page's "Node name for S&R"), then among the titles; what is not
    found stays as it is, as on the page.
    """

    def lookup_widget(name: str, widget: str) -> str | None:
        nodes = graph.nodes.values()
        node = next((node for node in nodes if node.class_type == name), None) or next(
            (node for node in nodes if node.title == name), None
        )
        if node is None or widget not in node.inputs:
            return None
        value = node.inputs[widget]
        return None if isinstance(value, ApiLink) else javascript_text(value)

    return ApiGraph(
        nodes={
            node_id: _expand_node(node, lookup_widget, now) if node.class_type in classes else node
            for node_id, node in graph.nodes.items()
        }
    )


def expand_text(text: str, lookup: WidgetLookup, now: datetime) -> str:
    """Fill one text in; the server's own placeholders (`%width%`, `%year%`, ...) stay for the server."""

    def replace_macro(match: re.Match[str]) -> str:
        parts = match[1].split(".")
        if len(parts) != 2:
            return format_date(parts[0][5:], now) if parts[0].startswith("date:") else match[0]
        value = lookup(parts[0], parts[1])
        return match[0] if value is None else _NOT_IN_FILE_NAMES.sub("_", value)

    return _PATTERN.sub(replace_macro, text)


def format_date(pattern: str, now: datetime) -> str:
    """A date by the page's letters: d, M, h, m, s once or twice (padded), yy, yyyy; all else is literal."""
    parts: Mapping[str, int] = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}

    def format_part(match: re.Match[str]) -> str:
        letters = match[0]
        if letters == "yyyy":
            return str(now.year)
        if letters == "yy":
            return str(now.year)[2:]
        value = parts.get(letters[0])
        return letters if value is None else str(value).rjust(len(letters), "0")

    return _DATE_PARTS.sub(format_part, pattern)


def javascript_text(value: JsonValue) -> str:
    """A JSON value as JavaScript makes a text of it: 8.0 is `8`, true is `true`, null is the empty text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _javascript_number(value)
    if isinstance(value, list | tuple):
        return ",".join(javascript_text(item) for item in value)
    return "[object Object]" if isinstance(value, Mapping) else str(value)


def _javascript_number(value: float) -> str:
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text
    if -6 <= int(exponent) < 0:
        return f"{value:.{len(mantissa.replace('-', '').replace('.', '')) - 1 - int(exponent)}f}"
    return f"{mantissa}e{int(exponent):+d}"


def _expand_node(node: ApiNode, lookup: WidgetLookup, now: datetime) -> ApiNode:
    text = node.inputs.get(EXPANDED_INPUT)
    if not isinstance(text, str) or "%" not in text:
        return node
    return replace(node, inputs={**node.inputs, EXPANDED_INPUT: expand_text(text, lookup, now)})
