"""The files that load nodes name: which inputs name one, and which file of this machine is meant."""

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
# Enough for suggestions; a folder on a network volume may hold millions of files.
_LISTED_FILES = 2000
# Enough to see how files are named there.
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
    """List every input of the graph that names a file, in the graph's order, without links and empty values."""
    file_inputs_found: list[FileInput] = []
    for node in graph.nodes.values():
        for input_name in file_input_names(node, catalogue):
            input_value = node.inputs.get(input_name)
            if isinstance(input_value, str) and input_value:
                file_name, folder = split_annotation(input_value)
                file_inputs_found.append(
                    FileInput(node_id=node.id, input_name=input_name, name=file_name, folder=folder)
                )
    return tuple(file_inputs_found)


def file_input_names(node: ApiNode, catalogue: Catalogue | None) -> tuple[str, ...]:
    """Name the inputs of a node that take files: from its class's definition, else from a list of known load nodes."""
    definition = (catalogue or {}).get(node.class_type)
    if definition is None:
        known_input = known_file_input(node.class_type)
        return (known_input,) if known_input else ()
    input_specs = open_inputs(definition, node.inputs).specs.values()
    return tuple(input_spec.name for input_spec in input_specs if names_file(node.class_type, input_spec))


def split_annotation(input_value: str) -> tuple[str, EngineFolder]:
    """Split `x.png [output]` into (`x.png`, `output`); a name without an annotation is in `input`."""
    for suffix, folder in _ANNOTATIONS.items():
        if input_value.endswith(suffix):
            return input_value.removesuffix(suffix), folder
    return input_value, "input"


def find_files(inputs: Iterable[FileInput], folder: Path, *, given: Sequence[FoundFile] = ()) -> tuple[FoundFile, ...]:
    """Find the files for a graph's inputs: those `given`, then those in `folder` with the input's name.

    Other files are left out: they may be in the engine's own input folder, which preflight knows. Raises
    `InputFileInvalid` for a name that leads out of the folder, also through a symbolic link.
    """
    found_files = {(found_file.node_id, found_file.input_name): found_file for found_file in given}
    for file_input in inputs:
        input_key = (file_input.node_id, file_input.input_name)
        if input_key in found_files or file_input.folder != "input":
            continue
        path = _find_inside(folder, file_input.name)
        if path is not None:
            found_files[input_key] = FoundFile(node_id=file_input.node_id, input_name=file_input.input_name, path=path)
    return tuple(found_files.values())


def parse_input_file(
    graph: ApiGraph, assignment: str, *, catalogue: Catalogue | None = None, label: str | None = None
) -> FoundFile:
    """Read `NODE=FILE` or `NODE.INPUT=FILE`; errors call it `label`. Raises `OverrideInvalid` or `InputFileInvalid`."""
    label = label or f"input {assignment!r}"
    # The first `=` divides: a file's name may hold others.
    target, equals_sign, file_name = assignment.partition("=")
    if not equals_sign or not target.strip() or not file_name:
        raise OverrideInvalid(override=label, reason="it must be NODE=FILE, as in 10=photo.png or LoadImage=photo.png")
    node, input_name = _file_target(graph, target.strip(), label, catalogue)
    file_path = Path(file_name).expanduser()
    if not file_path.is_file():
        reason = f"there is no file {file_name}{did_you_mean(closest_names(file_path.name, _names_beside(file_path)))}"
        raise InputFileInvalid(name=file_name, reason=reason)
    return FoundFile(node_id=node.id, input_name=input_name, path=file_path.absolute())


def point_to_files(graph: ApiGraph, files: Iterable[FoundFile]) -> ApiGraph:
    """Write each found file's own name into its input, whatever the workflow said before."""
    nodes = dict(graph.nodes)
    for found_file in files:
        node = nodes[found_file.node_id]
        nodes[found_file.node_id] = replace(node, inputs={**node.inputs, found_file.input_name: found_file.path.name})
    return ApiGraph(nodes=nodes)


def missing_files(
    inputs: Iterable[FileInput],
    found_files: Iterable[FoundFile],
    folder: Path,
    graph: ApiGraph,
    *,
    place: str = "{folder}",
    advice: str = "put it there, or point the node at another file",
) -> tuple[WorkflowFinding, ...]:
    """Report the files that the graph names and that were not found, with the closest names.

    `place` and `advice` say it in the words of whoever asks, with `{folder}` and `{node}` in them.
    """
    found_keys = {(found_file.node_id, found_file.input_name) for found_file in found_files}
    file_names = _names_beside(folder / "x")
    findings = []
    for file_input in inputs:
        if (file_input.node_id, file_input.input_name) in found_keys or file_input.folder != "input":
            continue
        close_names = closest_names(file_input.name, file_names)
        node = graph.nodes[file_input.node_id]
        findings.append(
            WorkflowFinding(
                code="input_file_missing",
                message=f"the file {file_input.name!r} is not in {place.replace('{folder}', str(folder))}"
                f"{did_you_mean(close_names)}; {advice.replace('{node}', file_input.node_id)}",
                node_id=file_input.node_id,
                title=node.title,
                class_type=node.class_type,
                input_name=file_input.input_name,
                closest=close_names,
            )
        )
    return tuple(findings)


def unread_files(
    file_names: Iterable[str], inputs: Iterable[FileInput], found_files: Iterable[FoundFile]
) -> dict[str, str]:
    """Return the brought files that no node reads, each with what the nodes read instead."""
    paths_read = {found_file.path.as_posix() for found_file in found_files}
    wanted_names = [file_input.name for file_input in inputs if file_input.folder == "input"]
    unread_names = [
        file_name
        for file_name in file_names
        if not any(path == file_name or path.endswith(f"/{file_name}") for path in paths_read)
    ]
    read_instead = (
        f"its load nodes name {', '.join(map(repr, wanted_names[:_SHOWN_NAMES]))}"
        if wanted_names
        else "it loads no file"
    )
    return {
        file_name: did_you_mean(closest_names(file_name, wanted_names)).removeprefix("; ") or read_instead
        for file_name in unread_names
    }


def _file_target(graph: ApiGraph, target: str, label: str, catalogue: Catalogue | None) -> tuple[ApiNode, str]:
    node_name, dot, input_name = target.rpartition(".")
    # A title may contain a dot itself, so the whole name is tried first.
    if dot and not candidate_nodes(graph, target) and candidate_nodes(graph, node_name):
        node = find_node(graph, node_name, override=label)
        if input_name in node.inputs or input_name in file_input_names(node, catalogue):
            return node, input_name
        reason = f"node {node.id} ({node.class_type}) has no input {input_name!r}"
        raise OverrideInvalid(override=label, reason=reason + did_you_mean(closest_names(input_name, node.inputs)))
    node = find_node(graph, target, override=label)
    file_names = file_input_names(node, catalogue)
    if len(file_names) == 1:
        return node, file_names[0]
    loaders = [file_input.node_id for file_input in file_inputs(graph, catalogue)]
    loaders_hint = f"these do: {', '.join(loaders)}" if loaders else "the workflow has no load node"
    reason = f"node {node.id} ({node.class_type}) loads no file; {loaders_hint}"
    if file_names:
        reason = f"node {node.id} ({node.class_type}) loads several files; name one input: {', '.join(file_names)}"
    raise OverrideInvalid(override=label, reason=reason)


def _find_inside(folder: Path, file_name: str) -> Path | None:
    relative = PurePosixPath(file_name.replace("\\", "/"))
    if "\0" in file_name or relative.is_absolute() or ".." in relative.parts:
        raise InputFileInvalid(name=file_name, reason="a name must be relative and stay inside the input folder")
    file_path = folder / relative
    try:
        if not file_path.is_file():
            return None
        # Resolved only after it was found: the symbolic link itself is allowed, its target must stay inside.
        resolved = file_path.resolve(strict=True)
    except OSError:
        return None
    if not resolved.is_relative_to(folder.resolve()):
        raise InputFileInvalid(name=file_name, reason="it leads out of the input folder through a symbolic link")
    return file_path


def _names_beside(path: Path) -> list[str]:
    try:
        return [entry.name for entry, _ in zip(path.parent.iterdir(), range(_LISTED_FILES), strict=False)]
    except OSError:
        return []
