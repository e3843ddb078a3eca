"""What a prompt that succeeded produced: reported files, files that were found by their names, texts, and warnings."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath, PureWindowsPath

from comfypin.engine.cleanup import Leftovers
from comfypin.engine.host import Folders
from comfypin.engine.http_transport import Transport
from comfypin.engine.interface import Prompt, PromptOutputs
from comfypin.engine.output_files import Unreported, engine_output, find_unreported, locate, silent_nodes
from comfypin.engine.prompt_history import HistoryEntry, ReportedFile
from comfypin.workflow.graph import ApiGraph, NodeId

_LONGEST_PATH = 1000
_FILE_SUFFIX = re.compile(r"[^/\\]\.[A-Za-z0-9]{1,12}$")


async def collect_outputs(
    entry: HistoryEntry, prompt: Prompt, transport: Transport, folders: Folders | None, leftovers: Leftovers
) -> PromptOutputs:
    """Read what the history says, and look for what it does not say. Raises nothing; files are read later."""
    found, reported, gone = Unreported(), entry.files, 0
    if folders is not None:
        present = await asyncio.to_thread(_still_there, folders, entry.files, leftovers)
        gone, reported = len(entry.files) - len(present), present
        if prompt.mark is not None:
            found = await asyncio.to_thread(find_unreported, folders, prompt.mark, prompt.graph, reported)
            reported = _without_misreported(folders, reported, found.files)
    texts = _texts(entry.texts, prompt.mark, folders)
    return PromptOutputs(
        files=tuple([engine_output(transport, folders, file, prompt.mark) for file in (*reported, *found.files)]),
        texts=texts,
        cached=entry.cached,
        clear=partial(_clear, folders, prompt, leftovers),
        warnings=tuple(_warnings(prompt, entry, found.files, gone, folders)),
    )


async def _clear(folders: Folders | None, prompt: Prompt, leftovers: Leftovers) -> None:
    if folders is not None:
        await asyncio.to_thread(leftovers.clear, folders, prompt.prompt_id, prompt.mark)


def _still_there(folders: Folders, files: tuple[ReportedFile, ...], leftovers: Leftovers) -> tuple[ReportedFile, ...]:
    """The files without previews that a cached node reported again and that were removed since. Blocks."""
    temporary = {file: locate(folders, file) for file in files if file.folder == "temp"}
    leftovers.keep_previews(path for path in temporary.values() if path is not None)
    return tuple(file for file in files if file not in temporary or temporary[file] is not None)


def _without_misreported(
    folders: Folders, reported: tuple[ReportedFile, ...], found: tuple[ReportedFile, ...]
) -> tuple[ReportedFile, ...]:
    """The reported files without those that are not where their node says, and were found by their names. Blocks."""
    names = {file.filename for file in found}
    return tuple(
        file for file in reported if PurePosixPath(file.filename).name not in names or locate(folders, file) is not None
    )


def _texts(
    texts: Mapping[NodeId, tuple[str, ...]], mark: str | None, folders: Folders | None
) -> dict[NodeId, tuple[str, ...]]:
    return {node_id: tuple(_plain(text, mark, folders) for text in said) for node_id, said in texts.items()}


def _plain(text: str, mark: str | None, folders: Folders | None) -> str:
    """A text as the user's workflow would have made it: no mark of ours, no folder of this machine."""
    text = text.replace(mark, "") if mark else text
    return text.removeprefix(f"{folders.output}/") if folders is not None else text


def _warnings(
    prompt: Prompt, entry: HistoryEntry, found: tuple[ReportedFile, ...], gone: int, folders: Folders | None
) -> Iterator[str]:
    mark = prompt.mark or ""
    for file in found:
        yield (
            f"{_node(prompt.graph, file.node_id)} saved {file.full_name.replace(mark, '', 1)} without reporting it; "
            "the file was found by its name and is delivered."
        )
    for node_id in silent_nodes(prompt.graph, mark, (*entry.spoke, *(file.node_id for file in found))) if mark else ():
        yield (
            f"{_node(prompt.graph, node_id)} reported no output, and no file of it was found: what it saves under a "
            "name or in a folder of its own stays with the engine."
        )
    yield from _paths_in_texts(prompt, entry, found, folders)
    if gone:
        yield f"Temporary files of an earlier job, which the engine's cache reported again, are gone: {gone}."


def _paths_in_texts(
    prompt: Prompt, entry: HistoryEntry, found: tuple[ReportedFile, ...], folders: Folders | None
) -> Iterator[str]:
    deliverable = "only files that a node reports are delivered from a ComfyUI on another machine."
    if folders is not None:
        deliverable = (
            "only files that a node reports, or saves in the output folder under its filename_prefix, are delivered."
        )
    names = {file.filename for file in (*entry.files, *found)}
    reporting = {file.node_id for file in entry.files}
    for node_id, said in entry.texts.items():
        for text in said if node_id not in reporting else ():
            if _is_path(text) and re.split(r"[/\\]", text)[-1] not in names:
                named = _plain(text, prompt.mark, folders)
                yield (
                    f"{_node(prompt.graph, node_id)} names the file {named} in a text, not as an output: {deliverable}"
                )


def _node(graph: ApiGraph, node_id: NodeId) -> str:
    node = graph.nodes.get(node_id)
    return f"Node {node_id} ({node.class_type})" if node is not None else f"Node {node_id}"


def _is_path(text: str) -> bool:
    """Whether a text is the absolute name of a file, as nodes say it that save without reporting an output."""
    is_short = len(text) <= _LONGEST_PATH and text.isprintable()
    is_absolute = text.startswith("/") or PureWindowsPath(text).is_absolute()
    return is_short and is_absolute and _FILE_SUFFIX.search(text) is not None
