"""Put a mark of the submission into a saved file's name, and take it out again.

Two submissions then never write the same file, and a save node is never answered from ComfyUI's cache, which would
report the older submission's file (docs/workflows.md). But the mark is in the metadata of what is saved, too, and no
two jobs have the same. So nodes of ComfyUI's own that count their files up, and report them, do without it at first
(`keep_counted`). They get a tag instead, which is the same for the same job (`tag_counted`), and what the engine's
cache answers for them is watched by `comfypin.engine.saved_files`.

The mark goes in front of the last part of `filename_prefix`,
so that folders in it stay what they are and a node that makes no folders still works.
"""

import hashlib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode, InputValue, NodeId
from comfypin.workflow.object_info import Catalogue, input_specs, is_core, is_output

PREFIX_INPUT = "filename_prefix"
TAG_INPUT = "comfypin"
_SERVER_DEFAULT = "ComfyUI"
_CONCATENATE = "StringConcatenate"
# 64 bits: among a billion submissions, two share a mark with a chance of 1 in 37.
_MARK = re.compile(r"cp[0-9a-f]{16}_")
_JOINT = re.compile(rf"{_MARK.pattern}\d+")
# Where the engine's client puts a job's input files.
_JOB_FOLDER = re.compile(r"^comfypin/(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})/")
# ComfyUI's own nodes that take the next free number and report what they saved. Others of its own (datasets, models)
# write fixed names or report nothing; of packs nobody knows.
_COUNTING = frozenset(
    {
        *("SaveImage", "SaveImageAdvanced", "SaveAnimatedPNG", "SaveAnimatedWEBP", "SaveSVGNode", "SaveVideo"),
        *("SaveWEBM", "SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "SaveAudioAdvanced", "SaveGLB", "SaveLatent"),
        "SaveText",
    }
)
# The files of a batch: the number is looked for under the name as it is written, so it never counts up.
_BATCH_NUMBER = "%batch_num%"


@dataclass(frozen=True, slots=True)
class SubmissionMark:
    """The text that marks one submission's files; `SubmissionMark.for_submission(prompt_id)` makes it."""

    text: str

    @classmethod
    def for_submission(cls, submission: str) -> "SubmissionMark":
        """Make the mark of one submission: the same id gives the same mark."""
        return cls(f"cp{hashlib.sha256(submission.encode()).hexdigest()[:16]}_")

    def add_to_prefix(self, prefix: str) -> str:
        """Put the mark before the last part of a `filename_prefix`, normalized as ComfyUI does it."""
        folder, file_name = posixpath.split(posixpath.normpath(prefix))
        return posixpath.join(folder, self.text + file_name)

    def remove_from(self, file_name: str) -> str:
        """Return a file's name, or its subfolder, as the user chose it, without the mark."""
        return file_name.replace(self.text, "", 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedGraph:
    """The marked graph, and the save nodes whose linked prefix could not be marked."""

    graph: ApiGraph
    unmarked: tuple[NodeId, ...] = ()


def tag_counted(graph: ApiGraph, tag: str, catalogue: Catalogue) -> ApiGraph:
    """Give the save nodes that need no mark an input that they do not have, which ComfyUI ignores: its cache does not.

    The tag is made of all that decides what is saved, so a node is answered from the cache only if the file of the
    earlier job is the same to the last byte of its metadata.
    """
    nodes = dict(graph.nodes)
    for node_id, node in graph.nodes.items():
        prefix = _prefix_of(node, catalogue)
        if isinstance(prefix, str) and _is_counted(node, prefix, catalogue):
            nodes[node_id] = replace(node, inputs={**node.inputs, TAG_INPUT: tag})
    return ApiGraph(nodes=nodes)


def has_mark(file_name: str) -> bool:
    """Return whether a file's name holds the mark of some submission."""
    return _MARK.search(file_name) is not None


def mark_outputs(
    graph: ApiGraph, mark: SubmissionMark, catalogue: Catalogue, *, keep_counted: bool = False
) -> MarkedGraph:
    """Mark the prefix of every output node that has one, whether it is written, defaulted or linked.

    `keep_counted` leaves the prefixes alone whose files ComfyUI itself keeps apart.

    A linked prefix is joined with the mark by a StringConcatenate between the two nodes; an engine without that class
    keeps it as it is, and the node is named in `unmarked`.
    """
    nodes: dict[NodeId, ApiNode] = {}
    unmarked: list[NodeId] = []
    for node_id, node in graph.nodes.items():
        nodes[node_id] = node
        prefix = _prefix_of(node, catalogue)
        if prefix is None:
            continue
        if isinstance(prefix, str):
            if keep_counted and _is_counted(node, prefix, catalogue):
                continue
            nodes[node_id] = replace(node, inputs={**node.inputs, PREFIX_INPUT: mark.add_to_prefix(prefix)})
        elif _CONCATENATE in catalogue:
            # The text of a link is known only when the prompt runs, so a node must join the two then.
            joint = _join_node(prefix, mark, taken={**graph.nodes, **nodes})
            nodes[joint.id] = joint
            nodes[node_id] = replace(node, inputs={**node.inputs, PREFIX_INPUT: ApiLink(joint.id, 0)})
        else:
            unmarked.append(node_id)
    return MarkedGraph(graph=ApiGraph(nodes=nodes), unmarked=tuple(unmarked))


def remove_marks(graph: ApiGraph) -> ApiGraph:
    """Restore the graph that the user made, if it comes from a file that one of our jobs saved."""
    # Our own StringConcatenate nodes go, and what they joined takes their place again.
    joints = {
        node.id: node.inputs["string_b"]
        for node in graph.nodes.values()
        if node.class_type == _CONCATENATE and _JOINT.fullmatch(node.id) and "string_b" in node.inputs
    }
    nodes: dict[NodeId, ApiNode] = {}
    for node_id, node in graph.nodes.items():
        if node_id in joints:
            continue
        inputs = {
            input_name: joints.get(value.node_id, value)
            if isinstance(value, ApiLink)
            else _remove_mark(input_name, value)
            for input_name, value in node.inputs.items()
            if not (input_name == TAG_INPUT and node.class_type in _COUNTING)
        }
        nodes[node_id] = replace(node, inputs=inputs)
    return ApiGraph(nodes=nodes)


def counting_nodes(graph: ApiGraph) -> tuple[NodeId, ...]:
    """Return the nodes of ComfyUI's own that count their files up, in the graph's order."""
    return tuple(node.id for node in graph.nodes.values() if node.class_type in _COUNTING)


def counted_prefixes(graph: ApiGraph) -> dict[NodeId, str]:
    """Return the prefixes under which a graph's nodes count their files up, by node."""
    return {
        node.id: prefix
        for node in graph.nodes.values()
        if node.class_type in _COUNTING
        and isinstance(prefix := node.inputs.get(PREFIX_INPUT, _SERVER_DEFAULT), str)
        and not has_mark(prefix)
    }


def _is_counted(node: ApiNode, prefix: str, catalogue: Catalogue) -> bool:
    definition = catalogue.get(node.class_type, {})
    return node.class_type in _COUNTING and is_core(definition) and _BATCH_NUMBER not in prefix


def _remove_mark(input_name: str, value: InputValue) -> InputValue:
    if not isinstance(value, str):
        return value
    return _MARK.sub("", value, count=1) if input_name == PREFIX_INPUT else _JOB_FOLDER.sub("", value, count=1)


def _prefix_of(node: ApiNode, catalogue: Catalogue) -> str | ApiLink | None:
    definition = catalogue.get(node.class_type)
    if definition is None or not is_output(definition):
        return None
    value = node.inputs.get(PREFIX_INPUT)
    if isinstance(value, str | ApiLink):
        return value
    input_spec = input_specs(definition).get(PREFIX_INPUT)
    if value is not None or input_spec is None or input_spec.category == "required":
        # A number or an object is for the engine to judge; so is a required prefix that is not there.
        return None
    default = input_spec.options.get("default", _SERVER_DEFAULT)
    return default if isinstance(default, str) else _SERVER_DEFAULT


def _join_node(prefix: ApiLink, mark: SubmissionMark, *, taken: Mapping[NodeId, ApiNode]) -> ApiNode:
    number = 0
    while (node_id := f"{mark.text}{number}") in taken:
        number += 1
    inputs: dict[str, InputValue] = {"string_a": mark.text, "string_b": prefix, "delimiter": ""}
    return ApiNode(id=node_id, class_type=_CONCATENATE, inputs=inputs, title="Output file mark")
