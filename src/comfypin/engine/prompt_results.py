"""Collects what a prompt produced: reported files, files found by their names, texts, and warnings."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

from comfypin.engine.cleanup import PromptCleanup
from comfypin.engine.host import LocalFolders
from comfypin.engine.http_transport import EngineTransport
from comfypin.engine.interface import Prompt, PromptOutputs
from comfypin.engine.output_files import (
    Unreported,
    engine_output,
    find_silent_nodes,
    find_unreported,
    holds_tag,
    locate_file,
)
from comfypin.engine.prompt_history import HistoryEntry, ReportedFile
from comfypin.workflow.filename_mark import TAG_INPUT, has_mark
from comfypin.workflow.graph import ApiGraph, NodeId

# Longer texts are prose or data, although Linux would allow paths of 4096.
_LONGEST_PATH = 1000
# Only texts that end in a suffix: a bare folder, or a URL's path, is not a lost output.
_FILE_SUFFIX = re.compile(r"[^/\\]\.[A-Za-z0-9]{1,12}$")


async def collect_outputs(
    history_entry: HistoryEntry,
    prompt: Prompt,
    transport: EngineTransport,
    folders: LocalFolders | None,
    cleanup: PromptCleanup,
) -> PromptOutputs:
    """Collect what the history reports, and look for what it does not. Raises nothing; files are read later."""
    unreported, reported, gone_count = Unreported(), history_entry.files, 0
    present_files = None if folders is None else await asyncio.to_thread(_present_files, folders, reported)
    foreign = cleanup.saved.note_files(prompt, reported, history_entry.cached, present_files)
    if folders is None:
        foreign = await _find_foreign(transport, prompt, history_entry)
    elif foreign:
        # The prompt that saved them may have ended a moment ago, and not be noted yet.
        foreign &= await _find_foreign(transport, prompt, history_entry)
    if folders is not None:
        present = await asyncio.to_thread(_drop_removed_previews, folders, history_entry.files, cleanup)
        gone_count, reported = len(history_entry.files) - len(present), present
        # Without a mark nothing in the folder can be told from other prompts' files.
        if prompt.mark is not None:
            unreported = await asyncio.to_thread(find_unreported, folders, prompt.mark, prompt.graph, reported)
            reported = _without_misreported(folders, reported, unreported.files)
    texts = _plain_texts(history_entry.texts, prompt.mark, folders)
    return PromptOutputs(
        files=tuple(
            [
                engine_output(transport, folders, reported_file, prompt.mark)
                for reported_file in (*reported, *unreported.files)
            ]
        ),
        texts=texts,
        cached=history_entry.cached,
        foreign=foreign,
        clear=partial(_clear_outputs, folders, prompt, cleanup),
        warnings=tuple(_list_warnings(prompt, history_entry, unreported.files, gone_count, folders)),
    )


async def _clear_outputs(folders: LocalFolders | None, prompt: Prompt, cleanup: PromptCleanup) -> None:
    if folders is not None:
        await asyncio.to_thread(cleanup.clear_prompt, folders, prompt.prompt_id, prompt.mark)


async def _find_foreign(transport: EngineTransport, prompt: Prompt, history_entry: HistoryEntry) -> frozenset[NodeId]:
    """Return the cached nodes whose files do not hold this job's tag: others save under the same names."""
    foreign = set()
    for reported_file in history_entry.files:
        if prompt.mark is None or reported_file.folder != "output" or reported_file.node_id not in history_entry.cached:
            continue
        node = prompt.graph.nodes.get(reported_file.node_id)
        tag = node.inputs.get(TAG_INPUT) if node is not None else None
        if not has_mark(reported_file.full_name) and not (
            isinstance(tag, str) and await holds_tag(transport, reported_file, tag)
        ):
            foreign.add(reported_file.node_id)
    return frozenset(foreign)


def _present_files(folders: LocalFolders, files: tuple[ReportedFile, ...]) -> dict[str, Path]:
    """Return the paths of those files that are there, by their names. Blocks."""
    paths = {
        reported_file.full_name: locate_file(folders, reported_file)
        for reported_file in files
        if reported_file.folder == "output"
    }
    return {file_name: path for file_name, path in paths.items() if path is not None}


def _drop_removed_previews(
    folders: LocalFolders, files: tuple[ReportedFile, ...], cleanup: PromptCleanup
) -> tuple[ReportedFile, ...]:
    """Drop previews that a cached node reported again and that were removed since. Blocks."""
    temporary = {
        reported_file: locate_file(folders, reported_file) for reported_file in files if reported_file.folder == "temp"
    }
    cleanup.keep_previews(path for path in temporary.values() if path is not None)
    return tuple(
        reported_file
        for reported_file in files
        if reported_file not in temporary or temporary[reported_file] is not None
    )


def _without_misreported(
    folders: LocalFolders, reported: tuple[ReportedFile, ...], found_files: tuple[ReportedFile, ...]
) -> tuple[ReportedFile, ...]:
    """Drop reported files that are not in their reported place, if they were found by their names. Blocks."""
    names = {reported_file.filename for reported_file in found_files}
    return tuple(
        reported_file
        for reported_file in reported
        if PurePosixPath(reported_file.filename).name not in names or locate_file(folders, reported_file) is not None
    )


def _plain_texts(
    texts: Mapping[NodeId, tuple[str, ...]], mark: str | None, folders: LocalFolders | None
) -> dict[NodeId, tuple[str, ...]]:
    return {
        node_id: tuple(_plain_text(output_text, mark, folders) for output_text in node_texts)
        for node_id, node_texts in texts.items()
    }


def _plain_text(output_text: str, mark: str | None, folders: LocalFolders | None) -> str:
    """Return a text as the user's workflow would have made it: no mark of ours, no folder of this machine."""
    output_text = output_text.replace(mark, "") if mark else output_text
    # The folder is this machine's own business, and differs from run to run.
    return output_text.removeprefix(f"{folders.output}/") if folders is not None else output_text


def _list_warnings(
    prompt: Prompt,
    history_entry: HistoryEntry,
    found_files: tuple[ReportedFile, ...],
    gone_count: int,
    folders: LocalFolders | None,
) -> Iterator[str]:
    """Say what a user should know about how the outputs were found."""
    mark = prompt.mark or ""
    for reported_file in found_files:
        yield (
            f"{_describe_node(prompt.graph, reported_file.node_id)} saved "
            f"{reported_file.full_name.replace(mark, '', 1)} without reporting it; "
            "the file was found by its name and is delivered."
        )
    for node_id in (
        find_silent_nodes(
            prompt.graph,
            mark,
            (*history_entry.reporting_nodes, *(reported_file.node_id for reported_file in found_files)),
        )
        if mark
        else ()
    ):
        yield (
            f"{_describe_node(prompt.graph, node_id)} reported no output, and no file of it was found: what it saves "
            "under its own name or in its own folder stays with the engine."
        )
    yield from _paths_in_texts(prompt, history_entry, found_files, folders)
    if gone_count:
        yield f"Temporary files of an earlier job are gone, but the engine's cache reports them again: {gone_count}."


def _paths_in_texts(
    prompt: Prompt, history_entry: HistoryEntry, found_files: tuple[ReportedFile, ...], folders: LocalFolders | None
) -> Iterator[str]:
    """Warn about files that nodes name only in a text, because these are not delivered."""
    deliverable = "only files that a node reports are delivered from a ComfyUI on another machine."
    if folders is not None:
        deliverable = (
            "only files that a node reports, or saves in the output folder under its filename_prefix, are delivered."
        )
    names = {reported_file.filename for reported_file in (*history_entry.files, *found_files)}
    reporting = {reported_file.node_id for reported_file in history_entry.files}
    for node_id, node_texts in history_entry.texts.items():
        for output_text in node_texts if node_id not in reporting else ():
            if _is_path(output_text) and re.split(r"[/\\]", output_text)[-1] not in names:
                named = _plain_text(output_text, prompt.mark, folders)
                yield (
                    f"{_describe_node(prompt.graph, node_id)} names the file {named} in a text, "
                    f"not as an output: {deliverable}"
                )


def _describe_node(graph: ApiGraph, node_id: NodeId) -> str:
    node = graph.nodes.get(node_id)
    return f"Node {node_id} ({node.class_type})" if node is not None else f"Node {node_id}"


def _is_path(output_text: str) -> bool:
    """Return whether a text is a file's absolute name, as nodes write that save without reporting an output."""
    is_short = len(output_text) <= _LONGEST_PATH and output_text.isprintable()
    is_absolute = output_text.startswith("/") or PureWindowsPath(output_text).is_absolute()
    return is_short and is_absolute and _FILE_SUFFIX.search(output_text) is not None
