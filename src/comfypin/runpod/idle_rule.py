"""Tells when Runpod has lowered the workers of an endpoint that nobody used. Pure.

After 3 days without a request at most 2 workers are left, and after 7 none; Runpod does not undo that by itself:
https://docs.runpod.io/serverless/endpoints/endpoint-configurations#idle-endpoint-scale-down
"""

from collections.abc import Mapping

from comfypin.runpod.deployment_file import Deployment
from comfypin.runpod.desired_state import plain_name, remote_name

_LOWERED_TO = (0, 2)


def explain_lowered_workers(deployment: Deployment, endpoint: Mapping[str, object]) -> str | None:
    """Return why a live endpoint may have fewer workers than the file says, or None if it has not."""
    endpoint_name = plain_name(endpoint)
    endpoint_config = next(
        (config for config in deployment.endpoint if remote_name(deployment.name, config.name) == endpoint_name),
        None,
    )
    live_workers = endpoint.get("workers")
    if endpoint_config is None or not isinstance(live_workers, Mapping):
        return None
    live_most = live_workers.get("max")
    if not isinstance(live_most, int) or live_most >= endpoint_config.workers.max or live_most not in _LOWERED_TO:
        return None
    return (
        f"at most {live_most} workers, and the file says {endpoint_config.workers.max}: Runpod lowers an endpoint "
        "without requests to 2 after 3 days and to 0 after 7; `comfypin runpod apply` sets it back"
    )
