"""A job's server-sent events: where it stands when a client connects, then what happens, until it has ended."""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping

from comfypin.digest import JsonValue
from comfypin.queue.errors import JobsNotStored, JobUnknown
from comfypin.queue.job_events import FollowerTooSlow, Following, JobEvent
from comfypin.server.comfy_api.api import ComfyApi
from comfypin.server.comfy_api.asset_view import output_to_json
from comfypin.server.comfy_api.job_view import TERMINAL, progress_to_json
from comfypin.server.comfy_api.jobs import Jobs
from comfypin.server.comfy_api.links import Links

# As often as previews come: a bar that moves twice a second looks alive.
_PROGRESS_EVERY_S = 0.5
# Only for what no event tells, such as a job that another process removed.
_LOOK_EVERY_S = 1.0
# Proxies close a connection that is silent for 30 or 60 s.
_KEEP_ALIVE_S = 15.0


class JobStream:
    """One client that follows one job."""

    def __init__(
        self, api: ComfyApi, jobs: Jobs, job_id: str, links: Links, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._jobs = jobs
        self._job_id = job_id
        self._links = links
        self._clock = clock
        self._status: tuple[object, object] | None = None
        self._progress: Mapping[str, JsonValue] | None = None
        self._unsent_progress: Mapping[str, JsonValue] | None = None
        self._progress_at_s = self._sent_at_s = float("-inf")
        self._outputs: set[str] = set()

    async def events(self) -> AsyncIterator[bytes]:
        """Yield the events; ends after the status that is final, and without it if the client reads too slowly."""
        with self._api.queue.events.subscribe(self._job_id) as following:
            try:
                async for frame in self._frames(following):
                    self._sent_at_s = self._clock()
                    yield frame
            except (FollowerTooSlow, JobUnknown, JobsNotStored):
                return

    async def _frames(self, following: Following) -> AsyncIterator[bytes]:
        preview = self._api.queue.events.newest_preview(self._job_id)
        yield b"".join([frame async for frame in self._state()])
        if preview is not None:
            yield _frame("preview", preview.data)
        while self._status is None or self._status[0] not in TERMINAL:
            event = await following.next_within(self._wait_s())
            if event is not None and event.kind == "preview":
                yield _frame("preview", event.data)
            elif event is not None and event.kind == "progress":
                self._unsent_progress = progress_to_json(event.data) or self._unsent_progress
            elif event is not None and event.kind == "output":
                async for frame in self._output(event):
                    yield frame
            is_other = event is None or event.kind not in ("preview", "progress", "output")
            # In one write: the client wakes once.
            if is_other and (frames := [frame async for frame in self._state()]):
                yield b"".join(frames)
            if (progress := self._due_progress()) is not None:
                yield _frame("progress", progress)
            if self._clock() - self._sent_at_s > _KEEP_ALIVE_S:
                yield b": still there\n\n"

    def _wait_s(self) -> float:
        if self._unsent_progress is None:
            return _LOOK_EVERY_S
        return max(0.0, min(_LOOK_EVERY_S, self._progress_at_s + _PROGRESS_EVERY_S - self._clock()))

    def _due_progress(self) -> Mapping[str, JsonValue] | None:
        """Return the newest progress if it is new, and the last was sent a while ago."""
        now_s = self._clock()
        if self._unsent_progress is None or now_s - self._progress_at_s < _PROGRESS_EVERY_S:
            return None
        newest, self._unsent_progress = self._unsent_progress, None
        if newest == self._progress:
            return None
        self._progress, self._progress_at_s = newest, now_s
        return newest

    async def _state(self) -> AsyncIterator[bytes]:
        """Yield what differs from what the client was told last: outputs, progress, the status."""
        live = self._api.queue.find_live(self._job_id)
        if live is not None and self._status is not None and live.row.ended_at is None:
            # The status of a job that runs is in memory, and the outputs come as events.
            position = self._api.queue.waiting_place(self._job_id)
            status = self._jobs.status(live.row)
            if (status, position) != self._status:
                self._status = (status, position)
                yield _frame("status", {"status": status, "queue_position": position})
            return
        job_json = await self._jobs.show(self._job_id, self._links)
        is_final = job_json["status"] in TERMINAL
        first = self._status is None
        job_state = (job_json["status"], job_json["queue_position"])
        status_frame = {"status": job_json["status"], "queue_position": job_json["queue_position"]}
        if is_final:
            status_frame["outputs"] = job_json["outputs"]
        if first and not is_final:
            yield _frame("status", status_frame)
        progress = job_json["progress"]
        if isinstance(progress, Mapping) and progress != self._progress:
            self._progress, self._progress_at_s = progress, self._clock()
            yield _frame("progress", progress)
        outputs = job_json["outputs"]
        for output in outputs if isinstance(outputs, list) else ():
            if isinstance(output, Mapping) and str(output["id"]) not in self._outputs:
                self._outputs.add(str(output["id"]))
                yield _frame("output", output)
        if is_final or (not first and job_state != self._status):
            yield _frame("status", status_frame)
        self._status = job_state

    async def _output(self, event: JobEvent) -> AsyncIterator[bytes]:
        asset = await self._api.records.asset(str(event.data.get("asset_id")))
        if asset is None or asset.id in self._outputs:
            return
        self._outputs.add(asset.id)
        expires_at = self._api.job_expires_at((await self._api.queue.read_record(self._job_id)).row)
        yield _frame("output", output_to_json(asset, self._links, self._api.clock(), expires_at=expires_at))


def _frame(event_name: str, data: Mapping[str, JsonValue]) -> bytes:
    return b"event: " + event_name.encode() + b"\ndata: " + json.dumps(dict(data)).encode() + b"\n\n"
