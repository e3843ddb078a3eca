"""References to assets in a workflow (`core/ASSET`): found, and replaced by names of files a job brings. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from comfypin.digest import JsonValue
from comfypin.server.comfy_api.errors import ApiFailure
from comfypin.server.comfy_api.records import Asset

_TYPE = "core/ASSET"
# Nothing that ComfyUI reads into a name, such as " [output]" at its end.
_PLAIN_NAME = re.compile(r"[\w][\w. -]{0,60}(?<! )")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetInput:
    """One input of one node that names an asset."""

    node_id: str
    input_name: str
    asset_id: str


def find_references(workflow: Mapping[str, object]) -> tuple[AssetInput, ...]:
    """Return the inputs that name assets. Raises `ApiFailure` (missing_asset) for a reference that is malformed."""
    return tuple(_references(workflow))


def _references(workflow: Mapping[str, object]) -> Iterator[AssetInput]:
    for node_id, node in workflow.items():
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        for input_name, value in inputs.items() if isinstance(inputs, Mapping) else ():
            if _is_reference(value):
                yield AssetInput(node_id=node_id, input_name=input_name, asset_id=_asset_id(node_id, input_name, value))
            elif _holds_reference(value):
                raise _missing(node_id, input_name, "an asset must be the input itself, not a part of it")


def _is_reference(value: object) -> bool:
    return isinstance(value, Mapping) and value.get("__type") == _TYPE


def _holds_reference(value: object) -> bool:
    waiting = [value]
    while waiting:
        unvisited_value = waiting.pop()
        if _is_reference(unvisited_value):
            return True
        if isinstance(unvisited_value, Mapping):
            waiting.extend(unvisited_value.values())
        elif isinstance(unvisited_value, list):
            waiting.extend(unvisited_value)
    return False


def _asset_id(node_id: str, input_name: str, value: object) -> str:
    info = value.get("info") if isinstance(value, Mapping) else None
    asset_id = info.get("id") if isinstance(info, Mapping) else None
    if not isinstance(asset_id, str) or not asset_id:
        raise _missing(node_id, input_name, "the reference has no info.id")
    return asset_id


def missing_asset(reference: AssetInput) -> ApiFailure:
    """Return the failure of a reference to an asset that is not here."""
    return _missing(reference.node_id, reference.input_name, f"there is no asset {reference.asset_id[:100]!r} here")


def _missing(node_id: str, input_name: str, reason: str) -> ApiFailure:
    details: dict[str, JsonValue] = {"node_errors": {node_id: [{"field": input_name, "reason": "missing_asset"}]}}
    return ApiFailure(
        422, "missing_asset", f"Node {node_id[:100]}, input {input_name[:100]}: {reason}.", details=details
    )


def find_hashes(job_input: object) -> Iterator[str]:
    """Return the hashes of the assets that a job's input brings (`inputs[].asset`)."""
    inputs = job_input.get("inputs") if isinstance(job_input, Mapping) else None
    for input_entry in inputs if isinstance(inputs, list) else ():
        if isinstance(input_entry, Mapping) and isinstance(hash_ := input_entry.get("asset"), str):
            yield hash_


def name_files(assets: Mapping[str, Asset]) -> dict[str, str]:
    """Return a file name for each asset, by its id: its own name, unless that is taken or reads as something else."""
    names: dict[str, str] = {}
    for asset_id, asset in assets.items():
        own = PurePosixPath(asset.file_path or "").name
        suffix = PurePosixPath(own).suffix
        plain = f"{asset.id}{suffix if _SUFFIX.fullmatch(suffix) else ''}"
        names[asset_id] = own if _PLAIN_NAME.fullmatch(own) and own not in names.values() else plain
    return names


def with_names(
    workflow: Mapping[str, object], references: tuple[AssetInput, ...], names: Mapping[str, str]
) -> dict[str, object]:
    """Return the workflow with file names in place of the references."""
    changed = dict(workflow)
    for reference in references:
        node = changed[reference.node_id]
        assert isinstance(node, Mapping)
        changed[reference.node_id] = {
            **node,
            "inputs": {**node["inputs"], reference.input_name: names[reference.asset_id]},
        }
    return changed
