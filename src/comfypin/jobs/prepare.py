"""Prepares a job from what a caller asks for; every mistake is reported before anything is queued."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from comfypin.digest import Digest, JsonValue
from comfypin.engine.interface import Catalogue, InputFile
from comfypin.jobs.caller_words import COMMAND_LINE_WORDS, CallerWords
from comfypin.jobs.file_integrity import find_damage
from comfypin.jobs.job import Job
from comfypin.jobs.own_values import find_own_values
from comfypin.jobs.saved_workflow import with_values_of_job
from comfypin.lock.model import UNPINNED, Lock, Release
from comfypin.models.job_models import BroughtModel
from comfypin.workflow.app_inputs import offered_inputs, with_shared_places
from comfypin.workflow.brought_models import find_model_names
from comfypin.workflow.document import Document
from comfypin.workflow.errors import InputFileInvalid
from comfypin.workflow.filename_mark import MarkedGraph, SubmissionMark, mark_outputs, tag_counted
from comfypin.workflow.findings import WorkflowFinding
from comfypin.workflow.graph import ApiGraph, NodeId
from comfypin.workflow.input_files import (
    FoundFile,
    file_inputs,
    find_files,
    missing_files,
    parse_input_file,
    point_to_files,
    unread_files,
)
from comfypin.workflow.inputs_file import InputsFile, check_limits, current_value, named_inputs, overrides_by_name
from comfypin.workflow.load import Workflow, load_workflow
from comfypin.workflow.overrides import Override, apply_overrides
from comfypin.workflow.parse import parse_document
from comfypin.workflow.preflight import Preflight, run_preflight
from comfypin.workflow.seeds import change_seeds
from comfypin.workflow.settable_inputs import describe_inputs, input_names
from comfypin.workflow.smallest_graph import smoke_graph
from comfypin.workflow.spelling import respell_graph
from comfypin.workflow.text_macros import find_unfilled


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One request of a caller: a workflow, what to change in it, and where its input files are.

    `input_files` are `NODE=FILE` texts. `job_id` and `submission_id` are unique texts: the first may come from a
    platform that repeats a job under it, the second names this attempt's files in the engine. With `only_named`, only
    the names of `inputs_file` can be set, its required ones must be, and its defaults count. With
    `keeps_valid_outputs`, invalid outputs are left out, with an error in the result, if others are valid.
    `file_labels` are the files that came with the request, by name, each with what the request calls it; `words` are
    those of whoever reads the messages. `models` are those that the request brought, `earlier_models` the paths, below
    their folders, of what others brought while the engine ran.
    """

    document: Document
    job_id: str
    submission_id: str
    overrides: tuple[Override, ...] = ()
    input_files: tuple[str, ...] = ()
    input_folder: Path = Path()
    timeout_s: float | None = None
    with_previews: bool = False
    randomize_seeds: bool = False
    inputs_file: InputsFile | None = None
    only_named: bool = False
    extra_data: Mapping[str, JsonValue] = field(default_factory=dict)
    words: CallerWords = COMMAND_LINE_WORDS
    keeps_valid_outputs: bool = False
    file_labels: Mapping[str, str] = field(default_factory=dict)
    models: tuple[BroughtModel, ...] = ()
    earlier_models: frozenset[str] = frozenset()


def graph_of_document(document: Document) -> ApiGraph:
    """Return the document's graph, or the smoke test if it is empty. Raises `WorkflowUnreadable`, `WorkflowInvalid`."""
    graph = parse_document(document)
    return graph if graph.nodes else smoke_graph()


def prepare_job(
    request: RunRequest, *, lock: Lock | None, catalogue: Catalogue, now: datetime, release: Release = UNPINNED
) -> Job:
    """Return the job for a request, checked against the engine's catalogue.

    `lock` helps to say what is missing; `release` is what the engine is known to run, which the result claims.

    Reads the input files (for their digests) and changes nothing. Raises `WorkflowError` with every finding at once.
    """
    workflow = load_workflow(request.document, catalogue)
    graph = workflow.graph
    if request.randomize_seeds:
        graph = change_seeds(graph, workflow.seeds, catalogue)
    given_files = tuple(_parse_given_file(request, graph, argument, catalogue) for argument in request.input_files)
    graph = apply_request_overrides(replace(workflow, graph=point_to_files(graph, given_files)), request, catalogue)
    changed_graph = graph
    # After the overrides, which may hold dates (%date%) too.
    graph = workflow.fill_texts(graph, now)
    wanted_files = file_inputs(graph, catalogue)
    found_files = find_files(wanted_files, request.input_folder, given=given_files)
    # Windows writes backslashes, and does not mind the case: such names become those of the catalogue.
    own_models = tuple(model.name_in_folder for model in request.models)
    named_models = find_model_names(graph, {*own_models, *request.earlier_models}, catalogue)
    brought = _brought_inputs(found_files) | named_models.inputs
    respelled = respell_graph(named_models.graph, catalogue, brought=brought)
    graph = respelled.graph
    extra = with_values_of_job(
        _merge_extra_data(request), workflow, request.document, catalogue, changed=changed_graph, sent=graph, now=now
    )
    extra_data = extra.values
    report = run_preflight(graph, catalogue, lock, brought=brought, packs=workflow.node_packs)
    preflight_report = _advise_on_files(report, graph, found_files, request, catalogue=catalogue)
    findings = (*workflow.warnings, *respelled.findings, *preflight_report.findings)
    preflight_report = replace(preflight_report, findings=findings)
    if request.keeps_valid_outputs and preflight_report.dropped:
        graph = graph.without(preflight_report.dropped)
    else:
        preflight_report.raise_if_refused(request.document.source)
    # Two jobs that save under the same name must not read each other's files from ComfyUI's output folder.
    mark = SubmissionMark.for_submission(request.submission_id)
    digests = {found_file.path: _digest_whole_file(found_file) for found_file in found_files}
    marked = mark_outputs(graph, mark, catalogue, keep_counted=True)
    tag = _make_tag(marked.graph, extra_data, digests)
    return Job(
        id=request.job_id,
        release=release,
        graph=tag_counted(marked.graph, tag, catalogue),
        mark=mark,
        marked_graph=mark_outputs(graph, mark, catalogue).graph,
        inputs=tuple(_to_input_file(found_file, digests) for found_file in found_files),
        timeout_s=request.timeout_s,
        extra_data=extra_data,
        input_digests={path.name: digest for path, digest in digests.items()},
        with_previews=request.with_previews,
        warnings=(
            *release.warnings,
            *(str(finding) for finding in findings if finding.severity == "warning"),
            *extra.warnings,
            *_warn_of_same_seeds(request, workflow, graph),
            *_warn_of_unfilled(graph),
            *_warn_of_unmarked(marked),
            *_warn_of_unused_models(own_models, named_models.used),
            *_warn_of_unread(request, unread_files(request.file_labels, wanted_files, found_files)),
        ),
        errors=preflight_report.left_out,
        keeps_valid_outputs=request.keeps_valid_outputs,
        words=request.words,
        needs_saved_workflow=_find_saved_workflow_readers(graph, catalogue, extra_data),
        models=request.models,
        own_values=find_own_values(
            workflow, changed_graph, request.overrides, given={(file.node_id, file.input_name) for file in given_files}
        ),
    )


def _warn_of_same_seeds(request: RunRequest, workflow: Workflow, graph: ApiGraph) -> tuple[str, ...]:
    """Warn a caller who asked for other seeds and gets the same picture again."""
    seeds = [seed for seed in workflow.seeds if seed.control != "fixed"]
    # A seed that is set (to `random`, say) is another one, whatever its control.
    was_set = any(
        graph.nodes[seed.node_id].inputs.get(seed.input_name)
        != workflow.graph.nodes[seed.node_id].inputs.get(seed.input_name)
        for seed in workflow.seeds
        if seed.node_id in graph.nodes
    )
    if not request.randomize_seeds or seeds or was_set:
        return ()
    if not workflow.seeds:
        return ("The workflow has no seed, so it makes the same again.",)
    fixed = " and ".join(f"{seed.node_id}.{seed.input_name}" for seed in workflow.seeds)
    return (f'The seeds of the workflow are fixed, so it makes the same again: set {fixed} to "random".',)


def _warn_of_unused_models(own_models: tuple[str, ...], used: frozenset[str]) -> tuple[str, ...]:
    return tuple(
        f"No node of the workflow names the model {model_name!r} that the job brings."
        for model_name in own_models
        if model_name not in used
    )


def apply_request_overrides(workflow: Workflow, request: RunRequest, catalogue: Catalogue) -> ApiGraph:
    """Return the graph with the request's overrides, within the limits of the workflow's inputs file.

    Raises `WorkflowError`.
    """
    graph = workflow.graph
    if not (request.overrides or request.only_named):
        if request.inputs_file is not None:
            named_inputs(graph, catalogue, request.inputs_file)  # a mistake in it is told, whether it is used or not
        return graph
    settable = offered_inputs(workflow, catalogue, request.inputs_file)
    if request.only_named:
        values_by_target = {requested.target: requested.value for requested in request.overrides}
        graph = apply_overrides(graph, overrides_by_name(values_by_target, settable), catalogue=catalogue)
        check_limits(
            {
                named_input.name: current_value(graph, named_input)
                for named_input in settable
                if named_input.name in values_by_target
            },
            settable,
        )
        return graph
    names = {**input_names(describe_inputs(graph, catalogue)), **input_names(settable)}
    overrides = with_shared_places(request.overrides, settable)
    graph = apply_overrides(graph, overrides, catalogue=catalogue, names=names)
    targets = {requested.target for requested in request.overrides}
    limited_inputs = [
        named_input for named_input in settable if named_input.name in targets or named_input.target in targets
    ]
    check_limits(
        {named_input.name: current_value(graph, named_input) for named_input in limited_inputs}, limited_inputs
    )
    return graph


def _merge_extra_data(request: RunRequest) -> Mapping[str, JsonValue]:
    """Return the prompt's extra data; a converted workflow too, so that saved pictures open in ComfyUI.

    What a whole body of POST /prompt had there goes along, but for the client that it spoke of: events are ours.
    """
    own = {field_name: value for field_name, value in request.document.extra_data.items() if field_name != "client_id"}
    saved_workflow: Mapping[str, JsonValue] = {}
    # ComfyUI's page sends the workflow as it was saved; nodes write it into the pictures.
    if request.document.format == "ui":
        saved_workflow = {"extra_pnginfo": {"workflow": request.document.content}}
    return {**saved_workflow, **own, **request.extra_data}


def _find_saved_workflow_readers(
    graph: ApiGraph, catalogue: Catalogue, extra_data: Mapping[str, JsonValue]
) -> frozenset[NodeId]:
    """Return the nodes whose class asks for the saved workflow (EXTRA_PNGINFO) and that get none."""
    if "extra_pnginfo" in extra_data:
        return frozenset()
    node_ids = set()
    for node in graph.nodes.values():
        inputs = catalogue.get(node.class_type, {}).get("input")
        hidden = inputs.get("hidden") if isinstance(inputs, Mapping) else None
        if isinstance(hidden, Mapping) and any("EXTRA_PNGINFO" in str(kind) for kind in hidden.values()):
            node_ids.add(node.id)
    return frozenset(node_ids)


def _parse_given_file(request: RunRequest, graph: ApiGraph, argument: str, catalogue: Catalogue) -> FoundFile:
    """Return a file for a node, under the name that the request has for it."""
    target, _, path = argument.partition("=")
    # The path begins with this job's own folder, which the request knows nothing of.
    called = next((called for file_name, called in request.file_labels.items() if path.endswith(f"/{file_name}")), None)
    label = f"{called}, node {target!r}" if called is not None else None
    return parse_input_file(graph, argument, catalogue=catalogue, label=label)


def _warn_of_unread(request: RunRequest, unread: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        f"No node of the workflow reads {input_name!r} ({request.file_labels[input_name]}): {instead}"
        for input_name, instead in unread.items()
    )


def _advise_on_files(
    report: Preflight,
    graph: ApiGraph,
    found_files: tuple[FoundFile, ...],
    request: RunRequest,
    *,
    catalogue: Catalogue,
) -> Preflight:
    """Return the preflight report; a missing file gets the advice that fits this caller."""
    if not any(finding.code == "not_in_list" for finding in report.findings):
        return report
    missing_by_input = {
        (finding.node_id, finding.input_name): finding
        for finding in missing_files(
            file_inputs(graph, catalogue),
            found_files,
            request.input_folder,
            graph,
            place=request.words.files_are_in,
            advice=request.words.bring_file,
        )
    }

    def with_advice(finding: WorkflowFinding) -> WorkflowFinding:
        better = missing_by_input.get((finding.node_id, finding.input_name)) if finding.code == "not_in_list" else None
        return finding if better is None else replace(better, severity=finding.severity)

    return replace(report, findings=tuple(with_advice(finding) for finding in report.findings))


def _brought_inputs(found_files: tuple[FoundFile, ...]) -> frozenset[tuple[NodeId, str]]:
    return frozenset((found_file.node_id, found_file.input_name) for found_file in found_files)


def _to_input_file(found_file: FoundFile, digests: Mapping[Path, Digest]) -> InputFile:
    return InputFile(
        node_id=found_file.node_id,
        input_name=found_file.input_name,
        path=found_file.path,
        digest=digests[found_file.path],
    )


def _digest_whole_file(found_file: FoundFile) -> Digest:
    """Return the file's digest after checking that it is whole. Raises `InputFileInvalid`."""
    try:
        missing_by_input = find_damage(found_file.path)
        digest = Digest.of_file(found_file.path)
    except OSError as exc:
        raise InputFileInvalid(name=found_file.path.name, reason=f"it cannot be read: {exc.strerror or exc}") from exc
    if missing_by_input is not None:
        raise InputFileInvalid(name=found_file.path.name, reason=missing_by_input)
    return digest


def _make_tag(graph: ApiGraph, extra_data: Mapping[str, JsonValue], digests: Mapping[Path, Digest]) -> str:
    """Return what names all that decides the bytes of what a job saves, beside the engine."""
    metadata = {"prompt": graph.to_prompt(), "extra_pnginfo": extra_data.get("extra_pnginfo")}
    inputs = sorted((path.name, digest.hex) for path, digest in digests.items())
    # In the order that they are written in: the metadata has it, too.
    return Digest.of(json.dumps([metadata, inputs]).encode()).hex[:32]


def _warn_of_unfilled(graph: ApiGraph) -> tuple[str, ...]:
    return tuple(
        f"Node {node_id} names its files with {' and '.join(texts)}, which ComfyUI does not fill in: it stays in the "
        "name as it is. ComfyUI counts files up by itself (_00001_), and fills in %date:yyyy-MM-dd%, %width%, %height% "
        "and %Node.input%, such as %LoadImage.image%."
        for node_id, texts in find_unfilled(graph).items()
    )


def _warn_of_unmarked(marked: MarkedGraph) -> tuple[str, ...]:
    return tuple(
        f"Node {node_id} takes its file name from another node, so it could not be made unique to this job; "
        "a job that runs at the same time may use the same name."
        for node_id in marked.unmarked
    )
