"""What differs between two locks, pin by pin (pure)."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from comfypin.digest import JsonValue
from comfypin.lock import codec
from comfypin.lock.model import Lock

ChangeKind = Literal["added", "removed", "changed"]
Things = Mapping[str, Mapping[str, JsonValue]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One pin that is not the same: of which section, its name, and the values that differ, before and after."""

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


def diff(before: Lock, after: Lock) -> tuple[Change, ...]:
    """Every pin of one lock that the other has not, or has otherwise; names of releases and schemas do not count."""
    first, second = _sections(before), _sections(after)
    return tuple(change for section in dict.fromkeys((*first, *second)) for change in _compare(section, first, second))


def lines(changes: tuple[Change, ...]) -> Iterator[str]:
    """The changes for people: `+` came, `-` went, `~` is another one."""
    signs = {"added": "+", "removed": "-", "changed": "~"}
    for change in changes:
        yield f"{signs[change.kind]} {change.section} {change.name}{_detail(change)}"


def _detail(change: Change) -> str:
    if change.kind != "changed":
        said = change.after or change.before
        main = next((said[key] for key in ("version", "commit", "sha256", "value") if said.get(key) is not None), None)
        return f" {_short(main)}" if main is not None else ""
    keys = sorted({*change.before, *change.after})
    if change.section == "package" and "version" in keys:
        keys = ["version"]  # the file and its digest go with it; --json has all
    return ": " + "; ".join(
        f"{key} {_short(change.before.get(key))} -> {_short(change.after.get(key))}" for key in keys
    )


def _short(value: JsonValue) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=True, sort_keys=True, default=list)
    if "\n" in text:
        return f"a text of {len(text.splitlines())} lines"
    is_hex = len(text) in (40, 64) and set(text) <= set("0123456789abcdef")
    return text[:12] if is_hex else text if len(text) <= 100 else f"{text[:97]}..."


def _compare(section: str, first: Mapping[str, Things], second: Mapping[str, Things]) -> Iterator[Change]:
    before, after = first.get(section, {}), second.get(section, {})
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if old is None or new is None:
            kind: ChangeKind = "added" if old is None else "removed"
            yield Change(kind=kind, section=section, name=name, before=old or {}, after=new or {})
            continue
        keys = {key for key in {*old, *new} if old.get(key) != new.get(key)}
        yield Change(
            kind="changed",
            section=section,
            name=name,
            before={key: old[key] for key in sorted(keys) if key in old},
            after={key: new[key] for key in sorted(keys) if key in new},
        )


def _sections(lock: Lock) -> dict[str, Things]:
    """The lock by section and name; every value of a pin by its key."""
    packages = {
        f"{pin.name}{f' ({pin.target})' if pin.target else ''}{f' [{pin.marker}]' if pin.marker else ''}": (
            codec.package_to_json(pin)
        )
        for pin in lock.python.packages
    }
    return {
        "comfyui": {"ComfyUI": codec.repo_to_json(lock.comfyui)} if lock.comfyui else {},
        "node": {pin.folder: codec.node_to_json(pin) for pin in lock.custom_nodes},
        "python": _values(
            {
                "version": lock.python.version,
                "targets": sorted(lock.python.targets),
                "overrides": sorted(lock.python.overrides),
                "dropped": sorted(lock.python.dropped),
                "indexes": list(lock.python.indexes),
            }
        ),
        "requirement": {text: {} for text in lock.python.requirements},
        "package": packages,
        "model": {pin.target_path: codec.model_to_json(pin) for pin in lock.models},
        "system package": {name: {} for name in lock.system_packages},
        "engine": _values(codec.engine_to_json(lock.engine)),
        "other": _values(lock.extra),
    }


def _values(values: Mapping[str, JsonValue]) -> dict[str, Mapping[str, JsonValue]]:
    return {name: {"value": value} for name, value in values.items() if value not in (None, [], {})}
