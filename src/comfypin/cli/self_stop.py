"""Stops the pod that it runs in, some time after the container has started, so that nobody pays for a forgotten pod.

Not a command of its own: the image starts it beside a pod's services (`python -m comfypin.cli.self_stop SECONDS`) if
COMFYPIN_STOP_AFTER is set. Runpod gives every pod its id and a key for itself.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from comfypin.errors import ComfypinError, ConfigError

# A pod costs money until it stops, so it asks for ever; not so often that Runpod limits the key.
_AGAIN_AFTER_S = 300.0


def main(arguments: Sequence[str]) -> int:
    """Wait, then ask Runpod to stop this pod, again and again until it agrees."""
    stop_after_s = float(arguments[0])
    # Counted from the container's start, because this process is started again if it ends.
    time.sleep(max(0.0, stop_after_s - container_age_s()))
    while (why_not := stop_this_pod()) is not None:
        again = f"asking again in {_AGAIN_AFTER_S / 60:.0f} minutes"
        print(f"comfypin: this pod should have stopped by now ({again}): {why_not}", file=sys.stderr, flush=True)
        time.sleep(_AGAIN_AFTER_S)
    # The pod ends in a moment, and with it everything in it.
    time.sleep(_AGAIN_AFTER_S)
    return 0


def stop_this_pod(sleep: Callable[[float], None] = time.sleep) -> str | None:
    """Ask Runpod to stop this pod; return why it did not."""
    from dataclasses import replace

    from comfypin.settings.environment import Settings
    from comfypin.wiring import open_runpod_api

    settings = Settings(os.environ)
    try:
        if settings.server.pod_id is None:
            raise ConfigError("RUNPOD_POD_ID is not set, so this is not a Runpod pod.", variable="RUNPOD_POD_ID")
        management_api = replace(open_runpod_api(settings), sleep=sleep)
        management_api.send_request("POST", f"/v2/pods/{settings.server.pod_id}/action", {"action": "stop"})
    except ComfypinError as error:
        return error.message
    return None


def container_age_s() -> float:
    """Return how long the first process of the container has been running."""
    # Field 22 of /proc/1/stat: clock ticks from the machine's start to the process's; its name may hold spaces.
    started_ticks = int(Path("/proc/1/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    machine_age_s = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    return machine_age_s - started_ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
