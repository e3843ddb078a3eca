"""Follows a job to its end, over lost connections and restarts of the server."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from comfypin.client.errors import ServerRefused, ServerUnreachable, WaitedLongEnough
from comfypin.client.interface import ChangeFeed, JobServer, RemoteJob
from comfypin.retry import Failures, RetryPolicy, asked_delay_s

# A job may run for hours, so whoever follows it does not give up; Ctrl-C does.
FOLLOW_RETRIES = RetryPolicy(retries=None, base_s=0.5, longest_s=3.0)
FIRST_TRIES = RetryPolicy(retries=2, base_s=0.5, longest_s=2.0)
# A job of a fraction of a second should not cost a whole second of waiting.
_FIRST_POLL_S = 0.2
# Runpod limits requests of a key; one a second for each job is below that.
_LONGEST_POLL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowReports:
    """Callbacks while a job is followed: for every change, a lost connection (once), and its return."""

    changed: Callable[[RemoteJob], None]
    lost: Callable[[str], None]
    found: Callable[[], None]


def follow_job(
    server: JobServer,
    job: RemoteJob | str,
    reports: FollowReports,
    *,
    timeout_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> RemoteJob:
    """Return the job as it ended. If `job` is a text, it is the id of a job that was not seen yet.

    Raises `WaitedLongEnough`; `JobNotFound` and other failures that no retry can mend. A server that does not answer is
    asked again without end, once the job has been seen.
    """
    job_id = job if isinstance(job, str) else job.id
    seen = None if isinstance(job, str) else job
    # An address that never worked is given up soon; a server that had the job will be back.
    failures = Failures(FIRST_TRIES if seen is None else FOLLOW_RETRIES)
    deadline_s, poll_s = None if timeout_s is None else clock() + timeout_s, _FIRST_POLL_S
    feed = server if isinstance(server, ChangeFeed) else None
    while True:
        delay_s: float | None
        try:
            current = server.show(job_id)
        except (ServerUnreachable, ServerRefused) as error:
            delay_s = failures.count_failure(asked_s=asked_delay_s(error)) if error.is_transient else None
            if delay_s is None:
                raise
            # Once, however long it takes: people want to know that it is lost, not how often.
            if failures.in_a_row == 1:
                reports.lost(str(error))
        else:
            if failures.in_a_row:
                reports.found()
            failures = Failures(FOLLOW_RETRIES)
            if current != seen:
                reports.changed(current)
            seen = current
            if current.has_ended:
                return current
            if feed is not None:
                left_s = None if deadline_s is None else max(0.0, deadline_s - clock())
                try:
                    followed = _follow_changes(feed, job_id, reports, seen, within_s=left_s)
                except (ServerUnreachable, ServerRefused):
                    pass  # asking finds out what is wrong
                else:
                    seen, feed = followed.seen, feed if followed.was_told else None
                    # Asked for once more, at once: the feed tells the end without the outputs.
                    if followed.has_ended:
                        continue
            # Slowly longer: short jobs end at once, and long ones are not asked about each second.
            delay_s, poll_s = poll_s, min(_LONGEST_POLL_S, poll_s * 1.25)
        if deadline_s is not None:
            if clock() >= deadline_s:
                status = "unknown" if seen is None else seen.status
                raise WaitedLongEnough(
                    job_id=job_id, status=status, timeout_s=timeout_s or 0.0, server=server.address.named
                )
            delay_s = min(delay_s, deadline_s - clock())
        sleep(delay_s)


@dataclass(slots=True)
class _Followed:
    """A job as the server last described it, whether any change was reported, and whether that was the end."""

    seen: RemoteJob | None
    was_told: bool = False
    has_ended: bool = False


def _follow_changes(
    feed: ChangeFeed, job_id: str, reports: FollowReports, seen: RemoteJob | None, *, within_s: float | None
) -> _Followed:
    """Report changes as long as the server sends them, but not the end: then the job is fetched, with its outputs."""
    followed = _Followed(seen)
    for current in feed.changes(job_id, within_s=within_s) or ():
        followed.was_told = True
        followed.has_ended = current.has_ended
        if current.has_ended:
            break
        if current != followed.seen:
            reports.changed(current)
        followed.seen = current
    return followed
