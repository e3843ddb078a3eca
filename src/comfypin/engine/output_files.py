"""Finds the files of one prompt on the engine's disk: reported ones, and those that no node reported."""

import asyncio
import contextlib
import os
import posixpath
import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from comfypin.atomic_files import contained_path
from comfypin.digest import CHUNK_BYTES
from comfypin.engine.errors import EngineAnswerInvalid, OutputGone, OutputOutside
from comfypin.engine.host import LocalFolders
from comfypin.engine.http_transport import EngineTransport
from comfypin.engine.interface import EngineOutput
from comfypin.engine.prompt_history import ReportedFile
from comfypin.errors import EngineError
from comfypin.workflow.filename_mark import PREFIX_INPUT
from comfypin.workflow.graph import ApiGraph, ApiLink, NodeId

# Pictures and sounds have it first; a video's comes last, if the video is long.
_METADATA_WITHIN_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreported:
    """Holds files that bear a submission's mark and that no node reported.

    `companions` share a reported file's folder and name (the picture that a video node writes with its video): they
    are not delivered. `files` are outputs of nodes that save without reporting it.
    """

    files: tuple[ReportedFile, ...] = ()
    companions: tuple[Path, ...] = ()


def engine_output(
    transport: EngineTransport, folders: LocalFolders | None, reported_file: ReportedFile, mark: str | None = None
) -> EngineOutput:
    """Return the file as others take it: by its path if it is on this machine, else through the engine.

    Failures name it as the user does, without the mark.
    """
    path = locate_file(folders, reported_file) if folders is not None else None
    relative_name = _relative_name(folders, reported_file, path) if folders is not None and path is not None else None

    def read() -> AsyncIterator[bytes]:
        if path is not None:
            return _read_file(path, reported_file, mark)
        return _download_file(transport, reported_file, mark, is_local=folders is not None)

    return EngineOutput(
        node_id=reported_file.node_id,
        key=reported_file.key,
        filename=relative_name.name if relative_name is not None else reported_file.filename,
        subfolder=_subfolder_of(relative_name) if relative_name is not None else reported_file.subfolder.strip("/"),
        folder=reported_file.folder,
        read=read,
        path=path,
    )


def locate_file(folders: LocalFolders, reported_file: ReportedFile) -> Path | None:
    """Return the path of a reported file on this machine; None if it is outside the engine's folders, or gone.

    Nodes also report absolute names, and folders with `..`: they count if they lead inside.
    """
    root = _root_folder(folders, reported_file)
    # A name with a leading slash is absolute, or means a file below the engine's folder: try both.
    for reported_name in (reported_file.full_name, reported_file.full_name.lstrip("/")):
        absolute = posixpath.normpath(posixpath.join(root.as_posix(), reported_name))
        # A name that leads outside, or that the file system refuses, is simply not here.
        with contextlib.suppress(ValueError, OSError):
            path = contained_path(root, PurePosixPath(absolute).relative_to(root.as_posix()))
            if path.is_file():
                return path
    return None


def find_marked(folders: LocalFolders, *marks: str) -> tuple[Path, ...]:
    """Find every file in the engine's folders that has one of the marks in its name or its folder's. Blocks."""
    marked_paths = []
    for root in (folders.output, folders.temp, folders.input):
        for folder, _, names in os.walk(root):
            inside = Path(folder).relative_to(root).as_posix()
            marked_paths += [
                Path(folder, file_name) for file_name in names if any(mark in f"{inside}/{file_name}" for mark in marks)
            ]
    return tuple(sorted(marked_paths))


def find_counted(folders: LocalFolders, prefixes: Collection[str]) -> set[Path]:
    """Find every file in the output folder that a node of ComfyUI counted up under one of these prefixes. Blocks."""
    if not prefixes:
        return set()
    # What the engine fills in (`%width%`) may be anything.
    stems = "|".join(
        ".*".join(map(re.escape, re.split("%[^%]*%", posixpath.normpath(prefix)))) for prefix in sorted(prefixes)
    )
    counted = re.compile(rf"(?:{stems})_\d{{5,}}_?\.[^./]+", re.DOTALL)
    counted_paths = set()
    for folder, _, names in os.walk(folders.output):
        inside = PurePosixPath(Path(folder).relative_to(folders.output).as_posix())
        counted_paths |= {
            Path(folder, file_name) for file_name in names if counted.fullmatch((inside / file_name).as_posix())
        }
    return counted_paths


def find_unreported(folders: LocalFolders, mark: str, graph: ApiGraph, reported: Iterable[ReportedFile]) -> Unreported:
    """Find what a prompt with this mark left in the engine's folders beyond its nodes' reports. Blocks."""
    reported_paths = {path for reported_file in reported if (path := locate_file(folders, reported_file)) is not None}
    files, companions = [], []
    for path in find_marked(folders, mark):
        if path in reported_paths or path.is_symlink():
            continue
        if not path.is_relative_to(folders.output) or any(_is_companion(path, other) for other in reported_paths):
            companions.append(path)
            continue
        relative_name = PurePosixPath(path.relative_to(folders.output).as_posix())
        node_id = _find_saver(graph, mark, relative_name)
        files.append(
            ReportedFile(
                node_id=node_id,
                key="",
                filename=relative_name.name,
                subfolder=_subfolder_of(relative_name),
                folder="output",
            )
        )
    return Unreported(files=tuple(files), companions=tuple(companions))


def find_silent_nodes(graph: ApiGraph, mark: str, spoke: Iterable[NodeId]) -> tuple[NodeId, ...]:
    """Return the nodes that save under the mark and of which nothing was reported nor found."""
    return tuple(node_id for node_id in _find_savers(graph, mark) if node_id not in frozenset(spoke))


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files; ignore those that are already gone."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _root_folder(folders: LocalFolders, reported_file: ReportedFile) -> Path:
    return {"output": folders.output, "temp": folders.temp, "input": folders.input}[reported_file.folder]


def _relative_name(folders: LocalFolders, reported_file: ReportedFile, path: Path) -> PurePosixPath:
    return PurePosixPath(path.relative_to(_root_folder(folders, reported_file)).as_posix())


def _subfolder_of(relative_name: PurePosixPath) -> str:
    return "" if relative_name.parent == PurePosixPath() else relative_name.parent.as_posix()


def _is_companion(path: Path, reported: Path) -> bool:
    """Return whether a node made it on the way to the reported one: `AD_00001.png` for `AD_00001-audio.mp4`."""
    # Digits would make it the next file of a series (`A_1` and `A_10`), not a companion.
    appended = reported.stem.removeprefix(path.stem)
    is_same_name = appended == "" or (appended != reported.stem and not appended[0].isdigit())
    return path.parent == reported.parent and is_same_name


def _find_savers(graph: ApiGraph, mark: str) -> Iterator[NodeId]:
    for node in graph.nodes.values():
        prefix = node.inputs.get(PREFIX_INPUT)
        # A prefix that comes from another node holds the mark in that node's id.
        is_linked = isinstance(prefix, ApiLink) and prefix.node_id.startswith(mark)
        if is_linked or (isinstance(prefix, str) and mark in prefix):
            yield node.id


def _find_saver(graph: ApiGraph, mark: str, relative_name: PurePosixPath) -> NodeId:
    """Return the node whose prefix begins a file's name; the first that saves, if the engine filled the prefix in."""
    savers = list(_find_savers(graph, mark))
    for node_id in savers:
        prefix = graph.nodes[node_id].inputs[PREFIX_INPUT]
        # From the first %date% or %width% on the engine has filled in what we cannot foresee.
        if isinstance(prefix, str) and relative_name.as_posix().startswith(prefix.partition("%")[0]):
            return node_id
    return savers[0] if savers else "?"


async def _read_file(path: Path, reported_file: ReportedFile, mark: str | None) -> AsyncIterator[bytes]:
    try:
        with await asyncio.to_thread(path.open, "rb") as stream:
            while chunk := await asyncio.to_thread(stream.read, CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as exc:
        raise OutputGone(node_id=reported_file.node_id, filename=_strip_mark(reported_file.filename, mark)) from exc


async def _download_file(
    transport: EngineTransport, reported_file: ReportedFile, mark: str | None, *, is_local: bool
) -> AsyncGenerator[bytes, None]:
    """Stream a file through the engine's /view."""
    is_outside = _leads_outside(reported_file)
    shown_name = _strip_mark(reported_file.full_name if is_outside else reported_file.filename, mark)
    if is_outside and is_local:
        raise OutputOutside(node_id=reported_file.node_id, filename=shown_name)
    query = {
        "filename": reported_file.filename,
        # ComfyUI refuses a subfolder that begins with a slash, even where it means its own folder.
        "subfolder": reported_file.subfolder.strip("/"),
        "type": reported_file.folder,
    }
    try:
        async for chunk in transport.download_file("/view", query):
            yield chunk
    except EngineAnswerInvalid as exc:
        if is_outside and 400 <= exc.status < 500:
            # Of a ComfyUI on another machine it is not known where its output folder is.
            raise OutputOutside(node_id=reported_file.node_id, filename=shown_name, _is_certain=False) from exc
        if exc.status == 404:
            raise OutputGone(node_id=reported_file.node_id, filename=shown_name) from exc
        raise


async def holds_tag(transport: EngineTransport, reported_file: ReportedFile, tag: str) -> bool:
    """Return whether the metadata at the beginning of a file holds a tag; False if it cannot be read."""
    beginning = b""
    try:
        async with contextlib.aclosing(_download_file(transport, reported_file, None, is_local=False)) as chunks:
            async for chunk in chunks:
                beginning += chunk
                if tag.encode() in beginning:
                    return True
                if len(beginning) > _METADATA_WITHIN_BYTES:
                    break
    except EngineError:
        return False
    return False


def _strip_mark(relative_name: str, mark: str | None) -> str:
    return relative_name.replace(mark, "", 1) if mark else relative_name


def _leads_outside(reported_file: ReportedFile) -> bool:
    full_name = reported_file.full_name
    return (
        full_name.startswith("/") or PureWindowsPath(full_name).is_absolute() or ".." in PurePosixPath(full_name).parts
    )
