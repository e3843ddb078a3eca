"""How many tickets wait in the lanes of a release, and for how long the oldest has."""

from typing import TYPE_CHECKING

from nats.js.errors import NotFoundError

from comfypin.queue.nats import names
from comfypin.queue.nats.names import Lane, lanes_of_worker
from comfypin.queue.nats.warm_first import Backlog

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext


async def read_backlog(stream: "JetStreamContext", release: str, gpu_class: str, *, now: float) -> Backlog:
    """Return what waits for a release that a worker of this class could run. Raises what nats-py raises."""
    waiting, oldest_wait_s = 0, 0.0
    for lane in lanes_of_worker(release, gpu_class):
        lane_waiting, lane_wait_s = await read_lane(stream, lane, now=now)
        waiting += lane_waiting
        oldest_wait_s = max(oldest_wait_s, lane_wait_s)
    return Backlog(release=release, waiting=waiting, oldest_wait_s=oldest_wait_s)


async def read_lane(stream: "JetStreamContext", lane: Lane, *, now: float) -> tuple[int, float]:
    """Return how many tickets of a lane nobody has taken, and how long ago the oldest of them was issued."""
    try:
        info = await stream.consumer_info(names.JOBS_STREAM, lane.consumer)
    except NotFoundError:
        return 0, 0.0
    if not info.num_pending:
        return 0, 0.0
    delivered = info.delivered.stream_seq if info.delivered is not None else 0
    try:
        oldest = await stream.get_msg(names.JOBS_STREAM, seq=delivered + 1, subject=lane.subjects, next=True)
    except NotFoundError:
        return info.num_pending, 0.0
    issued_at = oldest.time.timestamp() if oldest.time is not None else now
    return info.num_pending, max(0.0, now - issued_at)


async def count_waiting(stream: "JetStreamContext") -> int:
    """Return how many tickets of all lanes nobody has taken. Raises what nats-py raises."""
    return sum(info.num_pending or 0 for info in await stream.consumers_info(names.JOBS_STREAM))
