"""Sends events to the websockets, with a queue of unsent messages for each."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from uuid import uuid4

from aiohttp import WSMsgType, web

from comfypin.digest import JsonValue
from comfypin.engine.embedded.messages import RawJson

log = logging.getLogger(__name__)

# Messages that may wait for a client that does not read, before it is cut off.
_MOST_UNSENT = 50_000


class WebsocketHub:
    """Sends events to websockets by client id; `send_event` may be called from any thread."""

    def __init__(self, *, remaining: Callable[[], int], flags: dict[str, JsonValue]) -> None:
        self._count_unfinished = remaining
        self._flags = flags
        self._listeners: dict[str, asyncio.Queue[str | bytes | None]] = {}
        # The clients that can tell whose a preview is.
        self._take_metadata: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        # The client that submitted the running prompt, and the node that runs.
        self.executing: tuple[str, str] | None = None

    def start(self) -> None:
        """Remember the event loop that serves the websockets."""
        self._loop = asyncio.get_running_loop()

    def send_event(self, event: str, data: "JsonValue | RawJson", client_id: str | None = None) -> None:
        """Send an event to one client, or to all if `client_id` is None."""
        # Nobody listens: do not even write the JSON, which may be large.
        if self._loop is None or (client_id is not None and client_id not in self._listeners):
            return
        body = data.text if isinstance(data, RawJson) else json.dumps(data)
        json_text = f'{{"type": {json.dumps(event)}, "data": {body}}}'
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            # Prompts run in their own thread, and asyncio's queues belong to the loop's.
            self._loop.call_soon_threadsafe(self._queue_message, json_text, client_id)

    def is_listening(self, client_id: str | None) -> bool:
        """Return whether this client has a websocket open."""
        return client_id in self._listeners

    def send_preview(self, *, plain: bytes, with_metadata: bytes, client_id: str) -> None:
        """Send a client a preview, in the form that it understands; may be called from any thread."""
        message = with_metadata if client_id in self._take_metadata else plain
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._queue_message, message, client_id)

    def send_status(self) -> None:
        """Send all clients the number of prompts that have not ended."""
        self.send_event("status", {"status": {"exec_info": {"queue_remaining": self._count_unfinished()}}})

    async def serve_websocket(self, request: web.Request) -> web.StreamResponse:
        """Serve one websocket, from its first message to its end."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.query.get("clientId") or uuid4().hex
        unsent_messages: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._listeners[client_id] = unsent_messages
        writer = asyncio.create_task(self._write_messages(socket, unsent_messages))
        try:
            status = {"exec_info": {"queue_remaining": self._count_unfinished()}}
            self._queue_message(_event_text("status", {"status": status, "sid": client_id}), client_id)
            # A client that reconnects must learn which of its nodes runs: it missed the event.
            if self.executing is not None and self.executing[0] == client_id:
                self._queue_message(_event_text("executing", {"node": self.executing[1]}), client_id)
            await self._read_messages(socket, unsent_messages, client_id)
        finally:
            # As in ComfyUI, another client with this id gets nothing from now on.
            self._listeners.pop(client_id, None)
            self._take_metadata.discard(client_id)
            unsent_messages.put_nowait(None)
            await asyncio.wait([writer])
        return socket

    async def _read_messages(
        self, socket: web.WebSocketResponse, unsent_messages: asyncio.Queue[str | bytes | None], client_id: str
    ) -> None:
        is_first = True
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            if is_first and (client_flags := _read_feature_flags(message.data)) is not None:
                if client_flags.get("supports_preview_metadata") is True:
                    self._take_metadata.add(client_id)
                unsent_messages.put_nowait(_event_text("feature_flags", self._flags))
            is_first = False

    async def _write_messages(
        self, socket: web.WebSocketResponse, unsent_messages: asyncio.Queue[str | bytes | None]
    ) -> None:
        try:
            while (unsent_message := await unsent_messages.get()) is not None:
                # A listener that reads nothing would make the queue grow for ever.
                if unsent_messages.qsize() > _MOST_UNSENT:
                    log.warning(
                        "listener cut off", extra={"action": "listener_cut_off", "unsent": unsent_messages.qsize()}
                    )
                    await socket.close()
                    return
                if isinstance(unsent_message, bytes):
                    await socket.send_bytes(unsent_message)
                else:
                    await socket.send_str(unsent_message)
        except (ConnectionError, RuntimeError) as problem:
            log.info("listener left", extra={"action": "listener_left", "why": str(problem)})

    def _queue_message(self, message: str | bytes, client_id: str | None) -> None:
        listeners = list(self._listeners.values()) if client_id is None else [self._listeners.get(client_id)]
        for unsent_messages in listeners:
            if unsent_messages is not None:
                unsent_messages.put_nowait(message)


def _event_text(event: str, event_data: JsonValue) -> str:
    return json.dumps({"type": event, "data": event_data})


def _read_feature_flags(json_text: str) -> dict[str, JsonValue] | None:
    """Return what a client says about itself; None if it is another kind of message."""
    try:
        message = json.loads(json_text)
    except ValueError:
        return None
    if not isinstance(message, dict) or message.get("type") != "feature_flags":
        return None
    client_flags = message.get("data")
    return client_flags if isinstance(client_flags, dict) else {}
