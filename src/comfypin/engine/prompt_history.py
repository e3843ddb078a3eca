"""Parses what ComfyUI remembers of a prompt that has ended. Pure; raises nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PureWindowsPath
from typing import Literal, TypeAlias

from comfypin.digest import JsonValue
from comfypin.engine.interface import Folder
from comfypin.workflow.graph import NodeId

# Deeper JSON is a node's own data, which may be huge: it is not searched for files.
_DEEPEST_OUTPUT = 4
_FOLDERS: Mapping[str, Folder] = {"output": "output", "temp": "temp", "input": "input"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedFile:
    """Names a file as a node reported it."""

    node_id: NodeId
    key: str
    filename: str
    subfolder: str
    folder: Folder

    @property
    def full_name(self) -> str:
        """Return subfolder and name joined; absolute if the node reported either as absolute."""
        is_absolute = self.filename.startswith("/") or PureWindowsPath(self.filename).is_absolute()
        return self.filename if is_absolute or not self.subfolder else f"{self.subfolder}/{self.filename}"


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Says that the prompt succeeded; `certain` is False if an old or cached entry has no status."""

    certain: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """Says that a node raised."""

    node_id: NodeId
    class_type: str
    exception_type: str
    message: str
    traceback: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Says that somebody stopped the prompt, at this node."""

    node_id: NodeId | None = None


Verdict: TypeAlias = Succeeded | Raised | Interrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """Holds what the engine remembers of a prompt that has ended."""

    verdict: Verdict
    cached: frozenset[NodeId] = frozenset()
    # The nodes that reported anything at all, be it an empty list.
    reporting_nodes: frozenset[NodeId] = frozenset()
    files: tuple[ReportedFile, ...] = ()
    texts: Mapping[NodeId, tuple[str, ...]] = field(default_factory=dict)


def parse_history(response_body: JsonValue, prompt_id: str) -> HistoryEntry | Literal["unknown"] | None:
    """Read GET /history/{prompt_id}: an entry, "unknown" if it is `{}`, or None if it is not a history at all."""
    if not isinstance(response_body, dict):
        return None
    history_entry = response_body.get(prompt_id)
    if history_entry is None:
        return "unknown"
    if not isinstance(history_entry, dict):
        return None
    reported = history_entry.get("outputs")
    outputs = reported if isinstance(reported, dict) else {}
    files, texts = _collect_outputs(outputs)
    messages = tuple(_status_messages(history_entry.get("status")))
    return HistoryEntry(
        verdict=_find_verdict(history_entry.get("status"), messages),
        cached=_cached_nodes(messages),
        reporting_nodes=frozenset(node_id for node_id, node_output in outputs.items() if node_output),
        files=files,
        texts=texts,
    )


def _status_messages(status: JsonValue) -> Iterator[tuple[str, Mapping[str, JsonValue]]]:
    messages = status.get("messages") if isinstance(status, dict) else None
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], dict):
            yield str(message[0]), message[1]


def _cached_nodes(messages: tuple[tuple[str, Mapping[str, JsonValue]], ...]) -> frozenset[NodeId]:
    return frozenset[NodeId]().union(
        *(
            _node_ids(message_data.get("nodes"))
            for message_type, message_data in messages
            if message_type == "execution_cached"
        )
    )


def _find_verdict(status: JsonValue, messages: tuple[tuple[str, Mapping[str, JsonValue]], ...]) -> Verdict:
    """Find the last message that ends a prompt; failures fill in `outputs` and `status_str` as well."""
    for message_type, message_data in reversed(messages):
        match message_type:
            case "execution_success":
                return Succeeded()
            case "execution_error":
                return _parse_failure(message_data)
            case "execution_interrupted":
                return Interrupted(_optional_text(message_data.get("node_id")))
            case _:
                continue
    status_text = status.get("status_str") if isinstance(status, dict) else None
    if status_text in ("cancelled", "canceled", "interrupted"):
        return Interrupted()
    if status_text in ("error", "failed"):
        return _parse_failure({})
    return Succeeded(certain=status_text == "success")


def _parse_failure(failure_data: Mapping[str, JsonValue]) -> Raised:
    """Read the failure without `current_inputs`: they hold the user's texts, keys among them, and whole tensors."""
    traceback = failure_data.get("traceback")
    return Raised(
        node_id=_optional_text(failure_data.get("node_id")) or "?",
        class_type=_optional_text(failure_data.get("node_type")) or "unknown class",
        exception_type=_optional_text(failure_data.get("exception_type")) or "Exception",
        message=_optional_text(failure_data.get("exception_message")) or "the engine did not say why",
        traceback=tuple(str(line) for line in traceback) if isinstance(traceback, list) else (),
    )


def _collect_outputs(
    outputs: Mapping[str, JsonValue],
) -> tuple[tuple[ReportedFile, ...], dict[NodeId, tuple[str, ...]]]:
    """Collect every dict with a `filename` and every text, under whatever key a node reported it; each file once."""
    files: dict[tuple[str, str, str], ReportedFile] = {}
    texts: dict[NodeId, tuple[str, ...]] = {}
    for node_id, reported in outputs.items():
        found_texts: list[str] = []
        for key, value in reported.items() if isinstance(reported, dict) else ():
            for leaf in _walk_leaves(value, _DEEPEST_OUTPUT):
                if isinstance(leaf, str):
                    found_texts.append(leaf)
                else:
                    reported_file = _reported_file(node_id, key, leaf)
                    # A file that is reported twice is delivered once.
                    files.setdefault(
                        (reported_file.folder, reported_file.subfolder, reported_file.filename), reported_file
                    )
        if found_texts:
            texts[node_id] = tuple(found_texts)
    return tuple(files.values()), texts


def _walk_leaves(value: JsonValue, depth: int) -> Iterator[str | Mapping[str, JsonValue]]:
    """Yield the files and texts in a node's output, down to a depth."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, dict):
        if isinstance(value.get("filename"), str) and value["filename"]:
            yield value
        elif depth:
            for key, child in value.items():
                # Texts inside a dict are its fields (a camera's, a mesh's), not what the node said.
                yield from (leaf for leaf in _walk_leaves(child, depth - 1) if key and not isinstance(leaf, str))
    elif isinstance(value, list) and depth:
        for child in value:
            yield from _walk_leaves(child, depth - 1)


def _reported_file(node_id: NodeId, key: str, output_entry: Mapping[str, JsonValue]) -> ReportedFile:
    subfolder = output_entry.get("subfolder")
    return ReportedFile(
        node_id=node_id,
        key=key,
        filename=str(output_entry["filename"]),
        subfolder=_folder_name(subfolder) if isinstance(subfolder, str) else "",
        folder=_FOLDERS.get(str(output_entry.get("type", "output")), "output"),
    )


def _folder_name(subfolder: str) -> str:
    """Return the name with slashes as on Linux; a leading slash stays: the folder is outside the engine's own."""
    return subfolder.replace("\\", "/").rstrip("/")


def _node_ids(nodes: JsonValue) -> frozenset[NodeId]:
    return frozenset(str(node) for node in nodes) if isinstance(nodes, list) else frozenset()


def _optional_text(value: JsonValue) -> str | None:
    return None if value is None else str(value)
