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
            "custom_nodes": [_source_to_json(node) for node in self.nodes],
            "packages": dict(self.packages),
            "manifest": self.manifest.hex,
            "files": self.files,
            "size_bytes": self.size_bytes,
            "model_folders": {name: list(folders) for name, folders in self.model_folders.items()},
        }


def read_receipt(build: Path) -> Receipt | None:
    """Return the receipt of a build, or None if it is missing or damaged: then the build is incomplete too."""
    try:
        return receipt_from_json(json.loads((build / RECEIPT_FILE).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def receipt_from_json(tree: Mapping[str, object]) -> Receipt:
    """Parse a receipt. Raises `ValueError`, `KeyError`, `TypeError` or `AttributeError` for anything else."""
    if tree["schema_version"] != 1:
        raise ValueError("a receipt with another schema version")
    nodes, packages, folders = tree["custom_nodes"], tree["packages"], tree["model_folders"]
    if not isinstance(nodes, list) or not isinstance(packages, dict) or not isinstance(folders, dict):
        raise TypeError("not a receipt")
    target = tree["target"]
    return Receipt(
        env_digest=Digest(str(tree["env_digest"])),
        key=str(tree["key"]),
        target=None if target is None else str(target),
        python=str(tree["python"]),
        platform=str(tree["platform"]),
        comfyui=_source_from_json(tree["comfyui"]),
        nodes=tuple(_source_from_json(node) for node in nodes),
        packages={str(name): str(version) for name, version in packages.items()},
        manifest=Digest(str(tree["manifest"])),
        files=int(str(tree["files"])),
        size_bytes=int(str(tree["size_bytes"])),
        model_folders={str(name): tuple(map(str, paths)) for name, paths in folders.items()},
    )


def write_receipt(build: Path, receipt: Receipt) -> None:
    """Declare a build whole."""
    write_atomically(build / RECEIPT_FILE, canonical_json(receipt.to_json()))


def _source_to_json(pin: SourcePin) -> dict[str, JsonValue]:
    return {"folder": pin.folder, "repo": pin.repo, "commit": pin.commit}


def _source_from_json(value: object) -> SourcePin:
    if not isinstance(value, dict):
        raise TypeError("not a source")
    repo, commit = value["repo"], value["commit"]
    return SourcePin(
        folder=str(value["folder"]),
        repo=None if repo is None else str(repo),
        commit=None if commit is None else str(commit),
    )
