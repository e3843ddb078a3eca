"""Reads the Dockerfile of a worker that runs ComfyUI, above all one that begins with worker-comfyui's image (pure)."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from comfypin.lock.model_spec import ModelSpec
from comfypin.locking.release_files.dockerfile_commands import BuildState, add_model, models_target, read_command
from comfypin.locking.release_files.dockerfile_syntax import (
    Instruction,
    ShellCommand,
    read_assignments,
    read_instructions,
    split_commands,
    strip_heredocs,
    substitute,
)
from comfypin.locking.release_files.document import ReleaseFile
from comfypin.locking.release_files.worker_comfyui import WorkerImage, find_worker_image
from comfypin.locking.repository_refs import COMFYUI, RepoSpec

# What an image has and a lock does not: how a container is started and shown.
_WITHOUT_EFFECT = frozenset(
    {"LABEL", "EXPOSE", "USER", "SHELL", "VOLUME", "STOPSIGNAL", "HEALTHCHECK", "MAINTAINER", "CMD", "ENTRYPOINT"}
)
# Variables of the build: they tell apt, pip, Python and downloads how to behave there. hf_transfer is a
# package that a lock leaves out, and without it that variable makes downloads fail.
_BUILD_VARIABLES = (
    "PIP_",
    "UV_",
    "HF_HUB_ENABLE_HF_TRANSFER",
    "DEBIAN_FRONTEND",
    "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE",
    "PATH",
    "CMAKE_",
)
# What the worker around ComfyUI reads; in a lock's `engine.env` only ComfyUI would see it.
_WORKER_VARIABLES = ("BUCKET_", "COMFY_ORG_API_KEY", "RUNPOD_")
_REPLACED_VARIABLES = frozenset({"REFRESH_WORKER", "COMFY_LOG_LEVEL", "NETWORK_VOLUME_DEBUG", "SERVE_API_LOCALLY"})
_SHELLS = frozenset({"", "sh", "bash", "/bin/sh", "/bin/bash"})


def read_dockerfile(text: str, path: Path) -> ReleaseFile:
    """Read a Dockerfile; what is not understood is in the notes, by line."""
    return _DockerfileReader(path).read(text)


class _DockerfileReader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = BuildState()
        self._arguments: dict[str, str] = {}
        self._image: WorkerImage | None = None
        self._image_name = ""
        self._stages: set[str] = set()
        self._engine_env: dict[str, str] = {}
        self._notes: list[str] = []

    def read(self, text: str) -> ReleaseFile:
        for instruction in read_instructions(text):
            self._read_instruction(instruction)
        state, image = self._state, self._image or WorkerImage()
        comfyui = state.clones.get(state.comfyui_folder) if state.comfyui_folder else None
        if comfyui is None and image.comfyui:
            comfyui = RepoSpec(repo=COMFYUI, ref=image.comfyui)
        parts = state.parts
        parts.models[:0] = [ModelSpec(sources=(url,), target=target) for target, url in image.models]
        parts.notes += self._notes
        if newest := [node.name for node in parts.nodes if node.ref is None]:
            parts.notes.append(f"without a version, so the newest is taken: {', '.join(newest)}")
        torch = state.torch or image.torch
        if image.python or torch:
            known = [*([f"Python {image.python}"] if image.python else []), *([f"torch for {torch}"] if torch else [])]
            parts.notes.append(f"its image has {', '.join(known)}; --python and --torch take others")
        return replace(
            parts.to_release("a Dockerfile", comfyui=comfyui, python=image.python),
            requirements=tuple(dict.fromkeys(state.requirements)),
            torch=torch,
            system_packages=tuple(dict.fromkeys(state.system_packages)),
            engine_env=self._engine_env,
            comfyui_hint=self._comfyui_hint() if comfyui is None else "",
        )

    def _comfyui_hint(self) -> str:
        if self._image is None:
            return ""
        return (
            f" worker-comfyui builds {self._image_name} with the newest ComfyUI of that day; the image says which: "
            f"docker run --rm --entrypoint cat {self._image_name} /comfyui/comfyui_version.py; if that is "
            "0.3.64, add --comfyui v0.3.64."
        )

    def _read_instruction(self, instruction: Instruction) -> None:
        state = self._state
        match instruction.keyword:
            case "FROM":
                self._read_from(instruction)
            case "ARG":
                self._assign(instruction, into_engine=False)
            case "ENV":
                self._assign(instruction, into_engine=True)
            case "WORKDIR":
                state.folder = state.path(substitute(instruction.value, state.variables).strip("\"'"))
            case "RUN":
                self._read_run(instruction)
            case "ADD" | "COPY":
                self._read_copy(instruction)
            case _ if instruction.keyword not in _WITHOUT_EFFECT:
                self._say(instruction, instruction.value)

    def _read_from(self, instruction: Instruction) -> None:
        words = [word for word in instruction.value.split() if not word.startswith("--")]
        name = substitute(words[0], {**self._arguments, **self._state.variables}) if words else ""
        if name.lower() not in self._stages:
            # Each stage begins at its image's own folder; that of a stage before it is where that one ended.
            self._state.folder = PurePosixPath("/")
            image = find_worker_image(name)
            if image is not None:
                self._image, self._image_name = image, name
        if len(words) > 2 and words[1].upper() == "AS":
            self._stages.add(words[2].lower())

    def _assign(self, instruction: Instruction, *, into_engine: bool) -> None:
        try:
            assigned = read_assignments(instruction.value)
        except ValueError:
            self._say(instruction, instruction.value)
            return
        for name, raw_value in assigned.items():
            value = substitute(raw_value, self._state.variables)
            self._state.variables[name] = value
            if not into_engine or name.startswith(_BUILD_VARIABLES):
                continue
            if name in _REPLACED_VARIABLES or name.startswith("WEBSOCKET_"):
                self._notes.append(f"line {instruction.line}: {name} is worker-comfyui's own and not needed here")
            elif name.startswith(_WORKER_VARIABLES):
                advice = "is for the worker and in no lock; set it on the endpoint (runpod.toml)"
                self._notes.append(f"line {instruction.line}: {name} {advice}")
            else:
                self._engine_env[name] = value

    def _read_run(self, instruction: Instruction) -> None:
        state = self._state
        value = instruction.value
        while value.startswith("--"):
            value = value.partition(" ")[2].lstrip()
        folder, variables = state.folder, dict(state.variables)
        try:
            for command in self._commands(value, instruction.heredocs):
                if (problem := read_command(command, state)) is not None:
                    self._say(instruction, shlex.join(command.words).replace("'", ""), problem)
        except ValueError as error:
            self._say(instruction, value, str(error))
        # A shell's folder and variables end with it.
        state.folder, state.variables = folder, variables

    def _commands(self, value: str, heredocs: tuple[str, ...]) -> Iterator[ShellCommand]:
        if value.startswith("["):
            yield ShellCommand(words=tuple(map(str, json.loads(value))))
        elif heredocs and strip_heredocs(value) in _SHELLS:
            for script in heredocs:
                yield from split_commands(script)
        elif heredocs:
            yield ShellCommand(words=tuple(value.split()), is_piped=True)
        else:
            yield from split_commands(value)

    def _read_copy(self, instruction: Instruction) -> None:
        value = substitute(strip_heredocs(instruction.value), self._state.variables)
        words = [word for word in value.split() if not word.startswith("--")]
        if "--from=" in value and len(words) == 2 and words[0].rstrip("/") == words[1].rstrip("/"):
            # What another stage made there, which was read there.
            return
        sources, target = words[:-1], self._state.path(words[-1] if words else ".")
        problem: str | None = _copy_hint(sources, target)
        if instruction.keyword == "ADD" and sources and "://" in sources[0] and models_target(target):
            name = PurePosixPath(sources[0].partition("?")[0]).name if value.endswith("/") else ""
            problem = add_model(sources[0], models_target(target / name), self._state)
        if problem is not None:
            self._say(instruction, value, problem)

    def _say(self, instruction: Instruction, text: str, problem: str = "") -> None:
        shown = " ".join(text.split())
        shown = shown if len(shown) <= 100 else f"{shown[:97]}..."
        hint = f" ({problem})" if problem else ""
        self._notes.append(f"line {instruction.line} is not understood: {instruction.keyword} {shown}{hint}")


def _copy_hint(sources: list[str], target: PurePosixPath) -> str:
    """Say what to do about files that come from the folder of the build."""
    if any("snapshot" in PurePosixPath(source).name and source.endswith(".json") for source in sources):
        return "lock create NAME --from reads a snapshot itself"
    if "models" in target.parts:
        return "a lock needs an address that has the file: --model TARGET=SOURCE"
    if "input" in target.parts:
        return "send the file with the job, or give it with --input"
    if "custom_nodes" in target.parts:
        return "a lock needs the node's repository: --node URL@REF"
    return "files of the build's folder are in no lock"
