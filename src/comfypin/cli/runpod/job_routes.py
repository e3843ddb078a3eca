"""Finds how jobs reach an endpoint: through Runpod's queue, or through a load balancer to the worker itself."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfypin.cli.common import print_on_stderr
from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.settings.environment import Settings

OnProgress = Callable[[str, object], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRoute:
    """An endpoint's id and, if it has no queue, the address of its load balancer."""

    identifier: str
    balancer: str | None = None

    @classmethod
    def of_live(cls, endpoint: Mapping[str, object]) -> "EndpointRoute":
        """Return the route to an endpoint as Runpod's API describes it."""
        from comfypin.runpod.load_balancer import balancer_address

        return cls(identifier=str(endpoint["id"]), balancer=balancer_address(endpoint))

    def run_job(
        self, job_input: Mapping[str, object], settings: "Settings", *, timeout_s: float, on_progress: OnProgress
    ) -> Mapping[str, object]:
        """Send a job and follow it to its end; returns its output. Raises as `run_endpoint_job` does."""
        from comfypin.runpod.endpoint_client import run_endpoint_job
        from comfypin.runpod.load_balancer import MAX_REQUEST_BYTES, wait_for_balancer
        from comfypin.wiring import open_balanced_jobs_api, open_runpod_jobs_api

        if self.balancer is None:
            return run_endpoint_job(
                open_runpod_jobs_api(settings),
                self.identifier,
                job_input,
                timeout_s=timeout_s,
                on_progress=on_progress,
            )
        jobs_api = open_balanced_jobs_api(settings, self.balancer)
        # A queue waits for workers by itself; here a job that comes too early is refused.
        wait_for_balancer(
            jobs_api, self.balancer, timeout_s=timeout_s, on_state=lambda state: print_on_stderr(f"waiting: {state}")
        )
        return run_endpoint_job(
            jobs_api,
            self.identifier,
            job_input,
            timeout_s=timeout_s,
            on_progress=on_progress,
            limit_bytes=MAX_REQUEST_BYTES,
        )


def find_route(arguments: argparse.Namespace) -> EndpointRoute:
    """Return the route to `--endpoint`: a name in runpod.toml, else an id. Raises `UsageError`."""
    from comfypin.runpod.deployment_file import read_deployment
    from comfypin.runpod.desired_state import plain_name, remote_name
    from comfypin.wiring import open_runpod_api

    endpoint_name = str(arguments.endpoint)
    # Without a deployment, the argument must be an id.
    if not arguments.file.exists():
        return _route_of_id(endpoint_name, arguments.settings)
    deployment = read_deployment(arguments.file).deployment
    if endpoint_name not in [item.name for item in deployment.endpoint]:
        return _route_of_id(endpoint_name, arguments.settings)
    full_name = remote_name(deployment.name, endpoint_name)
    for item in open_runpod_api(arguments.settings).list_resources("endpoint"):
        if plain_name(item) == full_name:
            return EndpointRoute.of_live(item)
    raise UsageError(f"Endpoint {endpoint_name!r} does not exist on Runpod yet; run `comfypin runpod apply` first.")


def _route_of_id(identifier: str, settings: "Settings") -> EndpointRoute:
    from comfypin.runpod.errors import ApiRefused
    from comfypin.settings.runpod import JOBS_URL
    from comfypin.wiring import open_runpod_api

    # Jobs go to a server of one's own then, of which Runpod's API knows nothing.
    if settings.runpod.jobs_url != JOBS_URL:
        return EndpointRoute(identifier=identifier)
    try:
        return EndpointRoute.of_live(open_runpod_api(settings).get_resource("endpoint", identifier))
    except ApiRefused:
        # A key that may only send jobs, or an endpoint of somebody else's: those that can be shared have queues.
        return EndpointRoute(identifier=identifier)
