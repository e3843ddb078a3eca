"""What runs a prompt, in five methods, and the values that cross that line.

An engine is opened and closed by whoever wires it (an async context manager); this protocol is what a job needs.
Errors are those of `comfypin.engine.errors`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from comfypin.digest import JsonValue
from comfypin.workflow.graph import ApiGraph, NodeId

Catalogue: TypeAlias = Mapping[str, Mapping[str, JsonValue]]
"""ComfyUI's /object_info as it stands: class name -> its inputs, outputs, whether it is an output node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """A file of the job that must lie in the engine's input folder before the prompt starts.

    `name` is what the load node's input says now; the engine uploads the file into a folder of this job's own, and
    submits the graph with the name that the server answered, in `node_id`'s input `input_name`.
    """

    node_id: NodeId
    input_name: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One submission: a graph, a lower-case UUID of our own, and the files it loads.

    `extra_data` is sent beside the graph (`extra_pnginfo`, `api_key_comfy_org`); it may hold secrets: never log it.
    `mark` is in the names of the files that the graph saves, by which those that no node reports are found.
    """

    prompt_id: str
    graph: ApiGraph
    inputs: tuple[InputFile, ...] = ()
    extra_data: Mapping[str, JsonValue] = field(default_factory=dict)
    mark: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The prompt waits behind `ahead` others."""

    ahead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The engine took the prompt; `cached` nodes will not run."""

    cached: frozenset[NodeId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted:
    """A node began at `at_s` (seconds of the monotonic clock, when we heard of it)."""

    node_id: NodeId
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProgress:
    """A node is at `value` of `maximum` steps."""

    node_id: NodeId
    value: float
    maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFinished:
    """A node ended at `at_s`."""

    node_id: NodeId
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something a user should know though the prompt goes on (a dropped output branch, a silent websocket)."""

    message: str
    node_id: NodeId | None = None


EngineEvent: TypeAlias = Queued | Started | NodeStarted | NodeProgress | NodeFinished | Warned

Folder = Literal["output", "temp", "input"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOutput:
    """A file that a node of a prompt produced, still in the engine.

    `key` is the output list it was reported under (`images`, `gifs`, `audio`, `3d`, ...). `read()` streams its bytes;
    `path` is set where the engine's folder is on this machine, so that bytes need not pass through HTTP.
    """

    node_id: NodeId
    key: str
    filename: str
    subfolder: str
    folder: Folder
    read: Callable[[], AsyncIterator[bytes]]
    path: Path | None = None


async def _nothing_to_clear() -> None:
    """Remove nothing: the engine's disk is not this machine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOutputs:
    """All a finished prompt left: files in the order of the history, then those that no node reported; texts by node.

    `clear` removes from this machine what the prompt left, to be called once the outputs are delivered or will not be.
    `warnings` say what a user should know of how the outputs were found.
    """

    files: tuple[EngineOutput, ...] = ()
    texts: Mapping[NodeId, tuple[str, ...]] = field(default_factory=dict)
    cached: frozenset[NodeId] = frozenset()
    clear: Callable[[], Awaitable[None]] = _nothing_to_clear
    warnings: tuple[str, ...] = ()


class Engine(Protocol):
    """Runs prompts as ComfyUI does."""

    async def catalogue(self) -> Catalogue:
        """The node classes this engine has, as /object_info gives them. Raises `EngineError`."""

    async def submit(self, prompt: Prompt) -> None:
        """Upload the inputs and queue the prompt. Raises `WorkflowRejected` (nothing queued) or `EngineError`."""

    def events(self, prompt_id: str) -> AsyncGenerator[EngineEvent, None]:
        """What happens to a submitted prompt, in order; ends when it has succeeded and its history is written.

        Raises `NodeFailed`, `PromptInterrupted`, `PromptLost`, or `EngineError` (`EngineCrashed` when it died).
        """

    async def outputs(self, prompt_id: str) -> PromptOutputs:
        """What a prompt that succeeded produced. Raises `EngineError`."""

    async def cancel(self, prompt_id: str) -> None:
        """Take the prompt out of the queue, or interrupt it where it runs; no error where it has already ended."""
