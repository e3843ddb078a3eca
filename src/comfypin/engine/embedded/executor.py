"""Runs a prompt's nodes in order, each over its lists of values, and reports what happens."""

import logging
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from comfypin.digest import JsonValue
from comfypin.engine.embedded.declare import NodeClass, NodeContext, NodeValue, ShownResult
from comfypin.engine.embedded.dynamic_inputs import ResolvedInputs, resolve_inputs
from comfypin.engine.embedded.event_hub import WebsocketHub
from comfypin.engine.embedded.execution_order import ExecutionOrder, is_link
from comfypin.engine.embedded.folders import EngineFolders
from comfypin.engine.embedded.messages import ProgressState, node_meta, timestamp_ms
from comfypin.engine.embedded.previews import draw_preview, message_with_metadata, plain_message
from comfypin.engine.embedded.queue import EndedPrompt, QueuedPrompt
from comfypin.engine.embedded.result_cache import CachedResult, ResultCache, compute_fingerprints, compute_signatures
from comfypin.engine.embedded.show_values import show_value
from comfypin.engine.embedded.validate import exception_name

log = logging.getLogger(__name__)

# As ComfyUI has them; "none" and "default" mean no previews here.
_PREVIEW_METHODS = ("auto", "latent2rgb", "taesd")
# As often as anybody looks.
_PREVIEW_EVERY_S = 0.25


class ExecutionInterrupted(Exception):
    """Raised when the prompt was interrupted."""


@dataclass
class Executor:
    """Runs prompts one after the other on the caller's thread; any thread may call `interrupt`."""

    classes: Mapping[str, NodeClass]
    folders: EngineFolders
    hub: WebsocketHub
    metadata: bool = True
    caching: bool = True
    _cache: ResultCache = field(default_factory=ResultCache)
    _interrupted: threading.Event = field(default_factory=threading.Event)

    def run_prompt(self, prompt: QueuedPrompt) -> EndedPrompt:
        """Run a prompt until it succeeds or fails."""
        self._interrupted.clear()
        try:
            return _PromptRun(self, prompt).run_nodes()
        finally:
            self.hub.executing = None

    def interrupt(self) -> None:
        """Stop the running prompt at the next node, or sooner in a long one."""
        self._interrupted.set()

    def check_interrupted(self) -> None:
        """Raise `ExecutionInterrupted` if somebody interrupted the prompt."""
        if self._interrupted.is_set():
            # Taken once: the next prompt must not end by it.
            self._interrupted.clear()
            raise ExecutionInterrupted

    def forget_results(self) -> None:
        """Drop every kept result."""
        self._cache.clear_results()

    @property
    def cache(self) -> ResultCache:
        """Return what earlier prompts left."""
        return self._cache


class _PromptRun:
    """Runs one prompt and collects its messages, its results and what it shows."""

    def __init__(self, executor: Executor, prompt: QueuedPrompt) -> None:
        self._executor = executor
        self._prompt = prompt
        self._graph: dict[str, Any] = dict(prompt.graph)
        self._shown_graph = self._graph  # with fingerprints, as ComfyUI writes it into pictures
        self._progress = ProgressState(prompt.prompt_id, prompt.client_id, executor.hub.send_event)
        self._messages: list[tuple[str, Mapping[str, JsonValue]]] = []
        self._executed: list[str] = []
        self._shown: dict[str, CachedResult] = {}
        self._signatures: dict[str, str] = {}
        self._previewed_at_s = float("-inf")

    def run_nodes(self) -> EndedPrompt:
        """Run the nodes that the outputs need, until all are done or one fails."""
        self._record_message("execution_start", {})
        node_fingerprints = compute_fingerprints(self._graph, self._executor.classes, self._executor.folders)
        self._signatures = compute_signatures(self._graph, node_fingerprints)
        self._shown_graph = self._graph | {
            node_id: {**self._graph[node_id], "is_changed": [fingerprint]}
            for node_id, fingerprint in node_fingerprints.items()
        }
        # Before the run, as in ComfyUI: what this prompt cannot use is dropped even if the prompt fails.
        self._executor.cache.keep_only(self._signatures.values() if self._executor.caching else ())
        cached = [node_id for node_id in self._graph if self._cached_result(node_id) is not None]
        self._record_message("execution_cached", {"nodes": cached})
        execution_order = ExecutionOrder(
            self._graph,
            self._prompt.outputs,
            is_cached=lambda node_id: self._cached_result(node_id) is not None,
            is_output=lambda node_id: self._class_of(node_id).is_output,
            is_lazy=self._is_lazy,
        )
        while (node_id := execution_order.take_next()) is not None:
            if self._cached_result(node_id) is None and (missing := self._missing_sources(node_id)):
                execution_order.require_sources(node_id, missing)
                continue
            if not self._run_node(node_id):
                return self._end_run("error")
            execution_order.mark_done(node_id)
        self._progress.flush()
        self._record_message("execution_success", {})
        return self._end_run("success")

    def _run_node(self, node_id: str) -> bool:
        """Run a node, or reuse its kept result; return False if the prompt ends here."""
        cached_result = self._cached_result(node_id)
        if cached_result is not None:
            self._show_result(node_id, cached_result)
            self._progress.update_node(node_id, "finished", 1.0, 1.0)
            return True
        inputs: dict[str, list[NodeValue]] = {}
        try:
            # Filled in place, so that the failure below shows what was collected before it.
            inputs |= self._collect_inputs(node_id)
            self._begin_node(node_id)
            self._executor.check_interrupted()
            self._finish_node(node_id, self._call_function(node_id, inputs))
        except ExecutionInterrupted:
            # ComfyUI broadcasts an interruption: whoever asked for it is often another client.
            self._record_message("execution_interrupted", self._describe_node(node_id), to_all=True)
            return False
        except Exception as problem:
            log.exception("node failed", extra={"action": "node_failed", "node_id": node_id})
            self._record_message("execution_error", self._describe_failure(node_id, inputs, problem))
            return False
        return True

    def _begin_node(self, node_id: str) -> None:
        self._progress.update_node(node_id, "running", 0.0, 1.0)
        if self._prompt.client_id is not None:
            self._executor.hub.executing = (self._prompt.client_id, node_id)
            self._send_event("executing", {"node": node_id, "display_node": node_id})

    def _finish_node(self, node_id: str, cached_result: CachedResult) -> None:
        if cached_result.shown is not None:
            self._show_result(node_id, cached_result)
        self._executor.cache.store_result(self._signatures[node_id], cached_result)
        self._executed.append(node_id)
        self._show_preview(node_id, cached_result)
        self._progress.update_node(node_id, "finished", 1.0, 1.0)

    def _show_preview(self, node_id: str, cached_result: CachedResult) -> None:
        """Send a preview of a picture that a node has made, if the prompt asks for previews and somebody listens."""
        client_id, hub = self._prompt.client_id, self._executor.hub
        if self._prompt.extra_data.get("preview_method") not in _PREVIEW_METHODS or not hub.is_listening(client_id):
            return
        if client_id is None or time.monotonic() - self._previewed_at_s < _PREVIEW_EVERY_S:
            return
        outputs = zip(self._class_of(node_id).outputs, cached_result.slots, strict=False)
        pictures = next((values for kind, values in outputs if kind == "IMAGE" and values), None)
        if pictures is None or not isinstance(pictures[0], np.ndarray):
            return
        self._previewed_at_s = time.monotonic()
        jpeg = draw_preview(pictures[0])
        hub.send_preview(
            plain=plain_message(jpeg),
            with_metadata=message_with_metadata(jpeg, node_id=node_id, prompt_id=self._prompt.prompt_id),
            client_id=client_id,
        )

    def _show_result(self, node_id: str, cached_result: CachedResult) -> None:
        if self._prompt.client_id is not None:
            # ComfyUI sends this for cached nodes too, with `null` if they show nothing.
            self._send_event("executed", {"node": node_id, "display_node": node_id, "output": cached_result.shown})
        if cached_result.shown is not None:
            self._shown[node_id] = cached_result

    def _is_lazy(self, node_id: str, input_name: str) -> bool:
        return any(node_input.is_lazy for node_input in self._class_of(node_id).inputs if node_input.name == input_name)

    def _missing_sources(self, node_id: str) -> list[str]:
        """Return the nodes that must run before this one can, because its lazy inputs are linked to them."""
        missing_inputs = self._class_of(node_id).missing_inputs
        if missing_inputs is None:
            return []
        values = {input_name: sources[0] for input_name, sources in self._collect_inputs(node_id).items() if sources}
        given_inputs = self._graph[node_id]["inputs"]
        linked = [
            given_inputs[input_name][0]
            for input_name in missing_inputs(values)
            if is_link(given_inputs.get(input_name))
        ]
        return [source for source in linked if self._cached_result(source) is None]

    def _collect_inputs(self, node_id: str) -> dict[str, list[NodeValue]]:
        """Return the values of each input that the graph gives; None for a lazy one whose source has not run."""
        given_inputs = self._graph[node_id]["inputs"]
        node_class = self._class_of(node_id)
        declared = {
            node_input.name: node_input for node_input in resolve_inputs(node_class.inputs, given_inputs).node_inputs()
        }
        inputs: dict[str, list[NodeValue]] = {}
        for input_name in given_inputs if node_class.takes_any_input else declared:
            if input_name not in given_inputs:
                continue
            value = given_inputs[input_name]
            if is_link(value):
                cached_result = self._cached_result(value[0])
                lazy = input_name in declared and declared[input_name].is_lazy
                assert cached_result is not None or lazy, f"node {value[0]} has not run before {node_id}"
                inputs[input_name] = [None] if cached_result is None else cached_result.slots[value[1]]
            else:
                inputs[input_name] = [value]
        return inputs

    def _call_function(self, node_id: str, inputs: Mapping[str, list[NodeValue]]) -> CachedResult:
        """Call a node's function once for each set of values, and join the results."""
        node_class = self._class_of(node_id)
        context = self._make_context(node_id)
        resolved = resolve_inputs(node_class.inputs, self._graph[node_id]["inputs"])
        self._check_arguments(node_class, node_id, resolved)
        results = []
        # As in ComfyUI: a list runs the node once for each item, unless the node asks for whole lists.
        for values in [dict(inputs)] if node_class.takes_lists else _split_calls(inputs):
            self._executor.check_interrupted()
            arguments = (
                {**values, **resolved.call_arguments(values)}
                if node_class.takes_any_input
                else resolved.call_arguments(values)
            )
            results.append(node_class.run(context, **arguments))
        values_of = [result.values if isinstance(result, ShownResult) else result for result in results]
        lists = node_class.output_lists or (False,) * len(node_class.outputs)
        slots = tuple(
            _join_values([values[slot] for values in values_of], is_list) for slot, is_list in enumerate(lists)
        )
        ui_results = [result.ui for result in results if isinstance(result, ShownResult)]
        merged = {key: [item for ui in ui_results for item in ui[key]] for key in ui_results[0]} if ui_results else None
        return CachedResult(slots=slots, shown=merged, meta=node_meta(node_id))

    def _check_arguments(self, node_class: NodeClass, node_id: str, resolved: ResolvedInputs) -> None:
        """Raise `TypeError`, in ComfyUI's words, if the node's function would not take the arguments.

        ComfyUI passes every link, known or not, and no earlier check misses an input that depends on a choice.
        """
        given_inputs = self._graph[node_id]["inputs"]
        known = {member.input.name for member in resolved.members}
        unknown = [
            input_name for input_name, value in given_inputs.items() if is_link(value) and input_name not in known
        ]
        if unknown and not node_class.takes_any_input:
            raise TypeError(f"{node_class.name}.execute() got an unexpected keyword argument '{unknown[0]}'")
        groups = {member.path[0] for member in resolved.members} | {path[0] for path in resolved.empty_groups}
        missing = [each.name for each in node_class.inputs if not each.optional and each.name not in groups]
        if missing:
            raise TypeError(f"{node_class.name}.execute() missing 1 required positional argument: '{missing[0]}'")

    def _make_context(self, node_id: str) -> NodeContext:
        executor = self._executor
        extra = self._prompt.extra_data.get("extra_pnginfo")
        return NodeContext(
            folders=executor.folders,
            node_id=node_id,
            check_interrupted=executor.check_interrupted,
            report_progress=lambda value, maximum: self._node_progress(node_id, value, maximum),
            graph=self._shown_graph,
            extra_pnginfo=extra if isinstance(extra, dict) else None,
            metadata=executor.metadata,
        )

    def _node_progress(self, node_id: str, value: int, maximum: int) -> None:
        self._executor.check_interrupted()
        self._progress.update_node(node_id, "running", value, maximum)
        prompt_id, client_id = self._prompt.prompt_id, self._prompt.client_id
        progress_data: dict[str, JsonValue] = {"value": value, "max": maximum, "prompt_id": prompt_id, "node": node_id}
        self._executor.hub.send_event("progress", progress_data, client_id)

    def _cached_result(self, node_id: str) -> CachedResult | None:
        signature = self._signatures.get(node_id)
        return None if signature is None else self._executor.cache.find_result(signature)

    def _class_of(self, node_id: str) -> NodeClass:
        return self._executor.classes[self._graph[node_id]["class_type"]]

    def _describe_node(self, node_id: str) -> dict[str, JsonValue]:
        class_type = self._graph[node_id]["class_type"]
        return {"node_id": node_id, "node_type": class_type, "executed": list(self._executed)}

    def _describe_failure(
        self, node_id: str, inputs: Mapping[str, list[NodeValue]], exception: Exception
    ) -> dict[str, JsonValue]:
        return self._describe_node(node_id) | {
            # The newline is ComfyUI's.
            "exception_message": f"{exception}\n",
            "exception_type": exception_name(exception),
            "traceback": traceback.format_tb(exception.__traceback__),
            "current_inputs": {
                input_name: [show_value(value) for value in values] for input_name, values in inputs.items()
            },
            "current_outputs": list(self._graph),
        }

    def _record_message(self, event: str, event_data: Mapping[str, JsonValue], *, to_all: bool = False) -> None:
        """Add a message to the history, and send it to the client that submitted the prompt."""
        message = {"prompt_id": self._prompt.prompt_id, **event_data, "timestamp": timestamp_ms()}
        self._messages.append((event, message))
        if self._prompt.client_id is not None or to_all:
            self._executor.hub.send_event(event, message, self._prompt.client_id)

    def _send_event(self, event: str, event_data: Mapping[str, JsonValue]) -> None:
        self._executor.hub.send_event(
            event, {**event_data, "prompt_id": self._prompt.prompt_id}, self._prompt.client_id
        )

    def _end_run(self, status: str) -> EndedPrompt:
        return EndedPrompt(
            status="success" if status == "success" else "error",
            messages=tuple(self._messages),
            outputs={node_id: shown_output.shown for node_id, shown_output in self._shown.items()},
            meta={node_id: shown_output.meta for node_id, shown_output in self._shown.items()},
        )


def _split_calls(inputs: Mapping[str, list[NodeValue]]) -> list[dict[str, NodeValue]]:
    """Return one set of values for each call: lists side by side, shorter ones repeating their last value."""
    # A node runs once for each value of its longest list; a node without inputs runs once.
    count = max((len(values) for values in inputs.values()), default=1)
    return [
        {input_name: values[min(index, len(values) - 1)] for input_name, values in inputs.items()}
        for index in range(count)
    ]


def _join_values(values: list[Any], is_list: bool) -> list[NodeValue]:  # noqa: FBT001
    return [item for value in values for item in value] if is_list else values
