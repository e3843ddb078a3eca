"""Reads comfy-cli's comfy-build.yaml (comfy-build/1): a build's definition for Comfy's builder (pure).

Format as comfy-cli documents it; `lock export --format comfy-build` writes it (`comfypin.lock.comfy_build`).
"""

import re
from collections.abc import Mapping
from pathlib import Path

from comfypin.lock.model_spec import ModelSpec
from comfypin.lock.requirements import logical_lines
from comfypin.locking.node_registry import REGISTRY_SCHEME
from comfypin.locking.release_files.document import DocumentPath, ReleaseFile, ReleaseParts, python_minor
from comfypin.locking.repository_refs import COMFYUI, RepoSpec

SCHEMA = "comfy-build/1"
_READ_KEYS = frozenset({"schema", "baseComfyVersion", "models", "customNodes", "pipDependencies", "environment"})


def is_comfy_build(document: object) -> bool:
    """Return whether a document says that it is a build of comfy-cli, of any version."""
    return isinstance(document, Mapping) and str(document.get("schema", "")).startswith("comfy-build/")


def read_comfy_build(document: object, path: Path) -> ReleaseFile:
    """Read a comfy-build.yaml or .json. Raises `SnapshotUnreadable`."""
    document_path, parts = DocumentPath(path), ReleaseParts()
    build = document_path.mapping(document, "the file")
    if build.get("schema") != SCHEMA:
        raise document_path.refuse(f"its schema is {build.get('schema')!r}, and {SCHEMA!r} is known")
    definition = document_path.mapping(build.get("definition"), "definition")
    for index, node in enumerate(document_path.objects(definition.get("customNodes"), "definition.customNodes")):
        _read_node(node, f"definition.customNodes[{index}]", parts, document_path)
    for index, model in enumerate(document_path.objects(definition.get("models"), "definition.models")):
        _read_model(model, f"definition.models[{index}]", parts, document_path)
    base = definition.get("baseComfyVersion")
    comfyui = None
    if isinstance(base, str) and base.strip():
        # comfy-cli itself reads a bare 0.3.40 as the tag v0.3.40.
        tag = f"v{base.strip()}" if re.match(r"\d+\.\d+", base.strip()) else base.strip()
        comfyui = RepoSpec(repo=COMFYUI, ref=tag)
    environment = document_path.mapping(definition.get("environment"), "definition.environment")
    requirement_lines = _read_requirements(definition.get("pipDependencies"), parts, document_path)
    # A freeze says what was installed; anything looser is to be resolved.
    is_freeze = bool(requirement_lines) and all(
        re.match(r"[^\s=<>~!;]+==[^\s;*]+$", line) for line in requirement_lines
    )
    parts.notes += [f"its definition.{key} is not read" for key in sorted(definition.keys() - _READ_KEYS)]
    return parts.to_release(
        "a comfy-build.yaml of comfy-cli",
        comfyui=comfyui,
        installed=requirement_lines if is_freeze else (),
        requirements=() if is_freeze else requirement_lines,
        python=python_minor(environment.get("pythonVersion")),
    )


def _read_requirements(value: object, parts: ReleaseParts, document_path: DocumentPath) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, str):
        raise document_path.refuse("definition.pipDependencies is not a text")
    for _, line in logical_lines(value):
        if line.startswith("-"):
            parts.notes.append(f"not obeyed: {line}")
        else:
            parts.add_package(line)
    return tuple(parts.packages)


def _read_node(node: dict[str, object], entry_label: str, parts: ReleaseParts, document_path: DocumentPath) -> None:
    node_name = document_path.text(node.get("name"), f"{entry_label}.name")
    repository, version = node.get("repository"), node.get("registryVersion")
    if isinstance(version, str) and version:
        node_id = document_path.text(node.get("id", node_name), f"{entry_label}.id")
        parts.nodes.append(RepoSpec(repo=f"{REGISTRY_SCHEME}{node_id}", ref=version, folder=node_name))
    elif isinstance(repository, str) and repository:
        ref = next((str(node[key]) for key in ("commit", "gitRef") if node.get(key)), None)
        if ref is None:
            parts.notes.append(f"the node {node_name} names no commit; its default branch as it is today is taken")
        parts.nodes.append(RepoSpec(repo=repository, ref=ref, folder=node_name))
    else:
        parts.refuse("node", f"the node {node_name} was uploaded from a machine and is at no address", node_name)


def _read_model(model: dict[str, object], entry_label: str, parts: ReleaseParts, document_path: DocumentPath) -> None:
    folder = document_path.text(model.get("type"), f"{entry_label}.type").strip("/")
    address, filename = model.get("sourceUri"), model.get("filename")
    known_name = filename if isinstance(filename, str) and filename else None
    if not isinstance(address, str) or "://" not in address:
        parts.refuse(
            "model",
            f"the model {folder}/{known_name} was uploaded from a machine and has no sourceUri",
            known_name or entry_label,
        )
        return
    parts.models.append(
        ModelSpec(
            sources=(address,),
            target=f"{folder}/{known_name or ''}",
            sha256=document_path.digest(model.get("sha256"), f"{entry_label}.sha256"),
            name=known_name,
        )
    )
