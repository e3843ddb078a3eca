"""Reads the logs of pods and workers, which Runpod sends as Server-Sent Events that never end by themselves."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

from comfypin.http.deadline import Deadline
from comfypin.http.errors import HttpError
from comfypin.runpod.management_api import ManagementApi

# The first start of a worker prints a few hundred.
_MOST_LINES = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of a log. A reader that continues after it sends its `id`."""

    id: str
    source: str
    text: str


def pod_log_path(pod_id: str) -> str:
    """Return the path of a pod's log."""
    return f"/v2/pods/{pod_id}/logs"


def worker_log_path(endpoint_id: str, worker_id: str) -> str:
    """Return the path of the log of an endpoint's worker."""
    return f"/v2/serverless/{endpoint_id}/workers/{worker_id}/logs"


def read_log(
    management_api: ManagementApi, path: str, *, seconds: float, after: str | None = None, tail: int = 100
) -> Iterator[LogLine]:
    """Yield the lines that come within `seconds`: those that are there, then new ones.

    `after` is the id of a line that was seen. A stream that breaks, or is refused, ends: the caller reads again, or
    checks the pod or the worker itself.
    """
    query = {"tail": str(min(tail, _MOST_LINES))}
    headers = {"Authorization": f"Bearer {management_api.key}", "Accept": "text/event-stream"}
    if after is not None:
        headers["Last-Event-ID"] = after
    deadline = Deadline(seconds)
    try:
        response = management_api.client.request(
            "GET",
            f"{management_api.base_url}{path}?{urlencode(query)}",
            headers=headers,
            max_redirects=0,
            deadline=deadline,
        )
        with response:
            if response.status == 200:
                yield from parse_events(_split_lines(response.iter_bytes()))
    except HttpError:
        # A log without new lines looks like a server that does not answer; both end here.
        return


def parse_events(lines: Iterable[str]) -> Iterator[LogLine]:
    """Yield the log lines of an event stream; all other events are left out."""
    event_id, data_lines = "", list[str]()
    for line in lines:
        field_name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field_name == "id":
            event_id = value
        elif field_name == "data":
            data_lines.append(value)
        elif line == "" and data_lines:
            parsed = _parse_line(event_id, "\n".join(data_lines))
            data_lines.clear()
            if parsed is not None:
                yield parsed


def pause_after(began: float, *, at_least_s: float) -> float:
    """Return how long to wait, so that a stream that ends at once is not asked for in a loop."""
    return max(0.0, at_least_s - (time.monotonic() - began))


def _parse_line(event_id: str, data: str) -> LogLine | None:
    try:
        document = json.loads(data)
    except ValueError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("line"), str):
        return None
    return LogLine(id=event_id, source=str(document.get("source", "")), text=document["line"])


def _split_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r").decode(errors="replace")
