"""Reads server-sent events of a server of jobs, and what they say of one job."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from comfypin.client.interface import RemoteJob
from comfypin.client.result_outputs import count_or_none, progress_of

# A snapshot of thousands of jobs is a few megabytes; a server must not fill our memory.
_LONGEST_EVENT_BYTES = 64 << 20
# Lines may end in any of three ways; many servers of others write both characters.
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
ReadJob = Callable[[Mapping[str, object]], RemoteJob]
"""Reads a job out of a server's JSON."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its name and its JSON."""

    name: str
    data: Mapping[str, object]


def read_events(chunks: Iterable[bytes]) -> Iterator[ServerEvent]:
    """Yield the events of a stream; what is not a JSON object is left out.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        while (end := _EVENT_END.search(waiting)) is not None:
            event = _parse_event(bytes(waiting[: end.start()]))
            del waiting[: end.end()]
            if event is not None:
                yield event
        if len(waiting) > _LONGEST_EVENT_BYTES:
            return


def job_changes(events: Iterable[ServerEvent], job_id: str, read_job: ReadJob) -> Iterator[RemoteJob]:
    """Yield a job as the stream of all jobs reports it, until it ends or the server no longer knows it."""
    job: RemoteJob | None = None
    for event in events:
        event_data = _data_of_job(event, job_id)
        if event.name == "snapshot" and event_data is None:
            return  # it ended a while ago
        if event.name == "removed" and event.data.get("id") == job_id:
            return
        if event_data is None:
            continue
        if event.name == "progress":
            if job is None:
                continue
            job = replace(job, progress=progress_of(event_data.get("progress")))
        else:
            job = read_job(event_data)
        yield job
        if job.has_ended:
            return


def comfy_job_changes(events: Iterable[ServerEvent], job: RemoteJob, states: Mapping[str, str]) -> Iterator[RemoteJob]:
    """Yield a job as its own stream in Comfy API v2 reports it, until it ends; `states` are ours by the API's."""
    for event in events:
        if event.name == "progress":
            job = replace(job, progress=progress_of(event.data))
        elif event.name == "status" and event.data.get("status") in states:
            position = count_or_none(event.data.get("queue_position"))
            job = replace(job, status=states[str(event.data["status"])], position=position)
        else:
            continue
        yield job
        if job.has_ended:
            return


def _data_of_job(event: ServerEvent, job_id: str) -> Mapping[str, object] | None:
    match event.name, event.data:
        case "snapshot", {"jobs": list(jobs)}:
            return next((job for job in jobs if isinstance(job, Mapping) and job.get("id") == job_id), None)
        case (("job" | "progress"), {"id": told_id}) if told_id == job_id:
            return event.data
    return None


def _parse_event(event_text: bytes) -> ServerEvent | None:
    event_name, lines = "message", list[bytes]()
    for line in event_text.splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            event_name = value.decode(errors="replace")
        elif field == b"data":
            lines.append(value)
    try:
        document = json.loads(b"\n".join(lines)) if lines else None
    except (ValueError, RecursionError):
        return None
    return ServerEvent(event_name, document) if isinstance(document, Mapping) else None
