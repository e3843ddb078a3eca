"""Holds the prompts that wait, the one that runs, and the history of those that ended."""

import heapq
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from comfypin.digest import JsonValue

# ComfyUI's MAXIMUM_HISTORY_SIZE.
MAX_HISTORY = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedPrompt:
    """Holds one accepted submission: its place in line, its graph, and the output nodes to run."""

    number: float
    prompt_id: str
    graph: Mapping[str, JsonValue]
    extra_data: Mapping[str, JsonValue]
    outputs: tuple[str, ...]

    @property
    def client_id(self) -> str | None:
        """Return the client whose websocket gets the events; None sends to all."""
        client = self.extra_data.get("client_id")
        return client if isinstance(client, str) else None

    def to_json(self) -> list[JsonValue]:
        """Return the five fields that /queue and /history show."""
        return [self.number, self.prompt_id, self.graph, self.extra_data, list(self.outputs)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedPrompt:
    """Says how a prompt ended and what it left."""

    status: Literal["success", "error"]
    messages: tuple[tuple[str, Mapping[str, JsonValue]], ...]
    outputs: Mapping[str, JsonValue] = field(default_factory=dict)
    meta: Mapping[str, JsonValue] = field(default_factory=dict)

    def to_history(self, prompt: QueuedPrompt) -> dict[str, JsonValue]:
        """Return the prompt's entry in /history."""
        return {
            "prompt": prompt.to_json(),
            "outputs": self.outputs,
            "status": {
                "status_str": self.status,
                "completed": self.status == "success",
                "messages": [list(message) for message in self.messages],
            },
            "meta": self.meta,
        }


class PromptQueue:
    """Queues prompts for one worker thread; every method may be called from any thread."""

    def __init__(self, *, max_history: int = MAX_HISTORY) -> None:
        self._on_change: Callable[[], None] = _ignore_change
        self._max_history = max_history
        # Reentrant, because `hold_prompts` wraps calls of the other methods.
        self._condition = threading.Condition(threading.RLock())
        self._waiting: list[tuple[float, int, QueuedPrompt]] = []
        self._arrivals = 0
        self._running: QueuedPrompt | None = None
        self._history: OrderedDict[str, dict[str, JsonValue]] = OrderedDict()
        self._chores: set[str] = set()

    def set_listener(self, callback: Callable[[], None]) -> None:
        """Call `callback`, without the lock, whenever the number of unfinished prompts may have changed."""
        self._on_change = callback

    def add_prompt(self, prompt: QueuedPrompt) -> None:
        """Add a prompt; the lowest number runs first, equal numbers in the order of arrival."""
        with self._condition:
            # A heap is not stable: the arrival keeps prompts of the same number in order.
            self._arrivals += 1
            heapq.heappush(self._waiting, (prompt.number, self._arrivals, prompt))
            self._condition.notify()
        self._on_change()

    def take_next(self) -> "QueuedPrompt | frozenset[str]":
        """Wait for the next prompt, or for chores (such as `free`) if no prompt waits."""
        with self._condition:
            while not self._waiting and not self._chores:
                self._condition.wait()
            if self._chores:
                chores, self._chores = frozenset(self._chores), set()
                return chores
            prompt = heapq.heappop(self._waiting)[2]
            self._running = prompt
        self._on_change()
        return prompt

    def finish_prompt(self, prompt: QueuedPrompt, ended: EndedPrompt) -> None:
        """Write the history of the prompt that `take_next` returned."""
        with self._condition:
            self._running = None
            while len(self._history) >= self._max_history:
                # The oldest goes first, as in ComfyUI.
                self._history.popitem(last=False)
            self._history[prompt.prompt_id] = ended.to_history(prompt)
        self._on_change()

    def request_chores(self, chores: Iterable[str]) -> None:
        """Ask the worker to do something between prompts."""
        with self._condition:
            self._chores.update(chores)
            self._condition.notify()

    @contextmanager
    def hold_prompts(self) -> Iterator[None]:
        """Hold every prompt in its state: none begins or ends within the block."""
        with self._condition:
            yield

    def running_prompt(self) -> QueuedPrompt | None:
        """Return the prompt that runs now."""
        with self._condition:
            return self._running

    def waiting_prompts(self) -> list[QueuedPrompt]:
        """Return those that wait, in no promised order, as ComfyUI shows them."""
        with self._condition:
            return [prompt for _, _, prompt in self._waiting]

    def count_unfinished(self) -> int:
        """Return how many have not ended."""
        with self._condition:
            return len(self._waiting) + (self._running is not None)

    def clear_waiting(self) -> None:
        """Forget all prompts that wait."""
        with self._condition:
            self._waiting = []
        self._on_change()

    def delete_waiting(self, prompt_id: str) -> bool:
        """Forget a prompt that waits; return False if it does not wait."""
        with self._condition:
            remaining = [entry for entry in self._waiting if entry[2].prompt_id != prompt_id]
            was_waiting = len(remaining) != len(self._waiting)
            heapq.heapify(remaining)
            self._waiting = remaining
        if was_waiting:
            self._on_change()
        return was_waiting

    def list_history(self, *, max_items: int | None = None, offset: int = -1) -> dict[str, JsonValue]:
        """Return ended prompts, oldest first: `max_items` from `offset` on (the newest if that is negative)."""
        with self._condition:
            if max_items is None:
                return dict(self._history)
            prompt_ids = list(self._history)
            start = max(0, len(prompt_ids) - max_items) if offset < 0 else offset
            return {prompt_id: self._history[prompt_id] for prompt_id in prompt_ids[start : start + max_items]}

    def find_history(self, prompt_id: str) -> dict[str, JsonValue]:
        """Return `{id: entry}`, or `{}` for an id that is unknown or has not ended."""
        with self._condition:
            entry = self._history.get(prompt_id)
            return {} if entry is None else {prompt_id: entry}

    def clear_history(self) -> None:
        """Forget all prompts that ended."""
        with self._condition:
            self._history.clear()

    def delete_history(self, prompt_id: str) -> None:
        """Forget a prompt that ended, if it is known."""
        with self._condition:
            self._history.pop(prompt_id, None)


def _ignore_change() -> None:
    """Do nothing."""
