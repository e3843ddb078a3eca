"""Reads server-sent events off a server, as a browser does."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.server import TOKEN


@dataclass(frozen=True)
class ReadEvent:
    name: str
    data: Any
    id: str | None


class EventReader:
    """One connection; iterating it waits for the next event."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[ReadEvent]:
        fields: dict[str, str] = {}
        while line := self._response.readline():
            text = line.decode().rstrip("\n")
            if text.startswith(":"):
                continue
            if text:
                name, _, value = text.partition(": ")
                fields[name] = value
            elif fields:
                yield ReadEvent(fields.get("event", ""), json.loads(fields["data"]), fields.get("id"))
                fields = {}

    def until(self, name: str, **wanted: object) -> tuple[ReadEvent, list[ReadEvent]]:
        """The next event of this name whose data hold these values, and all that came before it."""
        before: list[ReadEvent] = []
        for event in self:
            if event.name == name and all(event.data.get(key) == value for key, value in wanted.items()):
                return event, before
            before.append(event)
        raise AssertionError(f"the stream ended before {name} {wanted}: {before}")


@contextmanager
def reading_events(url: str, path: str = "/events", **headers: str) -> Iterator[EventReader]:
    """Follow the events of a server."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}", **sent})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert str(response.getheader("content-type")).startswith("text/event-stream")
        yield EventReader(response)
    finally:
        connection.close()
