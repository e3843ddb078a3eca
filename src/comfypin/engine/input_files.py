"""Brings a job's input files into the engine, in the job's own folder: by copy if it is here, else by upload."""

import asyncio
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from comfypin.digest import Digest
from comfypin.engine.errors import EngineAnswerInvalid
from comfypin.engine.host import LocalFolders
from comfypin.engine.http_transport import EngineTransport
from comfypin.engine.interface import InputFile
from comfypin.machine_errors import is_full, reason_of
from comfypin.plurals import format_limit, format_size
from comfypin.workflow.errors import InputFileInvalid
from comfypin.workflow.graph import ApiGraph

_FOLDER = "comfypin"
# What Windows, a URL, or ComfyUI's own "name [folder]" notation would read as something else.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\\[\]<>:"|?*]+')
# Far below ComfyUI's default limit of 100 MB, so there is no need to ask for the real one.
_BIG_BYTES = 32 << 20
# The multipart form around the file counts towards the limit too.
_FORM_BYTES = 64 << 10


def input_folder(prompt_id: str, digest: Digest | None) -> str:
    """Return the folder, inside the engine's input folder, of a file: by its bytes, else the prompt's own.

    The name is in the metadata of what the prompt saves: the same input must have the same one each time.
    """
    return f"{_FOLDER}/{digest.hex[:32] if digest is not None else prompt_id}"


class InputFolders:
    """Knows which prompts use which folders, so that the last one to end removes a folder."""

    def __init__(self) -> None:
        self._users: dict[str, set[str]] = {}
        # Copying into a folder and removing it exclude each other.
        self.lock = asyncio.Lock()

    def use(self, folder: str, prompt_id: str) -> None:
        """Note that a prompt uses a folder."""
        self._users.setdefault(folder, set()).add(prompt_id)

    def leave(self, prompt_id: str) -> list[str]:
        """Note that a prompt has ended; return the folders that nobody uses any more."""
        unused = [folder for folder, users in self._users.items() if users == {prompt_id}]
        for folder in unused:
            del self._users[folder]
        for users in self._users.values():
            users.discard(prompt_id)
        return unused


def assign_names(files: tuple[InputFile, ...]) -> dict[Path, str]:
    """Choose a name for each file, close to its own, such that no two share one (case is ignored: macOS, Windows)."""
    names: dict[Path, str] = {}
    taken_names: set[str] = set()
    for input_file in files:
        if input_file.path in names:
            continue
        # ComfyUI shows names in lists, and file systems end at 255 bytes: keep the end, which has the suffix.
        wanted_name = Path(_UNSAFE.sub("_", input_file.path.name)[-120:].lstrip(" .") or "input")
        file_name, attempt = wanted_name.name, 1
        while file_name.casefold() in taken_names:
            file_name, attempt = f"{wanted_name.stem}_{attempt}{wanted_name.suffix}", attempt + 1
        taken_names.add(file_name.casefold())
        names[input_file.path] = file_name
    return names


def point_load_nodes(graph: ApiGraph, files: tuple[InputFile, ...], given_names: Mapping[Path, str]) -> ApiGraph:
    """Return the graph with the engine's names for the files in its load nodes."""
    nodes = dict(graph.nodes)
    for input_file in files:
        node = nodes[input_file.node_id]
        nodes[input_file.node_id] = replace(
            node, inputs={**node.inputs, input_file.input_name: given_names[input_file.path]}
        )
    return ApiGraph(nodes=nodes)


class InputUploader:
    """Puts files into one engine's input folder and takes them away again."""

    def __init__(
        self, transport: EngineTransport, folders: LocalFolders | None, input_folders: InputFolders | None = None
    ) -> None:
        self._input_folders = input_folders or InputFolders()
        self._transport = transport
        self._folders = folders
        self._limit_bytes: int | None = None

    async def upload_inputs(self, prompt_id: str, graph: ApiGraph, files: tuple[InputFile, ...]) -> ApiGraph:
        """Upload the files; return the graph that names them. Raises `InputFileInvalid` or `EngineError`."""
        given_names: dict[Path, str] = {}
        digests = {input_file.path: input_file.digest for input_file in files}
        for path, file_name in assign_names(files).items():
            folder = input_folder(prompt_id, digests[path])
            self._input_folders.use(folder, prompt_id)
            try:
                given_names[path] = await self._bring_file(folder, path, file_name)
            except OSError as exc:
                where = f" (in {self._folders.input})" if self._folders is not None and is_full(exc) else ""
                raise InputFileInvalid(name=path.name, reason=f"{reason_of(exc)}{where}") from exc
        return point_load_nodes(graph, files, given_names) if files else graph

    async def clear_inputs(self, prompt_id: str) -> None:
        """Remove the job's files if the folder is on this machine; a remote ComfyUI has no way to remove any."""
        async with self._input_folders.lock:
            for folder in self._input_folders.leave(prompt_id):
                if self._folders is not None:
                    await asyncio.to_thread(shutil.rmtree, self._folders.input / folder, ignore_errors=True)

    async def _bring_file(self, folder: str, path: Path, file_name: str) -> str:
        if self._folders is not None:
            async with self._input_folders.lock:
                await asyncio.to_thread(_copy_file, path, self._folders.input / folder / file_name)
            return f"{folder}/{file_name}"
        return await self._upload_file(folder, path, file_name)

    async def _upload_file(self, folder: str, path: Path, file_name: str) -> str:
        """Upload one file and return the name that the engine gave it."""
        size_bytes = path.stat().st_size
        if size_bytes > _BIG_BYTES and size_bytes + _FORM_BYTES > await self._fetch_limit():
            raise _too_large(file_name, size_bytes, await self._fetch_limit())
        response = await self._transport.upload_file(
            path, file_name=file_name, fields={"subfolder": folder, "type": "input"}
        )
        if response.status == 413:
            raise _too_large(file_name, size_bytes, None)
        stored = response.body if isinstance(response.body, dict) else {}
        if response.status != 200 or not isinstance(stored.get("name"), str):
            raise EngineAnswerInvalid(
                request=f"POST /upload/image of {file_name}", status=response.status, _body=response.text
            )
        subfolder = stored.get("subfolder")
        # The server's name, because it renames a file whose name is taken by other bytes.
        return f"{subfolder}/{stored['name']}" if subfolder else str(stored["name"])

    async def _fetch_limit(self) -> int:
        """Return the largest request the engine takes; older ones do not say, and take 100 MB by default."""
        if self._limit_bytes is None:
            response = await self._transport.get_json("/features")
            reported = response.body.get("max_upload_size") if isinstance(response.body, dict) else None
            # An old engine may have been given another limit: send, and let its 413 decide.
            self._limit_bytes = reported if isinstance(reported, int) else 1 << 62
        return self._limit_bytes


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Another prompt may be reading the same file there.
    unfinished = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, unfinished)
    unfinished.replace(target)


def _too_large(file_name: str, size_bytes: int, limit_bytes: int | None) -> InputFileInvalid:
    limit = (
        f"at most {format_limit(limit_bytes)}" if limit_bytes else "less (100 MB, unless its upload limit was raised)"
    )
    return InputFileInvalid(
        name=file_name,
        reason=f"it is {format_size(size_bytes)}, and the engine takes {limit}; "
        f"use a smaller file, or have ComfyUI's upload limit raised to {size_bytes / 1e6 + 1:.0f} MB",
    )
