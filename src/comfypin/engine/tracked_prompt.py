"""Keeps what is known about one prompt that we queued, until it has settled."""

import asyncio
from collections.abc import Iterable
from typing import TypeAlias

from comfypin.engine.interface import EngineEvent, Prompt
from comfypin.engine.normalize_events import EventNormalizer
from comfypin.engine.prompt_history import HistoryEntry
from comfypin.errors import ComfypinError

# Seconds of the monotonic clock.
Clock: TypeAlias = float


class TrackedPrompt:
    """Tracks a prompt that we queued, and what we have heard about it."""

    def __init__(self, prompt: Prompt, client_id: str, *, look_at: Clock) -> None:
        self.prompt = prompt
        self.prompt_id = prompt.prompt_id
        # An older ComfyUI ignores our id and answers with its own.
        self.server_id = prompt.prompt_id
        # The websocket that gets this prompt's events; a later connection has another id and gets none.
        self.client_id = client_id
        self.normalizer = EventNormalizer()
        # None wakes the reader once the prompt has settled.
        self.event_queue: asyncio.Queue[EngineEvent | None] = asyncio.Queue()
        self.entry: HistoryEntry | None = None
        self.failure: ComfypinError | None = None
        self.cancelled = False
        self.next_look_at = look_at
        # The websocket announced the end, so the history is due.
        self.ending = False
        # Whether the websocket said anything about this prompt.
        self.was_heard = False
        # Events were lost, so silence of the engine proves nothing any more.
        self.connection_cut = False
        # When neither queue nor history knew the prompt for the first time, and how often we looked since.
        self.missing_since: Clock | None = None
        self.history_looks = 0
        # Polls since the websocket last said anything about this prompt.
        self.quiet_polls = 0

    @property
    def settled(self) -> bool:
        """Return whether it has ended, well or badly."""
        return self.entry is not None or self.failure is not None

    def publish_events(self, events: Iterable[EngineEvent]) -> None:
        """Pass events on to the caller of `HttpEngine.events`."""
        for event in events:
            self.event_queue.put_nowait(event)

    def settle(self, history_entry: HistoryEntry) -> None:
        """Note what the history says."""
        if not self.settled:
            self.entry = history_entry
            self.event_queue.put_nowait(None)

    def fail(self, failure: ComfypinError) -> None:
        """Note that there will be no history."""
        if not self.settled:
            self.failure = failure
            self.event_queue.put_nowait(None)
