"""A job that is ready to run, and its result, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.digest import Digest, JsonValue
from comfypin.engine.interface import InputFile
from comfypin.jobs.caller_words import COMMAND_LINE_WORDS, CallerWords
from comfypin.lock.model import Release
from comfypin.models.job_models import BroughtModel
from comfypin.outputs.interface import Delivery
from comfypin.workflow.filename_mark import SubmissionMark
from comfypin.workflow.graph import ApiGraph, NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request for a workflow to run, ready to be submitted: texts expanded, overrides made, files found.

    `timeout_s` is the deadline from submission to the last delivered output. `extra_data` may hold secrets (a comfy.org
    API key), which go to the engine and nowhere else. `with_previews` delivers temporary outputs (PreviewImage) too.
    Outputs that must pass through this machine's disk do so in `spool_folder` (default: one of their own). `mark` is in
    the names of the files that the graph saves if ComfyUI itself does not keep them apart, and is taken out of the
    outputs' names again; `marked_graph` has it in all of them. `warnings` are what was
    noticed while the job was prepared, `errors` what keeps some of its outputs from being made. `keeps_valid_outputs`
    says to go on without outputs that the engine refuses. `needs_saved_workflow` are nodes that ask for the saved
    workflow and get none. `models` are those that the job brought. `own_values` are what it drew by itself.
    """

    id: str
    release: Release
    graph: ApiGraph
    mark: SubmissionMark | None = None
    marked_graph: ApiGraph | None = None
    inputs: tuple[InputFile, ...] = ()
    timeout_s: float | None = None
    extra_data: Mapping[str, JsonValue] = field(default_factory=dict)
    input_digests: Mapping[str, Digest] = field(default_factory=dict)
    with_previews: bool = False
    spool_folder: Path | None = None
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    keeps_valid_outputs: bool = False
    words: CallerWords = COMMAND_LINE_WORDS
    needs_saved_workflow: frozenset[NodeId] = frozenset()
    models: tuple[BroughtModel, ...] = ()
    own_values: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """Result of a job: delivered outputs, texts, warnings, and the seconds of phases and nodes.

    `errors` say why some of its outputs were not made. `held_back` counts the temporary outputs that nobody asked for.
    `own_values` are what it drew by itself.
    """

    job_id: str
    release: Release
    prompt_id: str
    deliveries: tuple[Delivery, ...]
    texts: Mapping[NodeId, tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    phase_s: Mapping[str, float] = field(default_factory=dict)
    node_s: Mapping[NodeId, float] = field(default_factory=dict)
    held_back: int = 0
    models: tuple[BroughtModel, ...] = ()
    own_values: Mapping[str, JsonValue] = field(default_factory=dict)
