"""From what a caller asks for to a Job that can be submitted: everything wrong is said before anything is queued."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from comfypin.digest import Digest, JsonValue
from comfypin.engine.interface import Catalogue, InputFile
from comfypin.errors.workflow import InputFileInvalid
from comfypin.lock.codec import release_of
from comfypin.lock.model import Lock
from comfypin.run.job import Job
from comfypin.workflow.describe import describe_inputs, input_names
from comfypin.workflow.document import Document
from comfypin.workflow.files import FoundFile, file_inputs, find_files, missing_files, parse_input_file, point_to_files
from comfypin.workflow.findings import Finding
from comfypin.workflow.graph import Graph, NodeId
from comfypin.workflow.load import load_workflow
from comfypin.workflow.overrides import Override, override
from comfypin.workflow.parse import parse_api
from comfypin.workflow.prefix import Mark, Marked, mark_outputs
from comfypin.workflow.preflight import Preflight, preflight
from comfypin.workflow.seeds import change_seeds
from comfypin.workflow.sidecar import InputsFile, check_limits, named_inputs, overrides_by_name, value_of
from comfypin.workflow.smoke import smoke_graph
from comfypin.workflow.spelling import respell


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a caller asks for: a workflow, what to change in it, and where its input files lie.

    `input_files` are `NODE=FILE` texts. `job_id` and `submission` are unique texts: the first may come from a platform
    that repeats a job under it, the second names this attempt's files in the engine. With `only_named`, only the names
    of `inputs_file` can be set, its required ones must be, and its defaults count.
    """

    document: Document
    job_id: str
    submission: str
    overrides: tuple[Override, ...] = ()
    input_files: tuple[str, ...] = ()
    input_folder: Path = Path()
    timeout_s: float | None = None
    with_previews: bool = False
    randomize_seeds: bool = False
    inputs_file: InputsFile | None = None
    only_named: bool = False
    extra_data: Mapping[str, JsonValue] = field(default_factory=dict)


def graph_of(document: Document) -> Graph:
    """The document's graph; an empty workflow is the smoke test. Raises `WorkflowUnreadable`, `WorkflowInvalid`."""
    graph = parse_api(document)
    return graph if graph.nodes else smoke_graph()


def prepare(request: Request, *, lock: Lock, catalogue: Catalogue, now: datetime) -> Job:
    """The job for a request: files found, overrides made, texts expanded, checked against the engine's catalogue.

    Reads the input files (for their digests) and changes nothing. Raises `WorkflowError` with every finding at once.
    """
    workflow = load_workflow(request.document, catalogue)
    graph = workflow.graph
    if request.randomize_seeds:
        graph = change_seeds(graph, workflow.seeds, catalogue)
    given = tuple(parse_input_file(graph, text, catalogue=catalogue) for text in request.input_files)
    graph = _overridden(point_to_files(graph, given), request, catalogue)
    graph = workflow.expand(graph, now)
    found = find_files(file_inputs(graph, catalogue), request.input_folder, given=given)
    respelt = respell(graph, catalogue, brought=_brought(found))
    graph = respelt.graph
    checked = _checked(graph, found, request.input_folder, catalogue=catalogue, lock=lock, packs=workflow.packs)
    checked = replace(checked, findings=(*workflow.warnings, *respelt.findings, *checked.findings))
    checked.refuse(request.document.source)
    mark = Mark.of(request.submission)
    marked = mark_outputs(graph, mark, catalogue)
    return Job(
        id=request.job_id,
        release=release_of(lock),
        graph=marked.graph,
        mark=mark,
        inputs=tuple(_input(file) for file in found),
        timeout_s=request.timeout_s,
        extra_data=_extra_data(request),
        input_digests={file.path.name: _digest(file) for file in found},
        with_previews=request.with_previews,
        warnings=(*(str(finding) for finding in checked.findings), *_unmarked(marked)),
    )


def _overridden(graph: Graph, request: Request, catalogue: Catalogue) -> Graph:
    """The graph with what the request sets, within the limits of the workflow's inputs file."""
    named = named_inputs(graph, catalogue, request.inputs_file) if request.inputs_file else ()
    if request.only_named:
        wished = {wanted.target: wanted.value for wanted in request.overrides}
        graph = override(graph, overrides_by_name(wished, named), catalogue=catalogue)
        check_limits({one.name: value_of(graph, one) for one in named if one.name in wished}, named)
        return graph
    if not request.overrides:
        return graph
    names = {**input_names(describe_inputs(graph, catalogue)), **input_names(named)}
    graph = override(graph, request.overrides, catalogue=catalogue, names=names)
    targets = {wanted.target for wanted in request.overrides}
    limited = [one for one in named if one.name in targets or one.target in targets]
    check_limits({one.name: value_of(graph, one) for one in limited}, limited)
    return graph


def _extra_data(request: Request) -> Mapping[str, JsonValue]:
    """What goes beside the graph: a converted workflow too, so that saved pictures open in ComfyUI as from its page."""
    if request.document.format != "ui":
        return request.extra_data
    return {"extra_pnginfo": {"workflow": request.document.content}, **request.extra_data}


def _checked(
    graph: Graph,
    found: tuple[FoundFile, ...],
    folder: Path,
    *,
    catalogue: Catalogue,
    lock: Lock,
    packs: Mapping[NodeId, str],
) -> Preflight:
    """The preflight report, in which a file that is not there is told as the user's to bring."""
    report = preflight(graph, catalogue, lock, brought=_brought(found), packs=packs)
    missing = {
        (finding.node_id, finding.input_name): finding
        for finding in missing_files(file_inputs(graph, catalogue), found, folder, graph)
    }

    def told(finding: Finding) -> Finding:
        better = missing.get((finding.node_id, finding.input_name)) if finding.code == "not_in_list" else None
        return finding if better is None else replace(better, severity=finding.severity)

    return replace(report, findings=tuple(told(finding) for finding in report.findings))


def _brought(found: tuple[FoundFile, ...]) -> frozenset[tuple[NodeId, str]]:
    return frozenset((file.node_id, file.input_name) for file in found)


def _input(file: FoundFile) -> InputFile:
    return InputFile(node_id=file.node_id, input_name=file.input_name, path=file.path)


def _digest(file: FoundFile) -> Digest:
    try:
        return Digest.of_file(file.path)
    except OSError as exc:
        raise InputFileInvalid(name=str(file.path), reason=f"it cannot be read: {exc.strerror or exc}") from exc


def _unmarked(marked: Marked) -> tuple[str, ...]:
    return tuple(
        f"The file name of node {node_id} comes over a link and could not be made this job's own; "
        "a job that runs at the same time may use the same name."
        for node_id in marked.unmarked
    )
