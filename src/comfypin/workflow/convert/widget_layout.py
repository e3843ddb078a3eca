"""Lay a node's saved values out over its widgets, as the page does while it loads: dynamic combos open on the way."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from comfypin.digest import JsonValue
from comfypin.workflow.convert.page_versions import PageRules
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
# Real combos have a few dozen options at most; a file must not make us count for ever.
_MAX_OPTIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Holds a node's widgets with their values, the inputs that its options brought, and values without a widget.

    `inputs` are the widgets and the sockets of options in the page's order; `surplus` are saved values at the end of
    the list, or by name, for which the class has no widget. `keys` say where the file's node keeps each value, or would
    keep it: a position of its list, or a name.
    """

    inputs: tuple[Widget | InputSpec, ...]
    values: dict[str, WidgetValue]
    surplus: tuple[JsonValue, ...] = ()
    extra: Mapping[str, JsonValue] = field(default_factory=dict)
    keys: Mapping[str, int | str] = field(default_factory=dict)

    @cached_property
    def widgets(self) -> Mapping[str, Widget]:
        """Return the widgets alone, by name."""
        return {
            widget_or_socket.name: widget_or_socket
            for widget_or_socket in self.inputs
            if isinstance(widget_or_socket, Widget)
        }


def lay_out_values(
    page_class: PageClass, stored: Sequence[JsonValue] | Mapping[str, JsonValue] | None, page_rules: PageRules
) -> Layout:
    """Give every widget of a node its saved value, or else its default."""
    saved_values = _read_stored(page_class, stored, page_rules)
    widget_filler = _WidgetFiller(saved_values)
    entries = widget_filler.fill_widgets(_class_items(page_class, saved_values))
    for combo_spec, later_entries in widget_filler.postponed:
        # The page takes no sub-values for a null; it then shows the first option with its defaults.
        later_entries.extend(
            widget_filler.open_option(combo_spec, next(iter(option_names(combo_spec)), None), _SavedValues(()))
        )
    node_inputs = tuple(_flatten_entries(entries))
    widget_values = {
        widget_name: _settle_value(widget, widget_filler.values[widget_name], page_rules)
        for widget_name, widget in _widgets_by_name(node_inputs)
    }
    sampler_name = widget_values.get("sampler_name")
    # Old files hold `sample_euler` for `euler`; the page strips it, for these two classes only.
    if page_class.class_type in ("KSampler", "KSamplerAdvanced") and isinstance(sampler_name, str):
        widget_values["sampler_name"] = sampler_name.removeprefix("sample_")
    # The page's script shows the first option if the choice is null.
    if page_class.class_type == CUSTOM_COMBO and widget_values.get(CHOICE, UNSET) is None:
        widget_values[CHOICE] = widget_values.get("option1")
    return Layout(
        inputs=node_inputs,
        values=widget_values,
        surplus=tuple(saved_values.rest),
        extra=saved_values.unnamed,
        keys=saved_values.keys,
    )


def reopen_option(layout: Layout, combo_spec: InputSpec, chosen_option: JsonValue) -> Layout:
    """Open another option of a dynamic combo; its own inputs get their defaults."""
    widget_filler = _WidgetFiller(_SavedValues(()))
    opened_inputs = list(_flatten_entries(widget_filler.open_option(combo_spec, chosen_option, _SavedValues(()))))
    node_inputs: list[Widget | InputSpec] = []
    for widget_or_socket in layout.inputs:
        if not widget_or_socket.name.startswith(f"{combo_spec.name}."):
            node_inputs.append(widget_or_socket)
        if widget_or_socket.name == combo_spec.name:
            node_inputs.extend(opened_inputs)
    widget_values = {
        widget_name: widget_filler.values.get(widget_name, layout.values.get(widget_name, UNSET))
        for widget_name, _ in _widgets_by_name(node_inputs)
    }
    kept_keys = {
        widget_name: key
        for widget_name, key in layout.keys.items()
        if not widget_name.startswith(f"{combo_spec.name}.")
    }
    return replace(layout, inputs=tuple(node_inputs), values=widget_values, keys=kept_keys)


class _SavedValues:
    """Hands out saved values, by place or by name; a widget that gets none keeps its default.

    `listed_keys` are where the file has the listed values, if that is not at their positions.
    """

    def __init__(
        self, stored: Sequence[JsonValue] | Mapping[str, JsonValue], listed_keys: Sequence[int | str] | None = None
    ) -> None:
        self._named = stored if isinstance(stored, Mapping) else None
        self._listed = list(stored) if not isinstance(stored, Mapping) else []
        self._listed_keys = listed_keys
        self._position = 0
        self.keys: dict[str, int | str] = {}
        self._asked: set[str] = set()

    def take_value(self, widget: Widget) -> WidgetValue:
        if self._named is not None:
            # By name a control is known under the page's own name for it.
            stored_name = CONTROL if widget.name.endswith(f".{CONTROL}") else widget.name
            # What nobody asks for is reported as unplaced, never dropped in silence.
            self._asked.add(stored_name)
            if widget.stored:
                self.keys[widget.name] = stored_name
            return self._named.get(stored_name, widget.default) if widget.stored else widget.default
        if not widget.stored:
            return widget.default
        position = self._position
        self._position += 1
        if self._listed_keys is None:
            self.keys[widget.name] = position
        elif position < len(self._listed_keys):
            self.keys[widget.name] = self._listed_keys[position]
        return self._listed[position] if position < len(self._listed) else widget.default

    @property
    def rest(self) -> list[JsonValue]:
        return self._listed[self._position :]

    @property
    def unnamed(self) -> Mapping[str, JsonValue]:
        return {
            widget_name: widget_value
            for widget_name, widget_value in (self._named or {}).items()
            if widget_name not in self._asked
        }


_Entry = Widget | InputSpec | list["_Entry"]


class _WidgetFiller:
    """Walks a class's widgets in order, and into the option of every dynamic combo that a value chose."""

    def __init__(self, saved_values: _SavedValues) -> None:
        self._saved_values = saved_values
        self.values: dict[str, WidgetValue] = {}
        self.postponed: list[tuple[InputSpec, list[_Entry]]] = []

    def fill_widgets(self, class_items: Iterable[Widget | InputSpec]) -> list[_Entry]:
        return self._walk_items(class_items, self._saved_values)

    def open_option(self, combo_spec: InputSpec, chosen_option: JsonValue, saved_values: _SavedValues) -> list[_Entry]:
        self.values[combo_spec.name] = chosen_option
        return self._walk_items(option_items(combo_spec, chosen_option), saved_values)

    def _walk_items(self, items_to_fill: Iterable[Widget | InputSpec], saved_values: _SavedValues) -> list[_Entry]:
        entries: list[_Entry] = []
        for widget_or_socket in items_to_fill:
            entries.append(widget_or_socket)
            if isinstance(widget_or_socket, InputSpec):
                continue
            widget_value = saved_values.take_value(widget_or_socket)
            self.values[widget_or_socket.name] = widget_value
            if widget_or_socket.spec is None or widget_or_socket.spec.type != COMBO:
                continue
            # A null chooses no option yet, but its inputs keep their place in the order: reserve it.
            if widget_value is None:
                later_entries: list[_Entry] = []
                entries.append(later_entries)
                self.postponed.append((widget_or_socket.spec, later_entries))
            elif widget_value is not UNSET:
                entries.append(self.open_option(widget_or_socket.spec, widget_value, saved_values))
        return entries


def _class_items(page_class: PageClass, saved_values: _SavedValues) -> Iterator[Widget | InputSpec]:
    yield from page_class.widgets
    if page_class.class_type != CUSTOM_COMBO:
        return
    # The page's script: the place of the choice, and options as long as the last one is not empty.
    yield Widget(name=CHOICE_INDEX, default=-1)
    for option_number in range(1, _MAX_OPTIONS):
        following = saved_values.rest[:1]
        yield Widget(name=f"option{option_number}", default="")
        if not following or following[0] in ("", None, False, 0):
            return


def _read_stored(
    page_class: PageClass, stored: Sequence[JsonValue] | Mapping[str, JsonValue] | None, page_rules: PageRules
) -> _SavedValues:
    """Read a list, or values saved as an object. Packs that write one (VideoHelperSuite) read it by name themselves."""
    if not isinstance(stored, Mapping):
        return _without_dummies(page_class, stored or (), range(len(stored or ())))
    # Page 1.27 takes no values at all from an object, for ComfyUI's own classes.
    if page_class.core and not page_rules.reads_dict_values:
        return _SavedValues((), ())
    # An object with the keys 0, 1, 2 is a list that some tool wrote as an object.
    if stored and all(widget_name.isascii() and widget_name.isdecimal() for widget_name in stored):
        return _without_dummies(page_class, list(stored.values()), list(stored))
    return _SavedValues(stored)


def _settle_value(widget: Widget, widget_value: WidgetValue, page_rules: PageRules) -> WidgetValue:
    input_spec = widget.spec
    if input_spec is None:
        return widget_value
    widget_type = widget_kind(input_spec)
    if widget_value is None and widget_type == "COMBO" and input_spec.choices:
        return input_spec.choices[0]
    multiline = page_rules.multiline_is_text and widget_type == "STRING" and bool(input_spec.options.get("multiline"))
    return as_text(widget_value) if multiline else widget_value


def as_text(widget_value: WidgetValue) -> WidgetValue:
    """Show a value as the text field of a multiline widget does."""
    return widget_value if isinstance(widget_value, str) or widget_value is UNSET else javascript_text(widget_value)


def _without_dummies(
    page_class: PageClass, widget_values: Sequence[JsonValue], listed_keys: Sequence[int | str]
) -> _SavedValues:
    """Drop the dummies that old files hold for every forceInput, if the number of values says that they are there.

    A class with a widget of the newer kinds is in no file of that age, and its values may have that count by chance.
    """
    if any(widget.spec is not None and widget_kind(widget.spec) in _NEWER_KINDS for widget in page_class.widgets):
        return _listed_values(widget_values, listed_keys)
    widget_names = {widget.name for widget in page_class.widgets}
    dummy_flags: list[bool] = []
    for input_spec in page_class.specs.values():
        is_forced = bool(input_spec.options.get("forceInput"))
        if is_forced or input_spec.name in widget_names:
            dummy_flags.extend([is_forced, False] if input_spec.options.get(CONTROL) else [is_forced])
    if any(dummy_flags) and len(dummy_flags) == len(widget_values):
        kept_positions = [position for position, is_dummy in enumerate(dummy_flags) if not is_dummy]
        return _SavedValues(
            [widget_values[position] for position in kept_positions],
            [listed_keys[position] for position in kept_positions],
        )
    return _listed_values(widget_values, listed_keys)


def _listed_values(widget_values: Sequence[JsonValue], listed_keys: Sequence[int | str]) -> _SavedValues:
    # A list may be too short; what it lacks would stand at the positions that follow.
    return _SavedValues(widget_values, None if isinstance(listed_keys, range) else listed_keys)


def _flatten_entries(entries: Iterable[_Entry]) -> Iterator[Widget | InputSpec]:
    for entry in entries:
        if isinstance(entry, list):
            yield from _flatten_entries(entry)
        else:
            yield entry


def _widgets_by_name(node_inputs: Iterable[Widget | InputSpec]) -> Iterator[tuple[str, Widget]]:
    return (
        (widget_or_socket.name, widget_or_socket)
        for widget_or_socket in node_inputs
        if isinstance(widget_or_socket, Widget)
    )
