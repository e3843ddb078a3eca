"""Prompts that wait, the one that runs, and the history of those that ended."""

import heapq
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from comfypin.digest import JsonValue

MAX_HISTORY = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedPrompt:
    """One accepted submission: its place in line, its graph, and the output nodes that are to run."""

    number: float
    prompt_id: str
    graph: Mapping[str, JsonValue]
    extra_data: Mapping[str, JsonValue]
    outputs: tuple[str, ...]

    @property
    def client_id(self) -> str | None:
        """Whose websocket hears about it; None sends to all."""
        client = self.extra_data.get("client_id")
        return client if isinstance(client, str) else None

    def wire(self) -> list[JsonValue]:
        """The five fields that /queue and /history show."""
        return [self.number, self.prompt_id, self.graph, self.extra_data, list(self.outputs)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a prompt ended and what it left."""

    status: Literal["success", "error"]
    messages: tuple[tuple[str, Mapping[str, JsonValue]], ...]
    outputs: Mapping[str, JsonValue] = field(default_factory=dict)
    meta: Mapping[str, JsonValue] = field(default_factory=dict)

    def wire(self, prompt: QueuedPrompt) -> dict[str, JsonValue]:
        """The prompt's entry in /history."""
        return {
            "prompt": prompt.wire(),
            "outputs": self.outputs,
            "status": {
                "status_str": self.status,
                "completed": self.status == "success",
                "messages": [list(each) for each in self.messages],
            },
            "meta": self.meta,
        }


class PromptQueue:
    """A line of prompts for one worker thread; every method may be called from any thread."""

    def __init__(self, *, max_history: int = MAX_HISTORY) -> None:
        self._changed: Callable[[], None] = _nobody
        self._max_history = max_history
        self._condition = threading.Condition(threading.RLock())
        self._waiting: list[tuple[float, int, QueuedPrompt]] = []
        self._arrivals = 0
        self._running: QueuedPrompt | None = None
        self._history: OrderedDict[str, dict[str, JsonValue]] = OrderedDict()
        self._chores: set[str] = set()

    def on_change(self, told: Callable[[], None]) -> None:
        """Have `told` called, without the lock, whenever the number of unfinished prompts may be another."""
        self._changed = told

    def put(self, prompt: QueuedPrompt) -> None:
        """Add a prompt; the lowest number runs first, equal numbers in the order of arrival."""
        with self._condition:
            self._arrivals += 1
            heapq.heappush(self._waiting, (prompt.number, self._arrivals, prompt))
            self._condition.notify()
        self._changed()

    def take(self) -> "QueuedPrompt | frozenset[str]":
        """Wait for the next prompt, or for chores (`free`) while there is none."""
        with self._condition:
            while not self._waiting and not self._chores:
                self._condition.wait()
            if self._chores:
                chores, self._chores = frozenset(self._chores), set()
                return chores
            prompt = heapq.heappop(self._waiting)[2]
            self._running = prompt
        self._changed()
        return prompt

    def finish(self, prompt: QueuedPrompt, ended: Ended) -> None:
        """Write the history of the prompt that `take` gave."""
        with self._condition:
            self._running = None
            while len(self._history) >= self._max_history:
                self._history.popitem(last=False)
            self._history[prompt.prompt_id] = ended.wire(prompt)
        self._changed()

    def ask(self, chores: Iterable[str]) -> None:
        """Have the worker do something between prompts."""
        with self._condition:
            self._chores.update(chores)
            self._condition.notify()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keep every prompt where it is: none begins or ends within the block."""
        with self._condition:
            yield

    def running(self) -> QueuedPrompt | None:
        """The prompt that runs now."""
        with self._condition:
            return self._running

    def waiting(self) -> list[QueuedPrompt]:
        """Those that wait, in no promised order, as ComfyUI shows them."""
        with self._condition:
            return [prompt for _, _, prompt in self._waiting]

    def remaining(self) -> int:
        """How many have not ended."""
        with self._condition:
            return len(self._waiting) + (self._running is not None)

    def clear(self) -> None:
        """Forget all that wait."""
        with self._condition:
            self._waiting = []
        self._changed()

    def delete(self, prompt_id: str) -> bool:
        """Forget one that waits; False where it does not."""
        with self._condition:
            kept = [entry for entry in self._waiting if entry[2].prompt_id != prompt_id]
            found = len(kept) != len(self._waiting)
            heapq.heapify(kept)
            self._waiting = kept
        if found:
            self._changed()
        return found

    def history(self, *, max_items: int | None = None, offset: int = -1) -> dict[str, JsonValue]:
        """Ended prompts, oldest first: `max_items` of them from `offset` on (the newest where that is negative)."""
        with self._condition:
            if max_items is None:
                return dict(self._history)
            ids = list(self._history)
            start = max(0, len(ids) - max_items) if offset < 0 else offset
            return {each: self._history[each] for each in ids[start : start + max_items]}

    def history_of(self, prompt_id: str) -> dict[str, JsonValue]:
        """`{id: entry}`, or `{}` for an id that is unknown or has not ended."""
        with self._condition:
            entry = self._history.get(prompt_id)
            return {} if entry is None else {prompt_id: entry}

    def clear_history(self) -> None:
        """Forget all that ended."""
        with self._condition:
            self._history.clear()

    def delete_history(self, prompt_id: str) -> None:
        """Forget one that ended, where there is one."""
        with self._condition:
            self._history.pop(prompt_id, None)


def _nobody() -> None:
    """Hears nothing."""
