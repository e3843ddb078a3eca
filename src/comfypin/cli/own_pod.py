"""Removes the Runpod pod that a command runs in: it has an id and a key of its own, and is billed until it is gone."""

from typing import TYPE_CHECKING

from comfypin.errors import ComfypinError, ConfigError

if TYPE_CHECKING:
    from comfypin.settings.environment import Settings


def require_own_pod(settings: "Settings") -> str:
    """Return the id of this pod. Raises `ConfigError` elsewhere."""
    if settings.server.pod_id is None:
        raise ConfigError("RUNPOD_POD_ID is not set, so this is not a Runpod pod.", variable="RUNPOD_POD_ID")
    return settings.server.pod_id


def remove_own_pod(settings: "Settings") -> str | None:
    """Ask Runpod to remove this pod; return why it did not."""
    from comfypin.wiring import open_runpod_api

    try:
        open_runpod_api(settings).remove_resource("pod", require_own_pod(settings))
    except ComfypinError as error:
        return error.message
    return None
