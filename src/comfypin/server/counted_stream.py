"""Streams of which only so many may be open."""

from collections.abc import AsyncIterator, Callable

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class OpenStreams:
    """How many streams are open of those that may be."""

    def __init__(self, most: int) -> None:
        self.count, self._most = 0, most

    @property
    def is_full(self) -> bool:
        """Return whether no more may be opened."""
        return self.count >= self._most


class EventStreamResponse(StreamingResponse):
    """Server-sent events, unless as many streams are open as may be: then another response is sent.

    Looking and counting are one step, when the stream begins: many clients may come between a look and a count, and a
    client that goes in between would be counted for ever.
    """

    def __init__(self, events: AsyncIterator[bytes], open_streams: OpenStreams, refuse: Callable[[], Response]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=_HEADERS)
        self._open_streams = open_streams
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, or the other response."""
        if self._open_streams.is_full:
            await self._refuse()(scope, receive, send)
            return
        self._open_streams.count += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._open_streams.count -= 1
