"""Carries out a plan: makes, changes and replaces resources in order, and takes them away again.

There is no state file. What was made carries its mark, so a run that was cut off is resumed by planning again.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from comfypin.errors import ConfigError
from comfypin.runpod.deployment_plan import Live, Step, resolved
from comfypin.runpod.desired_state import ORDER, Desired, Kind
from comfypin.runpod.errors import WaitedTooLong
from comfypin.runpod.management_api import Api, Record

# What PATCH does not take though POST does, by kind (UpdateEndpointRequest, UpdatePodRequest, ...).
_NOT_PATCHABLE: dict[Kind, frozenset[str]] = {
    "registry": frozenset({"name"}),
    "volume": frozenset({"dataCenter", "type"}),
    "template": frozenset(),
    "endpoint": frozenset({"type"}),
    "pod": frozenset({"gpu", "cloud"}),
}
_POLL_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What one step came to: its verb, and the id the resource has now."""

    step: Step
    identifier: str


def survey(api: Api) -> Live:
    """All the account has of the kinds a deployment can hold."""
    return {kind: api.everything(kind) for kind in ORDER}


def apply(
    api: Api,
    steps: Iterable[Step],
    *,
    variables: Mapping[str, str],
    on_step: Callable[[Step, str], None] = lambda _step, _id: None,
) -> tuple[Applied, ...]:
    """Carry out the steps in order, telling `on_step` after each. `variables` holds registry credentials by name.

    Raises `DeployError` at the first step that fails; what was done stays and is found by the next plan.
    """
    known: dict[tuple[Kind, str], str] = {}
    done = []
    for step in steps:
        identifier = _carry_out(api, step, known, variables)
        known[step.desired.kind, step.desired.name] = identifier
        on_step(step, identifier)
        done.append(Applied(step=step, identifier=identifier))
    return tuple(done)


def destroy(
    api: Api,
    resources: Iterable[tuple[Kind, Mapping[str, object]]],
    *,
    on_removed: Callable[[Kind, str], None] = lambda _kind, _name: None,
) -> None:
    """Remove resources, in the order given (users before what they use)."""
    for kind, item in resources:
        if kind == "endpoint":
            # RunPod refuses to delete an endpoint that may still start workers.
            api.change(kind, str(item["id"]), {"workers": {"min": 0, "max": 0}})
        api.remove(kind, str(item["id"]))
        on_removed(kind, str(item.get("name")))


def wait_for_workers(api: Api, endpoint_id: str, *, wanted: int, timeout_s: float) -> None:
    """Return when `wanted` workers are idle or running the newest configuration. Raises `WaitedTooLong`."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = api.request("GET", f"/v2/serverless/{endpoint_id}/workers")
        workers = answer.get("workers", []) if isinstance(answer, dict) else []
        ready = [w for w in workers if w.get("status") in ("IDLE", "RUNNING") and not w.get("isStale")]
        if len(ready) >= wanted:
            return
        if time.monotonic() > deadline:
            states = ", ".join(sorted(str(worker.get("status")) for worker in workers)) or "no worker yet"
            raise WaitedTooLong(what=f"Endpoint {endpoint_id}", timeout_s=timeout_s, state=states)
        api.sleep(_POLL_S)


def _carry_out(api: Api, step: Step, known: Mapping[tuple[Kind, str], str], variables: Mapping[str, str]) -> str:
    kind = step.desired.kind
    match step.verb:
        case "unchanged":
            return str(step.identifier)
        case "create":
            return str(_make(api, step.desired, known, variables)["id"])
        case "change":
            api.change(kind, str(step.identifier), _patch(step, known))
            return str(step.identifier)
        case "replace":
            # The name is taken until the old one is gone, so removing comes first.
            destroy(api, [(kind, step.live or {})])
            return str(_make(api, step.desired, known, variables)["id"])


def _make(api: Api, desired: Desired, known: Mapping[tuple[Kind, str], str], variables: Mapping[str, str]) -> Record:
    body = resolved(desired.body, known)
    assert isinstance(body, dict)
    if desired.kind == "registry":
        credentials = {
            field: _variable(variables, str(desired.create_only[f"{field}_env"])) for field in ("username", "password")
        }
        return api.create("registry", {**body, **credentials})
    gpu = desired.create_only.get("gpu")
    extra = {key: value for key, value in desired.create_only.items() if key != "gpu"}
    if isinstance(gpu, Mapping):
        body["gpu"] = {**body["gpu"], **gpu}
    if isinstance(body.get("gpu"), dict) and not body["gpu"].get("excludedTypes", True):
        del body["gpu"]["excludedTypes"]
    return api.create(desired.kind, {**body, **extra})


def _patch(step: Step, known: Mapping[tuple[Kind, str], str]) -> dict[str, object]:
    """Only the top-level fields that differ, whole: RunPod replaces `env`, `ports` and the like as one."""
    fixed = _NOT_PATCHABLE[step.desired.kind]
    fields = {change.path.split(".")[0] for change in step.changes} - fixed
    return {name: resolved(value, known) for name, value in step.desired.body.items() if name in fields}


def _variable(variables: Mapping[str, str], name: str) -> str:
    value = variables.get(name, "")
    if not value:
        raise ConfigError(f"{name} is not set; runpod.toml names it as a registry credential.", variable=name)
    return value
