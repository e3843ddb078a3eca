"""What `comfypin runpod up` prints: the plan with its cost, what the first job took, and how to call the endpoint."""

import shlex
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from comfypin.cli.runpod.run import print_job_progress
from comfypin.plurals import format_count

if TYPE_CHECKING:
    from comfypin.runpod.deployment_plan import DeploymentStep
    from comfypin.runpod.up.choices import Place
    from comfypin.runpod.up.plan import UpPlan

_SIGNS = {"create": "+", "change": "~", "replace": "!", "unchanged": "="}
# A variable that holds a lock, and whatever else is longer than a line of a terminal.
_LONGEST_VALUE = 60


class SmokeClock:
    """Measures a job from the outside: until a worker took it, and until it ended."""

    def __init__(self) -> None:
        """Start the clock."""
        self._began = time.monotonic()
        self._taken: float | None = None

    def note_status(self, status: str, progress: object) -> None:
        """Note a status, and print it."""
        if status != "IN_QUEUE" and self._taken is None:
            self._taken = time.monotonic()
        print_job_progress(status, progress)

    def seconds(self, output: Mapping[str, object]) -> dict[str, float]:
        """Return the seconds by phase: until a worker took the job, the job, and the job's own phases."""
        now = time.monotonic()
        taken = self._taken if self._taken is not None else now
        own_seconds = output.get("seconds")
        phases = own_seconds.get("phases") if isinstance(own_seconds, Mapping) else None
        own = (
            {str(phase_name): float(value) for phase_name, value in phases.items()}
            if isinstance(phases, Mapping)
            else {}
        )
        return {"start": round(taken - self._began, 2), "job": round(now - taken, 2), **own}


def plan_lines(plan: "UpPlan", place: "Place | None") -> Iterator[str]:
    """Yield the plan for people. No value of a secret is in it."""
    release = plan.release
    yield f"{plan.name}: release {release.number} of lock {release.lock_digest.removeprefix('sha256:')[:12]}"
    yield f"  image {release.image}"
    for secret in plan.secrets:
        yield f"{'=' if secret.is_there else '+'} secret {secret.secret_name}, as {secret.variable}"
    for step in plan.resources:
        yield from _resource_lines(plan, step)
        if step.desired.kind == "volume" and plan.fill is not None:
            yield _fill_line(plan, place)
    for pod in plan.idle_pods:
        yield f"- pod {pod['name']} ({pod['id']}), which nobody waits for"
    # Neither with --no-job, before any job came back.
    if plan.smoke or release.stage == "proven":
        yield f"{'+' if plan.smoke else '='} job of {release.workflow} through it"
    yield from _cost_lines(plan, place)


def plan_to_json(plan: "UpPlan") -> dict[str, object]:
    """Return the plan for programs."""
    return {
        "name": plan.name,
        "release": plan.release.number,
        "lock_digest": plan.release.lock_digest,
        "image": plan.release.image,
        "secrets": [
            {"name": item.secret_name, "variable": item.variable, "exists": item.is_there} for item in plan.secrets
        ],
        "steps": [
            {"action": step.verb, "kind": step.desired.kind, "remote_name": step.desired.remote_name}
            for step in plan.resources
        ],
        "fill": None if plan.fill is None else {"pod": plan.fill.pod_name, "done": plan.fill.is_done},
        "idle_pods": [str(pod["id"]) for pod in plan.idle_pods],
        "job": plan.smoke,
    }


def outcome_lines(plan: "UpPlan", url: str, saved: list[str], seconds: Mapping[str, float]) -> Iterator[str]:
    """Yield where the endpoint is, what the job took, its outputs, and how to call the endpoint again."""
    yield f"{plan.name} is up: {url}" if not plan.is_empty else f"{plan.name} is as it should be: {url}"
    if seconds:
        yield "seconds: " + ", ".join(f"{phase} {value:.1f}" for phase, value in seconds.items())
    yield from saved
    endpoint_id = url.rpartition("/")[2]
    yield f"again: comfypin runpod run {shlex.quote(plan.release.workflow)} --endpoint {endpoint_id}"
    yield (
        f"   or: curl {url}/runsync -H \"Authorization: Bearer $RUNPOD_API_KEY\" -H 'Content-Type: application/json' "
        '-d \'{"input": {"workflow": {}}}\''
    )


def _resource_lines(plan: "UpPlan", step: "DeploymentStep") -> Iterator[str]:
    release = plan.release
    where = f" in {release.data_center}" if release.data_center else ""
    facts = (
        f"{release.volume_gb} GB{where}"
        if step.desired.kind == "volume"
        else f"{', '.join(release.gpu_pools)}{where}, 0 to {format_count(release.max_workers, 'worker')}"
    )
    yield f"{_SIGNS[step.verb]} {step.desired.kind} {step.desired.remote_name}: {facts}"
    for change in step.changes:
        yield f"      {change.path}: {_shorten(change.before)} -> {_shorten(change.after)}"


def _fill_line(plan: "UpPlan", place: "Place | None") -> str:
    assert plan.fill is not None
    if plan.fill.is_done:
        return "= the volume is filled"
    if plan.fill.live is not None:
        return f"~ fill the volume: pod {plan.fill.live['id']} goes on"
    cost = f", ${place.cpu_price:.2f} an hour" if place is not None and place.cpu_price is not None else ""
    return f"+ fill the volume: models and env, by a pod of 4 CPUs that ends itself{cost}"


def _cost_lines(plan: "UpPlan", place: "Place | None") -> Iterator[str]:
    if place is not None and place.price is not None:
        most = place.price * plan.release.max_workers
        yield f"cost: nothing an hour while no worker runs, ${place.price:.2f} a worker, at most ${most:.2f}"
        if plan.release.volume_gb is not None:
            yield f"      {plan.release.volume_gb} GB of volume by the month, until `comfypin runpod down --volumes`"
        yield f"      ({place.level.lower()} availability)"
    for other in place.others if place is not None and not plan.is_empty else ():
        yield f"  or: {other} (--gpu, --data-center)"


def _shorten(value: object) -> str:
    shown_text = repr(value)
    return shown_text if len(shown_text) <= _LONGEST_VALUE else f"{shown_text[:_LONGEST_VALUE]}..."
