"""The files of one prompt on the engine's disk: where a reported one lies, and which ones no node reported."""

import asyncio
import contextlib
import os
import posixpath
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from comfypin.atomic_files import contained_path
from comfypin.digest import CHUNK_BYTES
from comfypin.engine.errors import EngineAnswerInvalid, OutputGone, OutputOutside
from comfypin.engine.host import Folders
from comfypin.engine.http_transport import Transport
from comfypin.engine.interface import EngineOutput
from comfypin.engine.prompt_history import ReportedFile
from comfypin.workflow.filename_mark import PREFIX_INPUT
from comfypin.workflow.graph import ApiGraph, ApiLink, NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreported:
    """What bears a submission's mark and no node reported.

    `companions` lie beside a reported file under its name (the picture that a video node writes beside its video): they
    are not delivered. `files` are outputs of nodes that save and say nothing.
    """

    files: tuple[ReportedFile, ...] = ()
    companions: tuple[Path, ...] = ()


def engine_output(
    transport: Transport, folders: Folders | None, file: ReportedFile, mark: str | None = None
) -> EngineOutput:
    """The file as others take it: by its path if it is on this machine, else through the engine.

    Failures of reading it name it as the user does, without the mark.
    """
    path = locate(folders, file) if folders is not None else None
    name = _relative_name(folders, file, path) if folders is not None and path is not None else None

    def read() -> AsyncIterator[bytes]:
        if path is not None:
            return _read_file(path, file, mark)
        return _download(transport, file, mark, is_local=folders is not None)

    return EngineOutput(
        node_id=file.node_id,
        key=file.key,
        filename=name.name if name is not None else file.filename,
        subfolder=_subfolder(name) if name is not None else file.subfolder.strip("/"),
        folder=file.folder,
        read=read,
        path=path,
    )


def locate(folders: Folders, file: ReportedFile) -> Path | None:
    """Where a reported file is on this machine; None if it is not inside the engine's folders, or gone.

    Nodes report absolute names too, and folders with `..`: what these lead to counts, if it is inside.
    """
    root = _root(folders, file)
    for reported in (file.full_name, file.full_name.lstrip("/")):
        absolute = posixpath.normpath(posixpath.join(root.as_posix(), reported))
        with contextlib.suppress(ValueError, OSError):
            path = contained_path(root, PurePosixPath(absolute).relative_to(root.as_posix()))
            if path.is_file():
                return path
    return None


def find_marked(folders: Folders, *marks: str) -> tuple[Path, ...]:
    """Every file of the engine's folders that has one of the marks in its name or its folder's. Blocks."""
    found = []
    for root in (folders.output, folders.temp, folders.input):
        for folder, _, names in os.walk(root):
            inside = Path(folder).relative_to(root).as_posix()
            found += [Path(folder, name) for name in names if any(mark in f"{inside}/{name}" for mark in marks)]
    return tuple(sorted(found))


def find_unreported(folders: Folders, mark: str, graph: ApiGraph, reported: Iterable[ReportedFile]) -> Unreported:
    """What a prompt with this mark left in the engine's folders beside what its nodes reported. Blocks."""
    known = {path for file in reported if (path := locate(folders, file)) is not None}
    files, companions = [], []
    for path in find_marked(folders, mark):
        if path in known or path.is_symlink():
            continue
        if not path.is_relative_to(folders.output) or any(_is_companion(path, other) for other in known):
            companions.append(path)
            continue
        name = PurePosixPath(path.relative_to(folders.output).as_posix())
        node_id = _saver(graph, mark, name)
        files.append(
            ReportedFile(node_id=node_id, key="", filename=name.name, subfolder=_subfolder(name), folder="output")
        )
    return Unreported(files=tuple(files), companions=tuple(companions))


def silent_nodes(graph: ApiGraph, mark: str, spoke: Iterable[NodeId]) -> tuple[NodeId, ...]:
    """The nodes whose prefix bears the mark, so that they save, and of which nothing was heard nor found."""
    return tuple(node_id for node_id in _savers(graph, mark) if node_id not in frozenset(spoke))


def remove(paths: Iterable[Path]) -> None:
    """Remove files; those that are gone already are no error."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _root(folders: Folders, file: ReportedFile) -> Path:
    return {"output": folders.output, "temp": folders.temp, "input": folders.input}[file.folder]


def _relative_name(folders: Folders, file: ReportedFile, path: Path) -> PurePosixPath:
    return PurePosixPath(path.relative_to(_root(folders, file)).as_posix())


def _subfolder(name: PurePosixPath) -> str:
    return "" if name.parent == PurePosixPath() else name.parent.as_posix()


def _is_companion(path: Path, reported: Path) -> bool:
    """Whether a node made it on the way to the reported one: `AD_00001.png` for `AD_00001-audio.mp4`."""
    appended = reported.stem.removeprefix(path.stem)
    is_same_name = appended == "" or (appended != reported.stem and not appended[0].isdigit())
    return path.parent == reported.parent and is_same_name


def _savers(graph: ApiGraph, mark: str) -> Iterator[NodeId]:
    for node in graph.nodes.values():
        prefix = node.inputs.get(PREFIX_INPUT)
        linked = isinstance(prefix, ApiLink) and prefix.node_id.startswith(mark)
        if linked or (isinstance(prefix, str) and mark in prefix):
            yield node.id


def _saver(graph: ApiGraph, mark: str, name: PurePosixPath) -> NodeId:
    """The node whose prefix a file's name begins with; the first that saves, if the engine filled the prefix in."""
    savers = list(_savers(graph, mark))
    for node_id in savers:
        prefix = graph.nodes[node_id].inputs[PREFIX_INPUT]
        if isinstance(prefix, str) and name.as_posix().startswith(prefix.partition("%")[0]):
            return node_id
    return savers[0] if savers else "?"


async def _read_file(path: Path, file: ReportedFile, mark: str | None) -> AsyncIterator[bytes]:
    try:
        with await asyncio.to_thread(path.open, "rb") as stream:
            while chunk := await asyncio.to_thread(stream.read, CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as exc:
        raise OutputGone(node_id=file.node_id, filename=_plain(file.filename, mark)) from exc


async def _download(
    transport: Transport, file: ReportedFile, mark: str | None, *, is_local: bool
) -> AsyncIterator[bytes]:
    outside = _leads_outside(file)
    shown = _plain(file.full_name if outside else file.filename, mark)
    if outside and is_local:
        raise OutputOutside(node_id=file.node_id, filename=shown)
    query = {"filename": file.filename, "subfolder": file.subfolder.strip("/"), "type": file.folder}
    try:
        async for chunk in transport.download("/view", query):
            yield chunk
    except EngineAnswerInvalid as exc:
        if outside and 400 <= exc.status < 500:
            # Of a ComfyUI on another machine it is not known where its output folder is.
            raise OutputOutside(node_id=file.node_id, filename=shown, certain=False) from exc
        if exc.status == 404:
            raise OutputGone(node_id=file.node_id, filename=shown) from exc
        raise


def _plain(name: str, mark: str | None) -> str:
    return name.replace(mark, "", 1) if mark else name


def _leads_outside(file: ReportedFile) -> bool:
    name = file.full_name
    return name.startswith("/") or PureWindowsPath(name).is_absolute() or ".." in PurePosixPath(name).parts
