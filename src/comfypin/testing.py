"""Provides fakes that keep the promises of the seams they stand for: they pass the same contract suites as the real
ones.
"""

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from comfypin.digest import JsonValue, canonical_json
from comfypin.engine.errors import EngineCrashed, NodeFailed, OutputGone, PromptInterrupted, PromptLost
from comfypin.engine.interface import (
    Catalogue,
    EngineEvent,
    EngineOutput,
    NodeFinished,
    NodeStarted,
    Prompt,
    PromptOutputs,
    Queued,
    Started,
)
from comfypin.storage.memory import MemoryStore  # noqa: F401 - offered here, with the other fakes
from comfypin.workflow.errors import NodeProblem, WorkflowRejected
from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode, NodeId

# One pixel: the smallest picture that every reader accepts.
PIXEL_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"
)

_INT: JsonValue = ["INT", {"default": 64, "min": 1, "max": 16384, "step": 1}]
FAKE_CATALOGUE: Catalogue = {
    "EmptyImage": {
        "input": {"required": {"width": _INT, "height": _INT, "batch_size": _INT, "color": ["INT", {"default": 0}]}},
        "output": ["IMAGE"],
        "output_node": False,
    },
    "LoadImage": {
        "input": {"required": {"image": [[], {"image_upload": True}]}},
        "output": ["IMAGE", "MASK"],
        "output_node": False,
    },
    "ImageInvert": {"input": {"required": {"image": ["IMAGE"]}}, "output": ["IMAGE"], "output_node": False},
    "SaveImage": {
        "input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "ComfyUI"}]}},
        "output": [],
        "output_node": True,
    },
    "PreviewImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True},
}


@dataclass(slots=True)
class _Submission:
    """A submitted prompt, and how far it is."""

    prompt: Prompt
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    outputs: PromptOutputs | None = None


class FakeEngine:
    """An `Engine` without a process: it refuses, fails, crashes and waits as it is told, and else saves one pixel.

    `rejects` and `fails`: what is wrong with a node, by id. `holds`: the node at which a prompt waits until it is
    cancelled. `crashes`: how many prompts, from the first, die with the engine. `texts`: what output nodes say.
    Afterwards `prompts` are those that were submitted and `cancelled` the ids of those that were cancelled.
    """

    def __init__(
        self,
        *,
        rejects: Mapping[NodeId, str] | None = None,
        fails: Mapping[NodeId, str] | None = None,
        holds: NodeId | None = None,
        crashes: int = 0,
        texts: Mapping[NodeId, Sequence[str]] | None = None,
        catalogue: Catalogue = FAKE_CATALOGUE,
    ) -> None:
        self.prompts: list[Prompt] = []
        self.cancelled: list[str] = []
        self._rejects = dict(rejects or {})
        self._fails = dict(fails or {})
        self._holds = holds
        self._crashes = crashes
        self._texts = {node_id: tuple(output_texts) for node_id, output_texts in (texts or {}).items()}
        self._catalogue = catalogue
        self._submissions: dict[str, _Submission] = {}
        self._finished: dict[bytes, PromptOutputs] = {}
        self._running = asyncio.Lock()
        self._waiting = 0
        self._saved: dict[str, int] = {}

    async def catalogue(self) -> Catalogue:
        """Return the classes that it was made with."""
        return self._catalogue

    async def submit(self, prompt: Prompt) -> None:
        """Check the graph as far as a fake can, and take it."""
        problems = tuple(self._find_problems(prompt.graph))
        if problems:
            raise WorkflowRejected(reason="Prompt outputs failed validation", problems=problems)
        self.prompts.append(prompt)
        self._submissions[prompt.prompt_id] = _Submission(prompt)

    async def events(self, prompt_id: str) -> AsyncGenerator[EngineEvent, None]:
        """Run the prompt while it is followed."""
        submission = self._find_submission(prompt_id)
        if submission.outputs is None and self._running.locked():
            yield Queued(ahead=1 + self._waiting)
        self._waiting += 1
        try:
            await self._running.acquire()
        finally:
            self._waiting -= 1
        try:
            if submission.outputs is None:
                async for event in self._run_prompt(submission):
                    yield event
        finally:
            self._running.release()

    async def outputs(self, prompt_id: str) -> PromptOutputs:
        """Return what the prompt saved."""
        outputs = self._find_submission(prompt_id).outputs
        if outputs is None:
            raise PromptLost(prompt_id=prompt_id)
        return outputs

    async def cancel(self, prompt_id: str) -> None:
        """Stop the prompt, if there is one that has not ended."""
        submission = self._submissions.get(prompt_id)
        if submission is not None and submission.outputs is None:
            self.cancelled.append(prompt_id)
            submission.cancelled.set()

    def _find_submission(self, prompt_id: str) -> _Submission:
        submission = self._submissions.get(prompt_id)
        if submission is None:
            raise PromptLost(prompt_id=prompt_id)
        return submission

    async def _run_prompt(self, submission: _Submission) -> AsyncGenerator[EngineEvent, None]:
        graph = submission.prompt.graph
        # Equal graphs are answered from the cache, as ComfyUI does.
        graph_json = canonical_json(graph.to_api())
        known_outputs = self._finished.get(graph_json)
        cached = frozenset(graph.nodes) if known_outputs is not None else frozenset[NodeId]()
        yield Started(cached=cached)
        for graph_node in () if known_outputs is not None else _nodes_in_order(graph):
            yield NodeStarted(node_id=graph_node.id, at_s=time.monotonic())
            await self._execute_node(submission, graph_node)
            yield NodeFinished(node_id=graph_node.id, at_s=time.monotonic())
        submission.outputs = (
            replace(known_outputs, cached=cached) if known_outputs is not None else self._save_outputs(graph)
        )
        self._finished[graph_json] = submission.outputs

    async def _execute_node(self, submission: _Submission, graph_node: ApiNode) -> None:
        prompt_id = submission.prompt.prompt_id
        if graph_node.id == self._holds:
            await submission.cancelled.wait()
        if submission.cancelled.is_set():
            raise PromptInterrupted(prompt_id=prompt_id, node_id=graph_node.id)
        if self._crashes > 0:
            self._crashes -= 1
            raise EngineCrashed(reason="killed by SIGKILL (exit code 137)", log_tail=("the last line",))
        if graph_node.id in self._fails:
            raise NodeFailed(
                node_id=graph_node.id,
                class_type=graph_node.class_type,
                exception_type="RuntimeError",
                message=self._fails[graph_node.id],
            )
        # Lets other tasks run, as a real engine would between nodes.
        await asyncio.sleep(0)

    def _find_problems(self, graph: ApiGraph) -> Iterator[NodeProblem]:
        for graph_node in graph.nodes.values():
            known_outputs = self._catalogue.get(graph_node.class_type)
            if graph_node.id in self._rejects:
                yield _make_problem(graph_node, "custom_validation_failed", self._rejects[graph_node.id])
            elif known_outputs is None:
                yield _make_problem(graph_node, "invalid_prompt", f"node {graph_node.class_type} does not exist")
            else:
                inputs = known_outputs.get("input")
                required = inputs.get("required") if isinstance(inputs, Mapping) else None
                for file_name in required if isinstance(required, Mapping) else ():
                    if file_name not in graph_node.inputs:
                        yield _make_problem(
                            graph_node, "required_input_missing", "Required input is missing", file_name
                        )

    def _save_outputs(self, graph: ApiGraph) -> PromptOutputs:
        files = tuple(
            self._save_file(graph_node) for graph_node in graph.nodes.values() if graph_node.class_type in _SAVERS
        )
        return PromptOutputs(files=files, texts=self._texts)

    def _save_file(self, graph_node: ApiNode) -> EngineOutput:
        prefix = str(graph_node.inputs.get("filename_prefix", "ComfyUI_temp"))
        subfolder, _, file_name = prefix.rpartition("/")
        self._saved[prefix] = self._saved.get(prefix, 0) + 1
        return fake_output(
            PIXEL_PNG,
            node_id=graph_node.id,
            filename=f"{file_name}_{self._saved[prefix]:05}_.png",
            subfolder=subfolder,
            temporary=graph_node.class_type == "PreviewImage",
        )


_SAVERS = frozenset({"SaveImage", "PreviewImage"})


def fake_output(
    data: bytes | None,
    *,
    node_id: NodeId = "9",
    key: str = "images",
    filename: str = "ComfyUI_00001_.png",
    subfolder: str = "",
    temporary: bool = False,
) -> EngineOutput:
    """Return an output with these bytes; with None, one that its engine has lost."""

    async def read() -> AsyncIterator[bytes]:
        if data is None:
            raise OutputGone(node_id=node_id, filename=filename)
        yield data

    return EngineOutput(
        node_id=node_id,
        key=key,
        filename=filename,
        subfolder=subfolder,
        folder="temp" if temporary else "output",
        read=read,
    )


def _make_problem(graph_node: ApiNode, code: str, message: str, input_name: str | None = None) -> NodeProblem:
    return NodeProblem(
        node_id=graph_node.id, class_type=graph_node.class_type, problem=code, message=message, input_name=input_name
    )


def _nodes_in_order(graph: ApiGraph) -> Iterator[ApiNode]:
    """Yield the nodes, each after those that feed its inputs."""
    done: set[NodeId] = set()

    def visit_node(graph_node: ApiNode) -> Iterator[ApiNode]:
        if graph_node.id not in done:
            done.add(graph_node.id)
            for input_value in graph_node.inputs.values():
                if isinstance(input_value, ApiLink) and input_value.node_id in graph.nodes:
                    yield from visit_node(graph.nodes[input_value.node_id])
            yield graph_node

    for graph_node in graph.nodes.values():
        yield from visit_node(graph_node)
