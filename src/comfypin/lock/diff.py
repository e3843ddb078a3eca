"""Compares two locks, pin by pin (pure)."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from comfypin.digest import JsonValue
from comfypin.lock import codec
from comfypin.lock.model import Lock, PackagePin, VariantChoice
from comfypin.plurals import format_count

ChangeKind = Literal["added", "removed", "changed"]
SectionPins = Mapping[str, Mapping[str, JsonValue]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PinChange:
    """One pin that differs: its section, its name, and the values that differ, before and after."""

    kind: ChangeKind
    section: str
    name: str
    before: Mapping[str, JsonValue]
    after: Mapping[str, JsonValue]

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "change": self.kind,
            "section": self.section,
            "name": self.name,
            "before": dict(self.before),
            "after": dict(self.after),
        }


def diff_locks(before: Lock, after: Lock) -> tuple[PinChange, ...]:
    """Return every pin that only one lock has or that differs; names of releases and schemas do not count."""
    # dict.fromkeys keeps the order of the sections, which a set would not.
    before_sections, after_sections = _lock_sections(before), _lock_sections(after)
    return tuple(
        change
        for section in dict.fromkeys((*before_sections, *after_sections))
        for change in _compare_section(section, before_sections, after_sections)
    )


def change_lines(changes: tuple[PinChange, ...]) -> Iterator[str]:
    """Format the changes for people: `+` added, `-` removed, `~` changed."""
    # The signs of `diff`, so that nobody has to learn new ones.
    signs = {"added": "+", "removed": "-", "changed": "~"}
    for change in changes:
        yield f"{signs[change.kind]} {change.section} {change.name}{_change_detail(change)}"


def _change_detail(change: PinChange) -> str:
    if change.kind != "changed":
        pin_values = change.after or change.before
        # A pin that came or went is told by the one value that people recognise.
        main_value = next(
            (
                pin_values[value_key]
                for value_key in ("version", "commit", "sha256", "value")
                if pin_values.get(value_key) is not None
            ),
            None,
        )
        return f" {_shorten(main_value)}" if main_value is not None else ""
    changed_keys = sorted({*change.before, *change.after})
    if change.section == "package" and "version" in changed_keys:
        changed_keys = ["version"]  # the file and its digest go with it; --json has all
    return ": " + "; ".join(
        f"{value_key} {_shorten(change.before.get(value_key))} -> {_shorten(change.after.get(value_key))}"
        for value_key in changed_keys
    )


def _shorten(value: JsonValue) -> str:
    if value is None:
        return "nothing"
    shown_text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=True, sort_keys=True, default=list)
    if "\n" in shown_text:
        return f"a text of {format_count(len(shown_text.splitlines()), 'line')}"
    # Twelve digits of a commit or sha256 are enough to compare by eye.
    is_hex = len(shown_text) in (40, 64) and set(shown_text) <= set("0123456789abcdef")
    return shown_text[:12] if is_hex else shown_text if len(shown_text) <= 100 else f"{shown_text[:97]}..."


def _compare_section(
    section: str, first: Mapping[str, SectionPins], second: Mapping[str, SectionPins]
) -> Iterator[PinChange]:
    before, after = first.get(section, {}), second.get(section, {})
    for pin_name in sorted({*before, *after}):
        old_values, new_values = before.get(pin_name), after.get(pin_name)
        if old_values == new_values:
            continue
        # All of a new pin is new, so its values are not compared one by one.
        if old_values is None or new_values is None:
            kind: ChangeKind = "added" if old_values is None else "removed"
            yield PinChange(kind=kind, section=section, name=pin_name, before=old_values or {}, after=new_values or {})
            continue
        changed_keys = {
            value_key
            for value_key in {*old_values, *new_values}
            if old_values.get(value_key) != new_values.get(value_key)
        }
        yield PinChange(
            kind="changed",
            section=section,
            name=pin_name,
            before={value_key: old_values[value_key] for value_key in sorted(changed_keys) if value_key in old_values},
            after={value_key: new_values[value_key] for value_key in sorted(changed_keys) if value_key in new_values},
        )


def _lock_sections(lock: Lock) -> dict[str, SectionPins]:
    """Group the lock's pins by section and name, each with its values by key."""
    packages = {_package_name(package_pin): codec.package_to_json(package_pin) for package_pin in lock.python.packages}
    return {
        "comfyui": {"ComfyUI": codec.repo_to_json(lock.comfyui)} if lock.comfyui else {},
        "node": {pinned.folder: codec.node_to_json(pinned) for pinned in lock.custom_nodes},
        "python": _named_values(
            {
                "version": lock.python.version,
                "targets": sorted(lock.python.targets),
                "overrides": sorted(lock.python.overrides),
                "dropped": sorted(lock.python.dropped),
                "indexes": list(lock.python.indexes),
            }
        ),
        "variant": {_variant_name(choice): codec.variant_to_json(choice) for choice in lock.python.variants},
        "library": {library: {"packages": sorted(packages)} for library, packages in lock.python.libraries.items()},
        "requirement": {requirement: {} for requirement in lock.python.requirements},
        "package": packages,
        "model": {pinned.target_path: codec.model_to_json(pinned) for pinned in lock.models},
        "system package": {entry_name: {} for entry_name in lock.system_packages},
        "engine": _named_values(codec.engine_to_json(lock.engine)),
        "other": _named_values(lock.extra),
    }


def _variant_name(choice: VariantChoice) -> str:
    # Platforms may choose differently.
    return f"{choice.name} ({', '.join(sorted(choice.platforms))})" if choice.platforms else choice.name


def _package_name(package_pin: PackagePin) -> str:
    # One package may be pinned several times, for different targets or markers.
    target = f" ({package_pin.target})" if package_pin.target else ""
    marker = f" [{package_pin.marker}]" if package_pin.marker else ""
    return f"{package_pin.name}{target}{marker}"


def _named_values(values: Mapping[str, JsonValue]) -> dict[str, Mapping[str, JsonValue]]:
    return {
        value_name: {"value": named_value}
        for value_name, named_value in values.items()
        if named_value not in (None, [], {})
    }
