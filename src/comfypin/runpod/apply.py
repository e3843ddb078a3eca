"""Carries out a plan: creates, changes and replaces resources in order, and removes them again.

There is no state file. What was made carries its mark, so a run that was cut off is resumed by planning again.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from comfypin.errors import ConfigError
from comfypin.runpod.deployment_plan import DeploymentStep, LiveResources, resolve_references
from comfypin.runpod.desired_state import CREATION_ORDER, DesiredResource, ResourceKind
from comfypin.runpod.errors import WaitedTooLong
from comfypin.runpod.management_api import ManagementApi, Resource

# Fields that POST takes and PATCH does not, by kind (UpdateEndpointRequest, UpdatePodRequest, ...).
_NOT_PATCHABLE: dict[ResourceKind, frozenset[str]] = {
    "registry": frozenset({"name"}),
    "volume": frozenset({"dataCenter", "type"}),
    "template": frozenset(),
    "endpoint": frozenset({"type"}),
    "pod": frozenset({"gpu", "cpu", "cloud"}),
}
# A pod or a worker takes tens of seconds at least.
_POLL_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedStep:
    """One step that was carried out, and the id that its resource has now."""

    step: DeploymentStep
    identifier: str


def survey_account(management_api: ManagementApi) -> LiveResources:
    """List everything the account has of the kinds that a deployment can hold."""
    return {resource_kind: management_api.list_resources(resource_kind) for resource_kind in CREATION_ORDER}


def apply_plan(
    management_api: ManagementApi,
    steps: Iterable[DeploymentStep],
    *,
    variables: Mapping[str, str],
    on_step: Callable[[DeploymentStep, str], None] = lambda _step, _id: None,
) -> tuple[AppliedStep, ...]:
    """Carry out the steps in order, telling `on_step` after each. `variables` holds registry credentials by name.

    Raises `DeployError` at the first step that fails; what was done stays and is found by the next plan.
    """
    known_ids: dict[tuple[ResourceKind, str], str] = {}
    applied = []
    for plan_step in steps:
        identifier = _carry_out(management_api, plan_step, known_ids, variables)
        known_ids[plan_step.desired.kind, plan_step.desired.name] = identifier
        on_step(plan_step, identifier)
        applied.append(AppliedStep(step=plan_step, identifier=identifier))
    return tuple(applied)


def destroy_resources(
    management_api: ManagementApi,
    resources: Iterable[tuple[ResourceKind, Mapping[str, object]]],
    *,
    on_removed: Callable[[ResourceKind, str], None] = lambda _kind, _name: None,
) -> None:
    """Remove resources, in the order given (users before what they use)."""
    for resource_kind, resource in resources:
        if resource_kind == "endpoint":
            # Runpod refuses to delete an endpoint that may still start workers.
            management_api.change_resource(resource_kind, str(resource["id"]), {"workers": {"min": 0, "max": 0}})
        management_api.remove_resource(resource_kind, str(resource["id"]))
        on_removed(resource_kind, str(resource.get("name")))


def wait_for_workers(management_api: ManagementApi, endpoint_id: str, *, wanted_count: int, timeout_s: float) -> None:
    """Return when `wanted` workers are idle or running the newest configuration. Raises `WaitedTooLong`."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = management_api.send_request("GET", f"/v2/serverless/{endpoint_id}/workers")
        workers = answer.get("workers", []) if isinstance(answer, dict) else []
        # A worker with the configuration of before takes jobs until it is replaced: it proves nothing.
        ready = [w for w in workers if w.get("status") in ("IDLE", "RUNNING") and not w.get("isStale")]
        if len(ready) >= wanted_count:
            return
        # Asked after the check above, so that a slow response at the end still counts.
        if time.monotonic() > deadline:
            states = ", ".join(sorted(str(worker.get("status")) for worker in workers)) or "no worker yet"
            raise WaitedTooLong(what=f"Endpoint {endpoint_id}", timeout_s=timeout_s, state=states)
        management_api.sleep(_POLL_S)


def _carry_out(
    management_api: ManagementApi,
    plan_step: DeploymentStep,
    known_ids: Mapping[tuple[ResourceKind, str], str],
    variables: Mapping[str, str],
) -> str:
    resource_kind = plan_step.desired.kind
    match plan_step.verb:
        case "unchanged":
            return str(plan_step.identifier)
        case "create":
            return str(_create_resource(management_api, plan_step.desired, known_ids, variables)["id"])
        case "change":
            management_api.change_resource(
                resource_kind, str(plan_step.identifier), _changed_fields(plan_step, known_ids)
            )
            return str(plan_step.identifier)
        case "replace":
            # The name is taken until the old one is gone, so removing comes first.
            destroy_resources(management_api, [(resource_kind, plan_step.live or {})])
            return str(_create_resource(management_api, plan_step.desired, known_ids, variables)["id"])


def _create_resource(
    management_api: ManagementApi,
    desired: DesiredResource,
    known_ids: Mapping[tuple[ResourceKind, str], str],
    variables: Mapping[str, str],
) -> Resource:
    request_body = resolve_references(desired.body, known_ids)
    assert isinstance(request_body, dict)
    # Credentials are in no plan and no state: they are read from the environment when they are sent.
    if desired.kind == "registry":
        credentials = {
            field: _require_variable(variables, str(desired.create_only[f"{field}_env"]))
            for field in ("username", "password")
        }
        return management_api.create_resource("registry", {**request_body, **credentials})
    create_fields = {key: value for key, value in desired.create_only.items() if key != "gpu"}
    # A pod's placement is sent when the pod is made, and never compared.
    placement = desired.create_only.get("gpu")
    gpu = {**_mapping(request_body.get("gpu")), **_mapping(placement)}
    if gpu:
        # Unset, or excluding nothing, is told by leaving it out.
        request_body["gpu"] = {
            field_name: value
            for field_name, value in gpu.items()
            if value is not None and not (field_name == "excludedTypes" and not value)
        }
    return management_api.create_resource(desired.kind, {**_as_words(request_body), **create_fields})


def _changed_fields(plan_step: DeploymentStep, known_ids: Mapping[tuple[ResourceKind, str], str]) -> dict[str, object]:
    """Return the top-level fields that differ, each whole: Runpod replaces `env`, `ports` and the like as one."""
    fixed_fields = _NOT_PATCHABLE[plan_step.desired.kind]
    fields = {change.path.split(".")[0] for change in plan_step.changes} - fixed_fields
    changed = {
        field_name: resolve_references(value, known_ids)
        for field_name, value in plan_step.desired.body.items()
        if field_name in fields
    }
    if gpu := _mapping(changed.get("gpu")):
        # A limit that is not named stays; the empty word is what clears it.
        changed["gpu"] = {field_name: "" if value is None else value for field_name, value in gpu.items()}
    return _as_words(changed)


def _as_words(request_body: Mapping[str, object]) -> dict[str, object]:
    """Return the request with `globalNetworking` as requests say it: true or false."""
    networking = request_body.get("globalNetworking")
    if not isinstance(networking, Mapping):
        return dict(request_body)
    return {**request_body, "globalNetworking": bool(networking.get("enabled"))}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _require_variable(variables: Mapping[str, str], variable_name: str) -> str:
    value = variables.get(variable_name, "")
    if not value:
        raise ConfigError(
            f"{variable_name} is not set; runpod.toml names it as a registry credential, so export it.",
            variable=variable_name,
        )
    return value
