"""Follows the pod that fills a volume, from this machine, and removes it when it has ended."""

import time
from collections.abc import Callable, Mapping

from comfypin.runpod.errors import ApiRefused, WaitedTooLong
from comfypin.runpod.management_api import ManagementApi, Resource
from comfypin.runpod.up.errors import FillFailed
from comfypin.runpod.up.fill_report import FillNews, parse_fill_line
from comfypin.runpod.up.log_events import pause_after, pod_log_path, read_log

# How long one look at the log lasts; then the pod itself is looked at.
_LOOK_S = 10.0
_ENDED = frozenset({"EXITED", "ERROR", "TERMINATED"})


def follow_fill(
    management_api: ManagementApi,
    pod_id: str,
    *,
    timeout_s: float,
    on_news: Callable[[FillNews], None],
    look_s: float = _LOOK_S,
) -> None:
    """Wait until the pod says that the volume is filled. Raises `FillFailed`, `WaitedTooLong`, `ApiUnreachable`.

    The pod is then removed, except after the last two: it goes on, and the next run follows it.
    """
    deadline = time.monotonic() + timeout_s
    seen_id: str | None = None
    while True:
        began = time.monotonic()
        # From the beginning of the log: what the pod said before this process started counts too.
        for line in read_log(management_api, pod_log_path(pod_id), seconds=look_s, after=seen_id, tail=5000):
            seen_id = line.id or seen_id
            news = parse_fill_line(line.text)
            if news is None:
                continue
            if news.filled or news.failed:
                management_api.remove_resource("pod", pod_id)
                if news.failed:
                    raise FillFailed(reason=news.failed.rstrip("."))
                on_news(news)
                return
            on_news(news)
        _require_alive(management_api, pod_id)
        if time.monotonic() > deadline:
            raise WaitedTooLong(what=f"Pod {pod_id}", timeout_s=timeout_s, state="it still fills the volume")
        management_api.sleep(pause_after(began, at_least_s=min(2.0, look_s)))


def find_pod(management_api: ManagementApi, pod_id: str) -> Resource | None:
    """Return the pod, None if it is gone."""
    try:
        pod = management_api.send_request("GET", f"/v2/pods/{pod_id}")
    except ApiRefused as refused:
        if refused.status == 404:
            return None
        raise
    return pod if isinstance(pod, dict) else None


def _require_alive(management_api: ManagementApi, pod_id: str) -> None:
    pod: Mapping[str, object] | None = find_pod(management_api, pod_id)
    if pod is None:
        raise FillFailed(reason=f"its pod {pod_id} ended, and its log is gone")
    if pod.get("status") in _ENDED:
        management_api.remove_resource("pod", pod_id)
        raise FillFailed(reason=f"its pod {pod_id} is {str(pod['status']).lower()}")
