"""Connects the embedded engine's queue, its worker thread, and the websockets, without HTTP's routes."""

import logging
import threading
import traceback
from collections.abc import Mapping
from functools import cached_property

from comfypin.digest import JsonValue
from comfypin.engine.embedded.arguments import EngineArguments
from comfypin.engine.embedded.declare import NodeClass
from comfypin.engine.embedded.event_hub import WebsocketHub
from comfypin.engine.embedded.executor import Executor
from comfypin.engine.embedded.folders import EngineFolders
from comfypin.engine.embedded.messages import timestamp_ms
from comfypin.engine.embedded.queue import EndedPrompt, PromptQueue, QueuedPrompt
from comfypin.engine.embedded.validate import Validator, exception_name

log = logging.getLogger(__name__)

# A node looks for interrupts between rows of a picture; longer than this only a stuck one takes.
_STOP_S = 5.0


class EmbeddedEngine:
    """Accepts prompts at once and runs them one at a time."""

    def __init__(self, arguments: EngineArguments) -> None:
        self.arguments = arguments
        self.folders = EngineFolders(input=arguments.input, output=arguments.output, temp=arguments.temp)
        self.release = arguments.release
        self.flags: dict[str, JsonValue] = {
            "supports_preview_metadata": True,
            "max_upload_size": arguments.max_upload_bytes,
            **self.release.features,
        }
        self.queue = PromptQueue()
        self.hub = WebsocketHub(remaining=self.queue.count_unfinished, flags=self.flags)
        self.queue.set_listener(self.hub.send_status)
        self._accepted = 0
        self._thread = threading.Thread(target=self._run_queue, name="prompts", daemon=True)

    def start(self) -> None:
        """Start to run prompts. Needs a running event loop. The thread ends with the process."""
        self.folders.create_missing()
        self.hub.start()
        self._thread.start()

    def stop(self) -> None:
        """Interrupt what runs, and wait a while for the thread to end."""
        self.executor.interrupt()
        self.queue.request_chores({"stop"})
        self._thread.join(_STOP_S)

    @cached_property
    def node_classes(self) -> Mapping[str, NodeClass]:
        """Return the node classes. Loaded on first use, because they import NumPy."""
        from comfypin.engine.embedded.nodes.registry import node_classes_of

        return node_classes_of(self.release.version)

    @cached_property
    def executor(self) -> Executor:
        """Return the executor that runs prompts."""
        return Executor(
            classes=self.node_classes,
            folders=self.folders,
            hub=self.hub,
            metadata=self.arguments.metadata,
            caching=self.arguments.caching,
        )

    @cached_property
    def validator(self) -> Validator:
        """Return the validator that checks prompts."""
        return Validator(self.node_classes, self.folders, self.release)

    def warm_up(self) -> None:
        """Import what prompts need in the background, so that the first prompt does not wait for it."""
        self.queue.request_chores({"warm"})

    def next_number(self) -> int:
        """Return how many prompts were submitted before this one."""
        number = self._accepted
        self._accepted += 1
        return number

    def interrupt_prompt(self, prompt_id: str | None) -> None:
        """Stop the running prompt; if an id is given, only if that prompt runs."""
        running = self.queue.running_prompt()
        if running is not None and prompt_id in (None, running.prompt_id):
            self.executor.interrupt()

    def cancel_prompt(self, prompt_id: str) -> bool:
        """Stop a prompt if it runs, or take it out of the queue; return False if it does neither."""
        # Between the look and the interrupt another prompt could begin, and would be stopped instead.
        with self.queue.hold_prompts():
            if self.queue.delete_waiting(prompt_id):
                return True
            running = self.queue.running_prompt()
            if running is None or running.prompt_id != prompt_id:
                return False
            self.executor.interrupt()
            return True

    def _run_queue(self) -> None:
        while True:
            task = self.queue.take_next()
            if isinstance(task, QueuedPrompt):
                self._finish_task(task)
            elif "stop" in task:
                return
            elif "free" in task:
                self.executor.forget_results()
            else:
                log.debug("node classes ready", extra={"action": "warmed", "count": len(self.node_classes)})

    def _finish_task(self, task: QueuedPrompt) -> None:
        self.queue.finish_prompt(task, self._run_prompt(task))
        if task.client_id is not None:
            self.hub.send_event("executing", {"node": None, "prompt_id": task.prompt_id}, task.client_id)

    def _run_prompt(self, prompt: QueuedPrompt) -> EndedPrompt:
        """Run a prompt; even a graph that cannot be walked must not end the thread."""
        try:
            return self.executor.run_prompt(prompt)
        except Exception as problem:
            log.exception("prompt failed", extra={"action": "prompt_failed", "prompt_id": prompt.prompt_id})
            failure: dict[str, JsonValue] = {
                "prompt_id": prompt.prompt_id,
                "node_id": "",
                "node_type": "",
                "executed": [],
                "exception_message": str(problem),
                "exception_type": exception_name(problem),
                "traceback": traceback.format_tb(problem.__traceback__),
                "current_inputs": {},
                "current_outputs": [],
                "timestamp": timestamp_ms(),
            }
            return EndedPrompt(status="error", messages=(("execution_error", failure),))
