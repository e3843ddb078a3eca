"""Recorded conversions of ComfyUI's own page: those in this repository, and those that lie beside it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from tests.conftest import ROOT, SHARED

RECORDED_AT = datetime(2025, 3, 4, 5, 6, 7)
DATA = ROOT / "tests" / "data" / "convert"
VERSIONS = ("0.3.64", "0.33.0")
# Where the recordings of other people's templates lie, if they do: the cases, and the whole node catalogue.
_BESIDE = {
    "0.3.64": (SHARED / "captures" / "convert", SHARED / "captures" / "convert" / "object_info.json"),
    "0.33.0": (
        SHARED / "captures" / "comfyui-0.33" / "cases",
        SHARED / "captures" / "comfyui-0.33" / "object_info.json",
    ),
}


@dataclass(frozen=True, slots=True)
class Recording:
    """One saved file and the prompt that the page made of it, None if the page failed."""

    ui: dict[str, Any]
    api: dict[str, Any] | None
    missing: tuple[str, ...]


@cache
def own_recordings(version: str) -> dict[str, Any]:
    """The catalogue and the cases of one ComfyUI that are in this repository."""
    return json.loads((DATA / f"{version}.json").read_text())  # type: ignore[no-any-return]


def own_names() -> list[tuple[str, str]]:
    """(version, case) of every recording in this repository."""
    return [(version, name) for version in VERSIONS for name in own_recordings(version)["cases"]]


def own_recording(version: str, name: str) -> Recording:
    """One recording of this repository."""
    case = own_recordings(version)["cases"][name]
    return Recording(case["ui"], case["api"], tuple(map(str, case["missing"] or ())))


def names_beside() -> list[tuple[str, str]]:
    """(version, case) of every recording that lies beside the repository and is not in it."""
    return [
        (version, path.stem)
        for version in VERSIONS
        for path in sorted(_BESIDE[version][0].glob("*.json"))
        if path.stem != "object_info" and path.stem not in own_recordings(version)["cases"]
    ]


def recording_beside(version: str, name: str) -> Recording:
    """One recording that lies beside the repository."""
    case = json.loads((_BESIDE[version][0] / f"{name}.json").read_text())
    return Recording(case["ui"], case["api"], tuple(map(str, case["missing_node_types"] or ())))


@cache
def catalogue_beside(version: str) -> dict[str, Any]:
    """The whole node catalogue of a recorded ComfyUI."""
    return json.loads(_BESIDE[version][1].read_text())  # type: ignore[no-any-return]


def has_catalogue_beside(version: str) -> bool:
    """Whether the whole catalogue lies beside the repository."""
    return _BESIDE[version][1].exists()


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> set[str]:
    """What differs between two prompts: `node` if one lacks it, `node.key` or `node.input` otherwise."""
    found = set(ours.keys() ^ theirs.keys())
    for node_id in ours.keys() & theirs.keys():
        one, other = ours[node_id], theirs[node_id]
        found |= {f"{node_id}.{key}" for key in ("class_type", "_meta") if one.get(key) != other.get(key)}
        inputs, expected = one["inputs"], other["inputs"]
        for name in inputs.keys() | expected.keys():
            missing = object()
            a, b = inputs.get(name, missing), expected.get(name, missing)
            if a != b or isinstance(a, bool) != isinstance(b, bool):
                found.add(f"{node_id}.{name}")
    return found
