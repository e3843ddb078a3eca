"""Brings a job's input files into the engine: a folder of the job's own, by copy where it is here, else by upload."""

import asyncio
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from comfypin.engine.errors import EngineAnswerInvalid
from comfypin.engine.host import Folders
from comfypin.engine.http_transport import Transport
from comfypin.engine.interface import InputFile
from comfypin.workflow.errors import InputFileInvalid
from comfypin.workflow.graph import ApiGraph

_FOLDER = "comfypin"
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\\[\]<>:"|?*]+')
_BIG_BYTES = 32 << 20
_FORM_BYTES = 64 << 10


def job_folder(prompt_id: str) -> str:
    """The folder inside the engine's input folder that belongs to one prompt."""
    return f"{_FOLDER}/{prompt_id}"


def names_of(files: tuple[InputFile, ...]) -> dict[Path, str]:
    """A name for each file, near to its own, such that no two files share one (case is ignored: macOS, Windows)."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for file in files:
        if file.path in names:
            continue
        wanted = Path(_UNSAFE.sub("_", file.path.name)[-120:].lstrip(" .") or "input")
        name, number = wanted.name, 1
        while name.casefold() in taken:
            name, number = f"{wanted.stem}_{number}{wanted.suffix}", number + 1
        taken.add(name.casefold())
        names[file.path] = name
    return names


def point_at(graph: ApiGraph, files: tuple[InputFile, ...], given: Mapping[Path, str]) -> ApiGraph:
    """The graph with the engine's names for the files in its load nodes."""
    nodes = dict(graph.nodes)
    for file in files:
        node = nodes[file.node_id]
        nodes[file.node_id] = replace(node, inputs={**node.inputs, file.input_name: given[file.path]})
    return ApiGraph(nodes=nodes)


class Feeder:
    """Puts files into one engine's input folder and takes them away again."""

    def __init__(self, transport: Transport, folders: Folders | None) -> None:
        self._transport = transport
        self._folders = folders
        self._limit_bytes: int | None = None

    async def feed(self, prompt_id: str, graph: ApiGraph, files: tuple[InputFile, ...]) -> ApiGraph:
        """Bring the files; the graph that names them. Raises `InputFileInvalid` or `EngineError`."""
        given: dict[Path, str] = {}
        for path, name in names_of(files).items():
            try:
                given[path] = await self._bring(job_folder(prompt_id), path, name)
            except OSError as exc:
                raise InputFileInvalid(name=path.name, reason=exc.strerror or str(exc)) from exc
        return point_at(graph, files, given) if files else graph

    async def clear(self, prompt_id: str) -> None:
        """Remove the job's files, where the folder is on this machine; a remote ComfyUI has no way to remove any."""
        if self._folders is not None:
            folder = self._folders.input / _FOLDER / prompt_id
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _bring(self, folder: str, path: Path, name: str) -> str:
        if self._folders is not None:
            await asyncio.to_thread(_copy, path, self._folders.input / folder / name)
            return f"{folder}/{name}"
        return await self._upload(folder, path, name)

    async def _upload(self, folder: str, path: Path, name: str) -> str:
        size_bytes = path.stat().st_size
        if size_bytes > _BIG_BYTES and size_bytes + _FORM_BYTES > await self._limit():
            raise _too_large(name, size_bytes, await self._limit())
        answer = await self._transport.upload(path, name=name, fields={"subfolder": folder, "type": "input"})
        if answer.status == 413:
            raise _too_large(name, size_bytes, None)
        stored = answer.body if isinstance(answer.body, dict) else {}
        if answer.status != 200 or not isinstance(stored.get("name"), str):
            raise EngineAnswerInvalid(request=f"POST /upload/image of {name}", status=answer.status, body=answer.text)
        subfolder = stored.get("subfolder")
        return f"{subfolder}/{stored['name']}" if subfolder else str(stored["name"])

    async def _limit(self) -> int:
        """The largest request the engine takes; older ones do not say, and take 100 MB unless told otherwise."""
        if self._limit_bytes is None:
            answer = await self._transport.get("/features")
            said = answer.body.get("max_upload_size") if isinstance(answer.body, dict) else None
            # An old engine may have been given another limit: send, and let its 413 decide.
            self._limit_bytes = said if isinstance(said, int) else 1 << 62
        return self._limit_bytes


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _too_large(name: str, size_bytes: int, limit_bytes: int | None) -> InputFileInvalid:
    limit = f"at most {limit_bytes / 1e6:.0f} MB" if limit_bytes else "less (100 MB unless it was told otherwise)"
    return InputFileInvalid(
        name=name,
        reason=f"it is {size_bytes / 1e6:.0f} MB, and the engine takes {limit}; "
        f"start ComfyUI with --max-upload-size {size_bytes / 1e6 + 1:.0f}, or use a smaller file",
    )
