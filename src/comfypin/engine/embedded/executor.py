"""Running one prompt: its nodes in order, each over its lists of values, and telling what happens."""

import logging
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfypin.digest import JsonValue
from comfypin.engine.embedded.cache import Kept, ResultCache, fingerprints, signatures
from comfypin.engine.embedded.declare import Call, NodeClass, Shown, Value
from comfypin.engine.embedded.dynamic import OpenInputs, open_inputs
from comfypin.engine.embedded.folders import Folders
from comfypin.engine.embedded.hub import Hub
from comfypin.engine.embedded.messages import ProgressState, meta_of, timestamp_ms
from comfypin.engine.embedded.order import ExecutionOrder, is_link
from comfypin.engine.embedded.queue import Ended, QueuedPrompt
from comfypin.engine.embedded.show import show_value
from comfypin.engine.embedded.validate import full_name

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """The prompt was interrupted."""


@dataclass
class Executor:
    """Runs prompts one after the other on the caller's thread; `interrupt` may be called from any."""

    classes: Mapping[str, NodeClass]
    folders: Folders
    hub: Hub
    metadata: bool = True
    caching: bool = True
    _cache: ResultCache = field(default_factory=ResultCache)
    _interrupted: threading.Event = field(default_factory=threading.Event)

    def run(self, prompt: QueuedPrompt) -> Ended:
        """Run a prompt to its end, whatever that is."""
        self._interrupted.clear()
        try:
            return _Run(self, prompt).run()
        finally:
            self.hub.executing = None

    def interrupt(self) -> None:
        """Stop the running prompt at the next node, or sooner in a long one."""
        self._interrupted.set()

    def check(self) -> None:
        """Raise `Interrupted` where that was asked for."""
        if self._interrupted.is_set():
            self._interrupted.clear()
            raise Interrupted

    def forget(self) -> None:
        """Drop every kept result."""
        self._cache.clear()

    @property
    def cache(self) -> ResultCache:
        """What earlier prompts left."""
        return self._cache


class _Run:
    def __init__(self, executor: Executor, prompt: QueuedPrompt) -> None:
        self._executor = executor
        self._prompt = prompt
        self._graph: dict[str, Any] = dict(prompt.graph)
        self._told_graph = self._graph  # with fingerprints, as ComfyUI writes it into pictures
        self._progress = ProgressState(prompt.prompt_id, prompt.client_id, executor.hub.send)
        self._messages: list[tuple[str, Mapping[str, JsonValue]]] = []
        self._executed: list[str] = []
        self._shown: dict[str, Kept] = {}
        self._signatures: dict[str, str] = {}

    def run(self) -> Ended:
        self._tell("execution_start", {})
        prints = fingerprints(self._graph, self._executor.classes, self._executor.folders)
        self._signatures = signatures(self._graph, prints)
        self._told_graph = self._graph | {
            node_id: {**self._graph[node_id], "is_changed": [each]} for node_id, each in prints.items()
        }
        self._executor.cache.keep_only(self._signatures.values() if self._executor.caching else ())
        cached = [node_id for node_id in self._graph if self._cached(node_id) is not None]
        self._tell("execution_cached", {"nodes": cached})
        order = ExecutionOrder(
            self._graph,
            self._prompt.outputs,
            is_cached=lambda node_id: self._cached(node_id) is not None,
            is_output=lambda node_id: self._class_of(node_id).is_output,
            is_lazy=self._is_lazy,
        )
        while (node_id := order.take()) is not None:
            if self._cached(node_id) is None and (lacking := self._lacking(node_id)):
                order.demand(node_id, lacking)
                continue
            if not self._step(node_id):
                return self._ended("error")
            order.done(node_id)
        self._progress.flush()
        self._tell("execution_success", {})
        return self._ended("success")

    def _step(self, node_id: str) -> bool:
        """Run a node, or take its kept result; False where the prompt ends here."""
        kept = self._cached(node_id)
        if kept is not None:
            self._show(node_id, kept)
            self._progress.update(node_id, "finished", 1.0, 1.0)
            return True
        inputs: dict[str, list[Value]] = {}
        try:
            inputs |= self._inputs_of(node_id)
            self._begin(node_id)
            self._executor.check()
            self._finish(node_id, self._call(node_id, inputs))
        except Interrupted:
            self._tell("execution_interrupted", self._where(node_id), to_all=True)
            return False
        except Exception as problem:
            log.exception("node failed", extra={"action": "node_failed", "node_id": node_id})
            self._tell("execution_error", self._failure(node_id, inputs, problem))
            return False
        return True

    def _begin(self, node_id: str) -> None:
        self._progress.update(node_id, "running", 0.0, 1.0)
        if self._prompt.client_id is not None:
            self._executor.hub.executing = (self._prompt.client_id, node_id)
            self._send("executing", {"node": node_id, "display_node": node_id})

    def _finish(self, node_id: str, kept: Kept) -> None:
        if kept.shown is not None:
            self._show(node_id, kept)
        self._executor.cache.put(self._signatures[node_id], kept)
        self._executed.append(node_id)
        self._progress.update(node_id, "finished", 1.0, 1.0)

    def _show(self, node_id: str, kept: Kept) -> None:
        if self._prompt.client_id is not None:
            self._send("executed", {"node": node_id, "display_node": node_id, "output": kept.shown})
        if kept.shown is not None:
            self._shown[node_id] = kept

    def _is_lazy(self, node_id: str, name: str) -> bool:
        return any(each.lazy for each in self._class_of(node_id).inputs if each.name == name)

    def _lacking(self, node_id: str) -> list[str]:
        """Return the nodes that must run before this one can, because its lazy inputs are linked to them."""
        tell = self._class_of(node_id).lacking
        if tell is None:
            return []
        values = {name: each[0] for name, each in self._inputs_of(node_id).items() if each}
        given = self._graph[node_id]["inputs"]
        linked = [given[name][0] for name in tell(values) if is_link(given.get(name))]
        return [source for source in linked if self._cached(source) is None]

    def _inputs_of(self, node_id: str) -> dict[str, list[Value]]:
        """Return the values of each input that the graph gives; None for a lazy one whose source has not run."""
        given = self._graph[node_id]["inputs"]
        kind = self._class_of(node_id)
        declared = {each.name: each for each in open_inputs(kind.inputs, given).inputs()}
        inputs: dict[str, list[Value]] = {}
        for name in given if kind.takes_any_input else declared:
            if name not in given:
                continue
            value = given[name]
            if is_link(value):
                kept = self._cached(value[0])
                lazy = name in declared and declared[name].lazy
                assert kept is not None or lazy, f"node {value[0]} has not run before {node_id}"
                inputs[name] = [None] if kept is None else kept.slots[value[1]]
            else:
                inputs[name] = [value]
        return inputs

    def _call(self, node_id: str, inputs: Mapping[str, list[Value]]) -> Kept:
        kind = self._class_of(node_id)
        call = self._call_context(node_id)
        opened = open_inputs(kind.inputs, self._graph[node_id]["inputs"])
        self._refuse_call(kind, node_id, opened)
        results = []
        for values in [dict(inputs)] if kind.takes_lists else _slices(inputs):
            self._executor.check()
            arguments = {**values, **opened.arguments(values)} if kind.takes_any_input else opened.arguments(values)
            results.append(kind.run(call, **arguments))
        values_of = [result.values if isinstance(result, Shown) else result for result in results]
        lists = kind.output_lists or (False,) * len(kind.outputs)
        slots = tuple(_joined([values[slot] for values in values_of], flat) for slot, flat in enumerate(lists))
        shown = [result.ui for result in results if isinstance(result, Shown)]
        together = {key: [item for ui in shown for item in ui[key]] for key in shown[0]} if shown else None
        return Kept(slots=slots, shown=together, meta=meta_of(node_id))

    def _refuse_call(self, kind: NodeClass, node_id: str, opened: OpenInputs) -> None:
        """Raise `TypeError`, in the words of ComfyUI, for arguments that its function would not take.

        It hands over every link, known or not; and an input that depends on a choice is never missed before.
        """
        given = self._graph[node_id]["inputs"]
        known = {each.input.name for each in opened.members}
        unknown = [name for name, value in given.items() if is_link(value) and name not in known]
        if unknown and not kind.takes_any_input:
            raise TypeError(f"{kind.name}.execute() got an unexpected keyword argument '{unknown[0]}'")
        groups = {each.path[0] for each in opened.members} | {path[0] for path in opened.empty}
        missing = [each.name for each in kind.inputs if not each.optional and each.name not in groups]
        if missing:
            raise TypeError(f"{kind.name}.execute() missing 1 required positional argument: '{missing[0]}'")

    def _call_context(self, node_id: str) -> Call:
        executor = self._executor
        extra = self._prompt.extra_data.get("extra_pnginfo")
        return Call(
            folders=executor.folders,
            node_id=node_id,
            check=executor.check,
            progress=lambda value, maximum: self._node_progress(node_id, value, maximum),
            graph=self._told_graph,
            extra_pnginfo=extra if isinstance(extra, dict) else None,
            metadata=executor.metadata,
        )

    def _node_progress(self, node_id: str, value: int, maximum: int) -> None:
        self._executor.check()
        self._progress.update(node_id, "running", value, maximum)
        prompt_id, client_id = self._prompt.prompt_id, self._prompt.client_id
        data: dict[str, JsonValue] = {"value": value, "max": maximum, "prompt_id": prompt_id, "node": node_id}
        self._executor.hub.send("progress", data, client_id)

    def _cached(self, node_id: str) -> Kept | None:
        signature = self._signatures.get(node_id)
        return None if signature is None else self._executor.cache.get(signature)

    def _class_of(self, node_id: str) -> NodeClass:
        return self._executor.classes[self._graph[node_id]["class_type"]]

    def _where(self, node_id: str) -> dict[str, JsonValue]:
        kind = self._graph[node_id]["class_type"]
        return {"node_id": node_id, "node_type": kind, "executed": list(self._executed)}

    def _failure(self, node_id: str, inputs: Mapping[str, list[Value]], problem: Exception) -> dict[str, JsonValue]:
        return self._where(node_id) | {
            "exception_message": f"{problem}\n",
            "exception_type": full_name(problem),
            "traceback": traceback.format_tb(problem.__traceback__),
            "current_inputs": {name: [show_value(each) for each in values] for name, values in inputs.items()},
            "current_outputs": list(self._graph),
        }

    def _tell(self, event: str, data: Mapping[str, JsonValue], *, to_all: bool = False) -> None:
        """Note a message for the history, and send it to who submitted the prompt."""
        message = {"prompt_id": self._prompt.prompt_id, **data, "timestamp": timestamp_ms()}
        self._messages.append((event, message))
        if self._prompt.client_id is not None or to_all:
            self._executor.hub.send(event, message, self._prompt.client_id)

    def _send(self, event: str, data: Mapping[str, JsonValue]) -> None:
        self._executor.hub.send(event, {**data, "prompt_id": self._prompt.prompt_id}, self._prompt.client_id)

    def _ended(self, status: str) -> Ended:
        return Ended(
            status="success" if status == "success" else "error",
            messages=tuple(self._messages),
            outputs={node_id: kept.shown for node_id, kept in self._shown.items()},
            meta={node_id: kept.meta for node_id, kept in self._shown.items()},
        )


def _slices(inputs: Mapping[str, list[Value]]) -> list[dict[str, Value]]:
    """One set of values for each call: lists side by side, shorter ones repeating their last value."""
    count = max((len(values) for values in inputs.values()), default=1)
    return [{name: values[min(index, len(values) - 1)] for name, values in inputs.items()} for index in range(count)]


def _joined(values: list[Any], flat: bool) -> list[Value]:  # noqa: FBT001
    return [item for value in values for item in value] if flat else values
