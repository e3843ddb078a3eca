"""The proof that a build is whole: written last, and the same for the same lock wherever it is realized."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.digest import Digest, JsonValue, canonical_json
from comfypin.env.layout import RECEIPT_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePin:
    """Records ComfyUI, or a node in its folder, as it was realized."""

    folder: str
    repo: str | None
    commit: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Records what was realized: the env digest, the target, sources, packages by name, and the digest of every file.

    `model_folders` are the names ComfyUI looks models up by, each with its folders under a models directory.
    """

    env_digest: Digest
    key: str
    target: str | None
    python: str
    platform: str
    comfyui: SourcePin
    nodes: tuple[SourcePin, ...]
    packages: Mapping[str, str]
    manifest: Digest
    files: int
    size_bytes: int
    model_folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "schema_version": 1,
            "env_digest": self.env_digest.hex,
            "key": self.key,
            "target": self.target,
            "python": self.python,
            "platform": self.platform,
            "comfyui": _source_to_json(self.comfyui),
            "custom_nodes": [_source_to_json(node_json) for node_json in self.nodes],
            "packages": dict(self.packages),
            "manifest": self.manifest.hex,
            "files": self.files,
            "size_bytes": self.size_bytes,
            "model_folders": {
                entry_name: list(model_folders) for entry_name, model_folders in self.model_folders.items()
            },
        }


def read_receipt(build_folder: Path) -> Receipt | None:
    """Return the receipt of a build, or None if it is missing or damaged: then the build is incomplete too."""
    try:
        return receipt_from_json(json.loads((build_folder / RECEIPT_FILE).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def receipt_from_json(parsed_json: Mapping[str, object]) -> Receipt:
    """Parse a receipt. Raises `ValueError`, `KeyError`, `TypeError` or `AttributeError` for anything else."""
    if parsed_json["schema_version"] != 1:
        raise ValueError("a receipt with another schema version")
    node_list, package_versions, model_folders = (
        parsed_json["custom_nodes"],
        parsed_json["packages"],
        parsed_json["model_folders"],
    )
    if not isinstance(node_list, list) or not isinstance(package_versions, dict) or not isinstance(model_folders, dict):
        raise TypeError("not a receipt")
    target_name = parsed_json["target"]
    return Receipt(
        env_digest=Digest(str(parsed_json["env_digest"])),
        key=str(parsed_json["key"]),
        target=None if target_name is None else str(target_name),
        python=str(parsed_json["python"]),
        platform=str(parsed_json["platform"]),
        comfyui=_source_from_json(parsed_json["comfyui"]),
        nodes=tuple(_source_from_json(node_json) for node_json in node_list),
        packages={str(entry_name): str(version) for entry_name, version in package_versions.items()},
        manifest=Digest(str(parsed_json["manifest"])),
        files=int(str(parsed_json["files"])),
        size_bytes=int(str(parsed_json["size_bytes"])),
        model_folders={
            str(entry_name): tuple(map(str, folder_paths)) for entry_name, folder_paths in model_folders.items()
        },
    )


def write_receipt(build_folder: Path, receipt: Receipt) -> None:
    """Declare a build whole."""
    write_atomically(build_folder / RECEIPT_FILE, canonical_json(receipt.to_json()))


def _source_to_json(source_pin: SourcePin) -> dict[str, JsonValue]:
    return {"folder": source_pin.folder, "repo": source_pin.repo, "commit": source_pin.commit}


def _source_from_json(source_json: object) -> SourcePin:
    if not isinstance(source_json, dict):
        raise TypeError("not a source")
    repository, commit_id = source_json["repo"], source_json["commit"]
    return SourcePin(
        folder=str(source_json["folder"]),
        repo=None if repository is None else str(repository),
        commit=None if commit_id is None else str(commit_id),
    )
