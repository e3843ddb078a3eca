"""Compares what should exist with what does: create, change (field by field), replace, or nothing. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from comfypin.runpod.compute_request import compute_family
from comfypin.runpod.desired_state import (
    CREATION_ORDER,
    MARK_VARIABLE,
    DesiredResource,
    Reference,
    ResourceKind,
    plain_name,
)
from comfypin.runpod.errors import DeploymentInvalid, NotOurs

Verb = Literal["create", "change", "replace", "unchanged"]
LiveResources = Mapping[ResourceKind, Iterable[Mapping[str, object]]]
"""What Runpod's lists answered, by kind."""

KNOWN_AFTER_APPLY = "(known after apply)"
# Lists whose order means nothing to Runpod.
_SETS = frozenset(
    {"ports", "networkVolumes", "dataCenterIds", "gpu.pools", "gpu.excludedTypes", "gpu.allowedCudaVersions"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One field that differs: its dotted path, what Runpod has and what the file wants."""

    path: str
    before: object
    after: object


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStep:
    """One thing to do about one resource. `live` is Runpod's record of it, None if it does not exist yet."""

    verb: Verb
    desired: DesiredResource
    live: Mapping[str, object] | None = None
    changes: tuple[FieldChange, ...] = ()

    @property
    def identifier(self) -> str | None:
        """Return the resource's id on Runpod, or None if it does not exist."""
        return None if self.live is None else str(self.live["id"])


def plan_deployment(
    deployment: str, desired: Iterable[DesiredResource], live: LiveResources
) -> tuple[DeploymentStep, ...]:
    """Compare, in the order of making.

    Raises `NotOurs` on a name that somebody else's resource holds, and `DeploymentInvalid` for what cannot be done
    without losing data (a smaller or moved volume).
    """
    steps: list[DeploymentStep] = []
    known_ids: dict[tuple[ResourceKind, str], str] = {}
    for resource in desired:
        live_resource = _find_live(resource, live.get(resource.kind, ()))
        if live_resource is None:
            if resource.existing:
                raise DeploymentInvalid(path=f"volume {resource.name!r}", findings=[_no_such_volume(resource, live)])
            steps.append(DeploymentStep(verb="create", desired=resource))
            continue
        _refuse_foreign(deployment, resource, live_resource)
        known_ids[resource.kind, resource.name] = str(live_resource["id"])
        steps.append(_compare_resource(resource, live_resource, known_ids))
    return tuple(steps)


def owned_resources(deployment: str, live: LiveResources) -> list[tuple[ResourceKind, Mapping[str, object]]]:
    """Return everything that carries the deployment's mark, in the order in which it can be removed."""
    prefix = f"comfypin-{deployment}-"
    return [
        (resource_kind, resource)
        for resource_kind in reversed(CREATION_ORDER)
        for resource in live.get(resource_kind, ())
        if plain_name(resource).startswith(prefix)
        and (resource_kind in ("registry", "volume") or _deployment_mark(resource) == deployment)
    ]


def leftover_resources(
    deployment: str, steps: Iterable[DeploymentStep], live: LiveResources
) -> list[tuple[ResourceKind, Mapping[str, object]]]:
    """Return what carries the deployment's mark and is not in the file any more: apply leaves it alone."""
    planned_ids = {(plan_step.desired.kind, plan_step.identifier) for plan_step in steps}
    return [
        (resource_kind, resource)
        for resource_kind, resource in owned_resources(deployment, live)
        if (resource_kind, str(resource["id"])) not in planned_ids
    ]


def resolve_references(value: object, known_ids: Mapping[tuple[ResourceKind, str], str]) -> object:
    """Replace every reference by its id, or by `KNOWN_AFTER_APPLY` if it has none yet."""
    match value:
        case Reference(kind=resource_kind, name=name):
            return known_ids.get((resource_kind, name), KNOWN_AFTER_APPLY)
        case Mapping():
            return {key: resolve_references(nested, known_ids) for key, nested in value.items()}
        case list():
            return [resolve_references(nested, known_ids) for nested in value]
        case _:
            return value


def _find_live(resource: DesiredResource, candidates: Iterable[Mapping[str, object]]) -> Mapping[str, object] | None:
    return next(
        (live_resource for live_resource in candidates if plain_name(live_resource) == resource.remote_name), None
    )


def _deployment_mark(live_resource: Mapping[str, object]) -> str | None:
    variables = live_resource.get("env")
    return str(variables[MARK_VARIABLE]) if isinstance(variables, Mapping) and MARK_VARIABLE in variables else None


def _refuse_foreign(deployment: str, resource: DesiredResource, live_resource: Mapping[str, object]) -> None:
    # These hold no variables: their name is their mark.
    if resource.kind in ("registry", "volume"):
        return
    if _deployment_mark(live_resource) != deployment:
        raise NotOurs(kind=resource.kind, name=resource.remote_name, id=str(live_resource["id"]))


def _compare_resource(
    resource: DesiredResource, live_resource: Mapping[str, object], known_ids: Mapping[tuple[ResourceKind, str], str]
) -> DeploymentStep:
    if resource.existing:
        return DeploymentStep(verb="unchanged", desired=resource, live=live_resource)
    wanted_fields = _flatten_record(resolve_references(resource.body, known_ids))
    live_fields = _flatten_record(live_resource)
    changes = tuple(
        FieldChange(path=field_path, before=live_fields.get(field_path), after=after)
        for field_path, after in wanted_fields.items()
        # The name was compared already, and Runpod adds to those of endpoints.
        if field_path != "name" and not _is_same_value(field_path, live_fields.get(field_path), after)
        # Of a field that Runpod does not tell back nobody can say that it differs.
        if field_path in live_fields or field_path.split(".")[0] not in resource.unknown
    )
    # A variable that Runpod has and the file has not would survive in the console's eyes only: env is replaced whole.
    changes += tuple(
        FieldChange(path=field_path, before=before, after=None)
        for field_path, before in live_fields.items()
        if field_path.startswith("env.") and field_path not in wanted_fields and "env" in resource.body
    )
    if not changes:
        return DeploymentStep(verb="unchanged", desired=resource, live=live_resource)
    if resource.kind == "volume":
        _refuse_volume_loss(resource, changes)
    fixed = any(
        field_change.path in resource.immutable or _is_new_mount(resource, field_change) for field_change in changes
    )
    fixed = fixed or compute_family(resource.body) != compute_family(live_resource)
    return DeploymentStep(verb="replace" if fixed else "change", desired=resource, live=live_resource, changes=changes)


def _is_new_mount(resource: DesiredResource, field_change: FieldChange) -> bool:
    """Return whether a pod would get a kind of mount that it has not: that is fixed when it is made."""
    return resource.kind == "pod" and field_change.path.startswith("mounts.") and field_change.before is None


def _refuse_volume_loss(resource: DesiredResource, changes: Iterable[FieldChange]) -> None:
    for field_change in changes:
        if field_change.path in resource.immutable:
            finding = (
                f"{field_change.path} is {field_change.before!r} and the file says {field_change.after!r}; a volume "
                "cannot be moved or retyped: give the new one another name, push the release to it, then "
                "remove the old one"
            )
            raise DeploymentInvalid(path=f"volume {resource.name!r}", findings=[finding])
        if field_change.path == "size" and int(str(field_change.after)) < int(str(field_change.before)):
            finding = (
                f"size is {field_change.before} GB and the file says {field_change.after}; Runpod volumes only grow"
            )
            raise DeploymentInvalid(path=f"volume {resource.name!r}", findings=[finding])


def _no_such_volume(resource: DesiredResource, live: LiveResources) -> str:
    names = ", ".join(sorted(plain_name(live_resource) for live_resource in live.get("volume", ()))) or "none"
    return f"existing = true, but the account has no volume of that name; it has {names}"


def _flatten_record(value: object, prefix: str = "") -> dict[str, object]:
    """Return a nested record as dotted paths; lists of plain values stay whole, lists of records are numbered.

    The number of records is one of the paths, so that a longer list differs from a shorter one.
    """
    if isinstance(value, Mapping):
        flattened: dict[str, object] = {}
        for key, nested in value.items():
            flattened |= _flatten_record(nested, f"{prefix}.{key}" if prefix else str(key))
        return flattened
    if isinstance(value, list) and any(isinstance(nested, Mapping) for nested in value):
        flattened = {f"{prefix}.count": len(value)}
        for index, nested in enumerate(value):
            flattened |= _flatten_record(nested, f"{prefix}.{index}")
        return flattened
    return {prefix: value}


def _is_same_value(field_path: str, before: object, after: object) -> bool:
    if field_path in _SETS and isinstance(after, list):
        return sorted(map(str, before if isinstance(before, list) else ())) == sorted(map(str, after))
    if isinstance(after, float) and isinstance(before, int | float):
        # A float may come back with other last digits.
        return abs(before - after) < 1e-6
    if field_path == "args":
        return _parse_command(before) == _parse_command(after)
    # Unset and empty mean the same.
    if after in ("", None) and before in ("", None):
        return True
    return before == after


def _parse_command(command: object) -> object:
    """Return a command in its list form without its spelling: JSON may come back with other spaces and order."""
    command_text = "" if command is None else str(command)
    try:
        lists = json.loads(command_text)
    except ValueError:
        return command_text
    # An empty list is a list that is not there.
    return (
        {field_name: words for field_name, words in lists.items() if words} if isinstance(lists, dict) else command_text
    )
