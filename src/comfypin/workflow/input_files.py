"""The files that load nodes name: which inputs they are, where they lie, and never outside the folder they may."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from comfypin.workflow.errors import InputFileInvalid, OverrideInvalid
from comfypin.workflow.findings import WorkflowFinding, closest_names, did_you_mean
from comfypin.workflow.graph import ApiGraph, ApiNode, NodeId
from comfypin.workflow.node_inputs import open_inputs
from comfypin.workflow.node_targets import candidate_nodes, find_node
from comfypin.workflow.object_info import Catalogue, known_file_input, names_file

EngineFolder = Literal["input", "output", "temp"]

_ANNOTATIONS: dict[str, EngineFolder] = {" [input]": "input", " [output]": "output", " [temp]": "temp"}
_LISTED_FILES = 2000
_SHOWN_NAMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInput:
    """An input that names a file: `name` without its annotation, and the engine's folder that it means."""

    node_id: NodeId
    input_name: str
    name: str
    folder: EngineFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A file of this machine for one input of one node."""

    node_id: NodeId
    input_name: str
    path: Path


def file_inputs(graph: ApiGraph, catalogue: Catalogue | None = None) -> tuple[FileInput, ...]:
    """Every input of the graph that names a file, in the graph's order; links and empty values are none."""
    found: list[FileInput] = []
    for node in graph.nodes.values():
        for input_name in file_input_names(node, catalogue):
            value = node.inputs.get(input_name)
            if isinstance(value, str) and value:
                name, folder = split_annotation(value)
                found.append(FileInput(node_id=node.id, input_name=input_name, name=name, folder=folder))
    return tuple(found)


def file_input_names(node: ApiNode, catalogue: Catalogue | None) -> tuple[str, ...]:
    """The inputs of a node that name files, by its class's definition, else by what load nodes are known for."""
    definition = (catalogue or {}).get(node.class_type)
    if definition is None:
        known = known_file_input(node.class_type)
        return (known,) if known else ()
    specs = open_inputs(definition, node.inputs).specs.values()
    return tuple(spec.name for spec in specs if names_file(node.class_type, spec))


def split_annotation(value: str) -> tuple[str, EngineFolder]:
    """`x.png [output]` -> (`x.png`, `output`); a name without an annotation is in `input`."""
    for suffix, folder in _ANNOTATIONS.items():
        if value.endswith(suffix):
            return value.removesuffix(suffix), folder
    return value, "input"


def find_files(inputs: Iterable[FileInput], folder: Path, *, given: Sequence[FoundFile] = ()) -> tuple[FoundFile, ...]:
    """The files of this machine for a graph's inputs: those `given`, then those that lie in `folder` by their name.

    What lies in neither is left out: it may be in the engine's own input folder, which preflight knows. Raises
    `InputFileInvalid` for a name that leads out of the folder, also through a symbolic link.
    """
    found = {(file.node_id, file.input_name): file for file in given}
    for wanted in inputs:
        key = (wanted.node_id, wanted.input_name)
        if key in found or wanted.folder != "input":
            continue
        path = _find_inside(folder, wanted.name)
        if path is not None:
            found[key] = FoundFile(node_id=wanted.node_id, input_name=wanted.input_name, path=path)
    return tuple(found.values())


def parse_input_file(
    graph: ApiGraph, text: str, *, catalogue: Catalogue | None = None, label: str | None = None
) -> FoundFile:
    """Read `NODE=FILE` or `NODE.INPUT=FILE`; errors call it `label`. Raises `OverrideInvalid` or `InputFileInvalid`."""
    label = label or f"input {text!r}"
    target, equals, file = text.partition("=")
    if not equals or not target.strip() or not file:
        raise OverrideInvalid(override=label, reason="it must be NODE=FILE, as in 10=photo.png or LoadImage=photo.png")
    node, input_name = _file_target(graph, target.strip(), label, catalogue)
    path = Path(file).expanduser()
    if not path.is_file():
        reason = f"there is no file {file}{did_you_mean(closest_names(path.name, _names_beside(path)))}"
        raise InputFileInvalid(name=file, reason=reason)
    return FoundFile(node_id=node.id, input_name=input_name, path=path.absolute())


def point_to_files(graph: ApiGraph, files: Iterable[FoundFile]) -> ApiGraph:
    """The graph with each found file's own name in its input, whatever the workflow said before."""
    nodes = dict(graph.nodes)
    for file in files:
        node = nodes[file.node_id]
        nodes[file.node_id] = replace(node, inputs={**node.inputs, file.input_name: file.path.name})
    return ApiGraph(nodes=nodes)


def missing_files(
    inputs: Iterable[FileInput],
    found: Iterable[FoundFile],
    folder: Path,
    graph: ApiGraph,
    *,
    place: str = "{folder}",
    advice: str = "put it there, or point the node at another one with --input {node}=FILE",
) -> tuple[WorkflowFinding, ...]:
    """What a person must bring: files that the graph names and that were not found, with the closest names.

    `place` and `advice` say it in the words of whoever asks, with `{folder}` and `{node}` in them.
    """
    have = {(file.node_id, file.input_name) for file in found}
    names = _names_beside(folder / "x")
    findings = []
    for wanted in inputs:
        if (wanted.node_id, wanted.input_name) in have or wanted.folder != "input":
            continue
        near = closest_names(wanted.name, names)
        node = graph.nodes[wanted.node_id]
        findings.append(
            WorkflowFinding(
                code="input_file_missing",
                message=f"the file {wanted.name!r} is not in {place.replace('{folder}', str(folder))}"
                f"{did_you_mean(near)}; {advice.replace('{node}', wanted.node_id)}",
                node_id=wanted.node_id,
                title=node.title,
                class_type=node.class_type,
                input_name=wanted.input_name,
                closest=near,
            )
        )
    return tuple(findings)


def unread_files(names: Iterable[str], inputs: Iterable[FileInput], found: Iterable[FoundFile]) -> dict[str, str]:
    """Of the names of files that were brought, those that no node reads, each with what the nodes read instead."""
    read = {file.path.as_posix() for file in found}
    wanted = [item.name for item in inputs if item.folder == "input"]
    unread = [name for name in names if not any(path == name or path.endswith(f"/{name}") for path in read)]
    instead = f"its load nodes name {', '.join(map(repr, wanted[:_SHOWN_NAMES]))}" if wanted else "it loads no file"
    return {name: did_you_mean(closest_names(name, wanted)).removeprefix("; ") or instead for name in unread}


def _file_target(graph: ApiGraph, target: str, label: str, catalogue: Catalogue | None) -> tuple[ApiNode, str]:
    node_name, dot, input_name = target.rpartition(".")
    if dot and not candidate_nodes(graph, target) and candidate_nodes(graph, node_name):
        node = find_node(graph, node_name, override=label)
        if input_name in node.inputs or input_name in file_input_names(node, catalogue):
            return node, input_name
        reason = f"node {node.id} ({node.class_type}) has no input {input_name!r}"
        raise OverrideInvalid(override=label, reason=reason + did_you_mean(closest_names(input_name, node.inputs)))
    node = find_node(graph, target, override=label)
    names = file_input_names(node, catalogue)
    if len(names) == 1:
        return node, names[0]
    loaders = [item.node_id for item in file_inputs(graph, catalogue)]
    has = f"these do: {', '.join(loaders)}" if loaders else "the workflow has no load node"
    reason = f"node {node.id} ({node.class_type}) loads no file; {has}"
    if names:
        reason = f"node {node.id} ({node.class_type}) loads several files; name one input: {', '.join(names)}"
    raise OverrideInvalid(override=label, reason=reason)


def _find_inside(folder: Path, name: str) -> Path | None:
    relative = PurePosixPath(name.replace("\\", "/"))
    if "\0" in name or relative.is_absolute() or ".." in relative.parts:
        raise InputFileInvalid(name=name, reason="a name must be relative and stay inside the input folder")
    path = folder / relative
    try:
        if not path.is_file():
            return None
        resolved = path.resolve(strict=True)
    except OSError:
        return None
    if not resolved.is_relative_to(folder.resolve()):
        raise InputFileInvalid(name=name, reason=f"it leads out of {folder} through a symbolic link")
    return path


def _names_beside(path: Path) -> list[str]:
    try:
        return [entry.name for entry, _ in zip(path.parent.iterdir(), range(_LISTED_FILES), strict=False)]
    except OSError:
        return []
