"""Carries out a plan of `comfypin runpod up`, one step after the other, and notes on the disk what was done.

Killed anywhere, the next run plans again: resources are found by name, a fill by its pod or by its note, and what
was already done is not done twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from comfypin.runpod.apply import apply_plan
from comfypin.runpod.deployment_plan import DeploymentStep
from comfypin.runpod.errors import ApiRefused
from comfypin.runpod.management_api import ManagementApi
from comfypin.runpod.up.choices import FILL_VCPUS
from comfypin.runpod.up.errors import FillFailed, SecretUnset
from comfypin.runpod.up.fill_pod import follow_fill
from comfypin.runpod.up.fill_report import FillNews
from comfypin.runpod.up.plan import UpFacts, UpPlan, fill_pod_body
from comfypin.runpod.up.platform_secrets import make_secret
from comfypin.runpod.up.state import StateFolder, UpRelease, UpState


@dataclass(frozen=True, slots=True, kw_only=True)
class UpMeans:
    """What a run works with: the API, the folder of its state, values of secrets by variable, and a report.

    `cpu` is the flavour of the pod that fills the volume.
    """

    management_api: ManagementApi
    folder: StateFolder
    report: Callable[[str], None]
    secret_values: Mapping[str, str] = field(default_factory=dict, repr=False)
    cpu: str | None = None
    fill_timeout_s: float = 7200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOutcome:
    """Where the deployment is now: the endpoint's id, and the state that was written."""

    endpoint_id: str
    state: UpState


def carry_out_plan(plan: UpPlan, facts: UpFacts, state: UpState, means: UpMeans) -> UpOutcome:
    """Do what is left, but for the job through the endpoint. Raises `DeployError` at the first step that fails."""
    state = state.with_release(plan.release)
    means.folder.write(state)
    # Before anything starts: the platform fills secrets in when a container begins.
    _make_secrets(plan, means)
    for pod in plan.idle_pods:
        means.management_api.remove_resource("pod", str(pod["id"]))
        means.report(f"remove pod {pod['name']} ({pod['id']})")
    volumes, endpoints = _split_resources(plan)
    volume_id = _apply(volumes, means, {})
    if plan.fill is not None and not plan.fill.is_done:
        _fill_volume(plan, facts, means, str(volume_id))
        # Noted at once: a later step that fails must not cost another fill of an hour.
        state = state.with_filled(str(volume_id), plan.release.lock_digest)
        means.folder.write(state)
    endpoint_id = str(_apply((*volumes, *endpoints), means, {"volume": volume_id}))
    state = note_stage(state, plan.release, "deployed", means.folder)
    return UpOutcome(endpoint_id=endpoint_id, state=state)


def note_stage(
    state: UpState, release: UpRelease, stage: str, folder: StateFolder, seconds: Mapping[str, float] | None = None
) -> UpState:
    """Write how far a release has come, and return the state."""
    known = next((known_release for known_release in state.releases if known_release.number == release.number), release)
    # What was proven is not less so because it was deployed again.
    reached = known.stage if known.stage == "proven" and stage == "deployed" else stage
    state = state.with_release(
        replace(release, stage=reached, seconds=seconds if seconds is not None else known.seconds)
    )
    folder.write(state)
    return state


def _make_secrets(plan: UpPlan, means: UpMeans) -> None:
    for secret in plan.secrets:
        # The platform never shows a value, so there is nothing to compare; a new value is set by hand.
        if secret.is_there:
            continue
        value = means.secret_values.get(secret.variable, "")
        if not value:
            raise SecretUnset(variable=secret.variable)
        make_secret(means.management_api, secret.secret_name, value)
        means.report(f"create secret {secret.secret_name}")


def _split_resources(plan: UpPlan) -> tuple[tuple[DeploymentStep, ...], tuple[DeploymentStep, ...]]:
    """Return the steps before the fill, and those after it: an endpoint starts its workers at once."""
    before = tuple(step for step in plan.resources if step.desired.kind != "endpoint")
    after = tuple(step for step in plan.resources if step.desired.kind == "endpoint")
    return before, after


def _apply(steps: tuple[DeploymentStep, ...], means: UpMeans, done: Mapping[str, str | None]) -> str | None:
    """Carry out steps and return the id of the last one. Those of a kind in `done` are only there to be referred to."""
    known = tuple(
        replace(step, verb="unchanged", live={"id": done[step.desired.kind]}, changes=())
        if done.get(step.desired.kind) is not None
        else step
        for step in steps
    )

    def report_step(step: DeploymentStep, identifier: str) -> None:
        if step.verb != "unchanged":
            means.report(f"{step.verb} {step.desired.kind} {step.desired.remote_name} ({identifier})")

    applied = apply_plan(means.management_api, known, variables={}, on_step=report_step)
    return applied[-1].identifier if applied else None


def _fill_volume(plan: UpPlan, facts: UpFacts, means: UpMeans, volume_id: str) -> None:
    assert plan.fill is not None
    if plan.fill.live is not None:
        pod_id = str(plan.fill.live["id"])
        means.report(f"fill volume {volume_id}: pod {pod_id} goes on")
    else:
        pod_id = _start_pod(plan, facts, means, volume_id)

    def report_news(news: FillNews) -> None:
        what = "done" if news.filled else news.phase
        means.report(f"fill volume: {what} in {news.seconds:.1f} s{f', {news.detail}' if news.detail else ''}")

    follow_fill(means.management_api, pod_id, timeout_s=means.fill_timeout_s, on_news=report_news)


def _start_pod(plan: UpPlan, facts: UpFacts, means: UpMeans, volume_id: str) -> str:
    if means.cpu is None:
        raise FillFailed(reason="no CPU for its pod is available in the volume's data centre; try later")
    pod_fields = fill_pod_body(plan, facts, cpu=means.cpu, vcpus=FILL_VCPUS, volume_id=volume_id)
    try:
        pod = means.management_api.create_resource("pod", pod_fields)
    except ApiRefused as refused:
        raise FillFailed(reason=f"its pod could not be made: {refused.message.rstrip('.')}") from refused
    means.report(f"fill volume {volume_id}: pod {pod['id']}")
    return str(pod["id"])
