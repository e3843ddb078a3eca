"""Defines what a job needs of an engine: five methods, and the values they exchange.

The wiring opens and closes an engine (an async context manager). Errors are those of `comfypin.engine.errors`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from comfypin.digest import Digest, JsonValue
from comfypin.workflow.graph import ApiGraph, NodeId

Catalogue: TypeAlias = Mapping[str, Mapping[str, JsonValue]]
"""ComfyUI's /object_info as it stands: class name -> its inputs, outputs, whether it is an output node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """Names a file of the job that must be in the engine's input folder before the prompt starts.

    The engine uploads the file into this job's own folder, and submits the graph with the name that the server
    answered, in `node_id`'s input `input_name`.
    """

    node_id: NodeId
    input_name: str
    path: Path
    # Names the folder in the engine: the same file has the same name there, which saved files hold in their metadata.
    digest: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Holds one submission: a graph, our own lower-case UUID, and the files it loads."""

    prompt_id: str
    graph: ApiGraph
    inputs: tuple[InputFile, ...] = ()
    # Goes with the graph (`extra_pnginfo`, `api_key_comfy_org`); it may hold secrets, so never log it.
    extra_data: Mapping[str, JsonValue] = field(default_factory=dict)
    # Is in the names of the files that the graph saves, so that files that no node reports can be found.
    mark: str | None = None
    # Whether `PreviewMade` may be among its events. (Newer engines make previews only if extra_data asks for them.)
    with_previews: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """Reports that the prompt waits behind `ahead` others."""

    ahead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Reports that the engine took the prompt; `cached` nodes will not run."""

    cached: frozenset[NodeId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted:
    """Reports that a node began at `at_s` (seconds of the monotonic clock, when we heard of it)."""

    node_id: NodeId
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProgress:
    """Reports that a node is at `value` of `maximum` steps."""

    node_id: NodeId
    value: float
    maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFinished:
    """Reports that a node ended at `at_s`."""

    node_id: NodeId
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Reports what a user should know though the prompt goes on (a dropped output branch, a silent node)."""

    message: str
    node_id: NodeId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewMade:
    """Brings a picture of what a node is making (JPEG or PNG); `node_id` is None if the engine leaves it out."""

    node_id: NodeId | None
    content_type: str
    data: bytes


EngineEvent: TypeAlias = Queued | Started | NodeStarted | NodeProgress | NodeFinished | Warned | PreviewMade

Folder = Literal["output", "temp", "input"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOutput:
    """Names a file that a node of a prompt produced, still in the engine."""

    node_id: NodeId
    # The list it was reported under: `images`, `gifs`, `audio`, `3d`, ...
    key: str
    filename: str
    subfolder: str
    folder: Folder
    # Streams the file's bytes.
    read: Callable[[], AsyncIterator[bytes]]
    # Set if the engine's folder is on this machine, so that bytes need not pass through HTTP.
    path: Path | None = None


async def _nothing_to_clear() -> None:
    """Remove nothing: the engine's disk is not this machine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOutputs:
    """Holds all a finished prompt left: files in the order of the history, then those that no node reported."""

    files: tuple[EngineOutput, ...] = ()
    texts: Mapping[NodeId, tuple[str, ...]] = field(default_factory=dict)
    cached: frozenset[NodeId] = frozenset()
    # Removes from this machine what the prompt left; to be called once the outputs are delivered, or will not be.
    clear: Callable[[], Awaitable[None]] = _nothing_to_clear
    # What a user should know about how the outputs were found.
    warnings: tuple[str, ...] = ()
    # Nodes that the engine's cache answered with files that another submission saved, so their metadata is that one's.
    foreign: frozenset[NodeId] = frozenset()


class Engine(Protocol):
    """Runs prompts as ComfyUI does."""

    async def catalogue(self) -> Catalogue:
        """Return the node classes this engine has, as /object_info gives them. Raises `EngineError`."""

    async def submit(self, prompt: Prompt) -> None:
        """Upload the inputs and queue the prompt. Raises `WorkflowRejected` (nothing queued) or `EngineError`."""

    def events(self, prompt_id: str) -> AsyncGenerator[EngineEvent, None]:
        """Yield what happens to a submitted prompt, in order, until it succeeded and its history is written.

        Raises `NodeFailed`, `PromptInterrupted`, `PromptLost`, or `EngineError` (`EngineCrashed` when it died).
        """

    async def outputs(self, prompt_id: str) -> PromptOutputs:
        """Return what a prompt that succeeded produced. Raises `EngineError`."""

    async def cancel(self, prompt_id: str) -> None:
        """Take the prompt out of the queue, or interrupt it if it runs; no error if it has already ended."""
