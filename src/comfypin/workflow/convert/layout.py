"""The saved values of a node laid out over its widgets, as the page does it while it loads: dynamic combos open."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from comfypin.digest import JsonValue
from comfypin.workflow.convert.pages import PageRules
from comfypin.workflow.convert.widgets import (
    CONTROL,
    CUSTOM_COMBO,
    UNSET,
    PageClass,
    Widget,
    WidgetValue,
    option_items,
    widget_kind,
)
from comfypin.workflow.node_inputs import COMBO, option_names
from comfypin.workflow.object_info import InputSpec
from comfypin.workflow.text_macros import javascript_text

CHOICE, CHOICE_INDEX = "choice", "index"
# Widgets that take more or other values than their one, and came after the page stopped to save dummies.
_NEWER_KINDS = frozenset({COMBO, "BOUNDING_BOX", "IMAGECOMPARE"})
_MAX_OPTIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A node's widgets with their values, the inputs that its options brought, and values that found no widget.

    `inputs` are the widgets and the sockets of options in the page's order; `surplus` are saved values at the end of
    the list, or by name, for which the class has no widget.
    """

    inputs: tuple[Widget | InputSpec, ...]
    values: dict[str, WidgetValue]
    surplus: tuple[JsonValue, ...] = ()
    extra: Mapping[str, JsonValue] = field(default_factory=dict)

    @cached_property
    def widgets(self) -> Mapping[str, Widget]:
        """The widgets alone, by name."""
        return {item.name: item for item in self.inputs if isinstance(item, Widget)}


def lay_out_values(
    shape: PageClass, saved: Sequence[JsonValue] | Mapping[str, JsonValue] | None, page: PageRules
) -> Layout:
    """Give every widget of a node its value: what is saved, else the default."""
    if isinstance(saved, Mapping):
        saved = _normalize_named_values(shape, saved, page)
    taker = _SavedValues(saved) if isinstance(saved, Mapping) else _SavedValues(_without_dummies(shape, saved or ()))
    filler = _WidgetFiller(taker)
    entries = filler.fill_widgets(_class_items(shape, taker))
    for combo, later in filler.postponed:
        # The page takes no sub-values for a null; it then shows the first option with its defaults.
        later.extend(filler.open_option(combo, next(iter(option_names(combo)), None), _SavedValues(())))
    inputs = tuple(_flatten_entries(entries))
    values = {name: _settle_value(widget, filler.values[name], page) for name, widget in _widgets_by_name(inputs)}
    sampler = values.get("sampler_name")
    if shape.class_type in ("KSampler", "KSamplerAdvanced") and isinstance(sampler, str):
        values["sampler_name"] = sampler.removeprefix("sample_")
    if shape.class_type == CUSTOM_COMBO and values.get(CHOICE, UNSET) is None:
        values[CHOICE] = values.get("option1")
    return Layout(inputs=inputs, values=values, surplus=tuple(taker.rest), extra=taker.unnamed)


def reopen_option(layout: Layout, combo: InputSpec, option: JsonValue) -> Layout:
    """The layout with another option of a dynamic combo, whose own inputs come with their defaults."""
    filler = _WidgetFiller(_SavedValues(()))
    opened = list(_flatten_entries(filler.open_option(combo, option, _SavedValues(()))))
    inputs: list[Widget | InputSpec] = []
    for item in layout.inputs:
        if not item.name.startswith(f"{combo.name}."):
            inputs.append(item)
        if item.name == combo.name:
            inputs.extend(opened)
    values = {name: filler.values.get(name, layout.values.get(name, UNSET)) for name, _ in _widgets_by_name(inputs)}
    return replace(layout, inputs=tuple(inputs), values=values)


class _SavedValues:
    """Hands out saved values, by place or by name; a widget that gets none keeps its default."""

    def __init__(self, saved: Sequence[JsonValue] | Mapping[str, JsonValue]) -> None:
        self._named = saved if isinstance(saved, Mapping) else None
        self._listed = list(saved) if not isinstance(saved, Mapping) else []
        self._at = 0
        self._asked: set[str] = set()

    def take_value(self, widget: Widget) -> WidgetValue:
        if self._named is not None:
            # By name a control is known under the page's own name for it.
            plain = CONTROL if widget.name.endswith(f".{CONTROL}") else widget.name
            self._asked.add(plain)
            return self._named.get(plain, widget.default) if widget.stored else widget.default
        if not widget.stored or self._at >= len(self._listed):
            return widget.default
        self._at += 1
        return self._listed[self._at - 1]

    @property
    def rest(self) -> list[JsonValue]:
        return self._listed[self._at :]

    @property
    def unnamed(self) -> Mapping[str, JsonValue]:
        return {name: value for name, value in (self._named or {}).items() if name not in self._asked}


_Entry = Widget | InputSpec | list["_Entry"]


class _WidgetFiller:
    """Walks a class's widgets in order, and into the option of every dynamic combo that a value chose."""

    def __init__(self, taker: _SavedValues) -> None:
        self._taker = taker
        self.values: dict[str, WidgetValue] = {}
        self.postponed: list[tuple[InputSpec, list[_Entry]]] = []

    def fill_widgets(self, items: Iterable[Widget | InputSpec]) -> list[_Entry]:
        return self._walk_items(items, self._taker)

    def open_option(self, combo: InputSpec, option: JsonValue, taker: _SavedValues) -> list[_Entry]:
        self.values[combo.name] = option
        return self._walk_items(option_items(combo, option), taker)

    def _walk_items(self, items: Iterable[Widget | InputSpec], taker: _SavedValues) -> list[_Entry]:
        entries: list[_Entry] = []
        for item in items:
            entries.append(item)
            if isinstance(item, InputSpec):
                continue
            value = taker.take_value(item)
            self.values[item.name] = value
            if item.spec is None or item.spec.type != COMBO:
                continue
            if value is None:
                later: list[_Entry] = []
                entries.append(later)
                self.postponed.append((item.spec, later))
            elif value is not UNSET:
                entries.append(self.open_option(item.spec, value, taker))
        return entries


def _class_items(shape: PageClass, taker: _SavedValues) -> Iterator[Widget | InputSpec]:
    yield from shape.widgets
    if shape.class_type != CUSTOM_COMBO:
        return
    # The page's script: the place of the choice, and options as long as the last one is not empty.
    yield Widget(name=CHOICE_INDEX, default=-1)
    for number in range(1, _MAX_OPTIONS):
        following = taker.rest[:1]
        yield Widget(name=f"option{number}", default="")
        if not following or following[0] in ("", None, False, 0):
            return


def _normalize_named_values(
    shape: PageClass, saved: Mapping[str, JsonValue], page: PageRules
) -> Sequence[JsonValue] | Mapping[str, JsonValue]:
    """Values saved as an object: packs that write it (VideoHelperSuite) read it by name, by their own scripts."""
    if shape.core and not page.reads_dict_values:
        return ()
    if saved and all(name.isascii() and name.isdecimal() for name in saved):
        return list(saved.values())
    return saved


def _settle_value(widget: Widget, value: WidgetValue, page: PageRules) -> WidgetValue:
    spec = widget.spec
    if spec is None:
        return value
    kind = widget_kind(spec)
    if value is None and kind == "COMBO" and spec.choices:
        return spec.choices[0]
    multiline = page.multiline_is_text and kind == "STRING" and bool(spec.options.get("multiline"))
    return as_text(value) if multiline else value


def as_text(value: WidgetValue) -> WidgetValue:
    """A value as the text field of a multiline widget shows it."""
    return value if isinstance(value, str) or value is UNSET else javascript_text(value)


def _without_dummies(shape: PageClass, values: Sequence[JsonValue]) -> Sequence[JsonValue]:
    """Old files hold a dummy for every forceInput; the page drops them where the count says that they are there.

    A class with a widget of the newer kinds is in no file of that age, and its values may have that count by chance.
    """
    if any(widget.spec is not None and widget_kind(widget.spec) in _NEWER_KINDS for widget in shape.widgets):
        return values
    names = {widget.name for widget in shape.widgets}
    dummies: list[bool] = []
    for spec in shape.specs.values():
        forced = bool(spec.options.get("forceInput"))
        if forced or spec.name in names:
            dummies.extend([forced, False] if spec.options.get(CONTROL) else [forced])
    if any(dummies) and len(dummies) == len(values):
        return [value for value, dummy in zip(values, dummies, strict=True) if not dummy]
    return values


def _flatten_entries(entries: Iterable[_Entry]) -> Iterator[Widget | InputSpec]:
    for entry in entries:
        if isinstance(entry, list):
            yield from _flatten_entries(entry)
        else:
            yield entry


def _widgets_by_name(inputs: Iterable[Widget | InputSpec]) -> Iterator[tuple[str, Widget]]:
    return ((item.name, item) for item in inputs if isinstance(item, Widget))
