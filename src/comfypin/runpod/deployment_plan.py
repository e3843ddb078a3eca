"""What should exist against what does: create, change (field by field), replace, or nothing. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

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
"""What RunPod's lists answered, by kind."""

KNOWN_AFTER_APPLY = "(known after apply)"
# Lists whose order means nothing to RunPod.
_SETS = frozenset({"ports", "networkVolumes", "dataCenterIds", "gpu.pools", "gpu.excludedTypes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One field that differs: its dotted path, what RunPod has and what the file wants."""

    path: str
    before: object
    after: object


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStep:
    """What is to be done about one resource. `live` is RunPod's record of it, None where there is none yet."""

    verb: Verb
    desired: DesiredResource
    live: Mapping[str, object] | None = None
    changes: tuple[FieldChange, ...] = ()

    @property
    def identifier(self) -> str | None:
        """The resource's id on RunPod, where it exists."""
        return None if self.live is None else str(self.live["id"])


def plan_deployment(
    deployment: str, desired: Iterable[DesiredResource], live: LiveResources
) -> tuple[DeploymentStep, ...]:
    """Compare, in the order of making.

    Raises `NotOurs` on a name that somebody else's resource holds, and `DeploymentInvalid` for what cannot be done
    without losing data (a smaller or moved volume).
    """
    steps: list[DeploymentStep] = []
    known: dict[tuple[ResourceKind, str], str] = {}
    for item in desired:
        found = _find_live(item, live.get(item.kind, ()))
        if found is None:
            if item.existing:
                raise DeploymentInvalid(path=f"volume {item.name!r}", findings=[_no_such_volume(item, live)])
            steps.append(DeploymentStep(verb="create", desired=item))
            continue
        _refuse_foreign(deployment, item, found)
        known[item.kind, item.name] = str(found["id"])
        steps.append(_compare_resource(item, found, known))
    return tuple(steps)


def owned_resources(deployment: str, live: LiveResources) -> list[tuple[ResourceKind, Mapping[str, object]]]:
    """Everything on RunPod that carries the deployment's mark, in the order in which it can be removed."""
    prefix = f"comfypin-{deployment}-"
    return [
        (kind, item)
        for kind in reversed(CREATION_ORDER)
        for item in live.get(kind, ())
        if plain_name(item).startswith(prefix)
        and (kind in ("registry", "volume") or _deployment_mark(item) == deployment)
    ]


def leftover_resources(
    deployment: str, steps: Iterable[DeploymentStep], live: LiveResources
) -> list[tuple[ResourceKind, Mapping[str, object]]]:
    """What carries the deployment's mark and is not in the file any more: apply leaves it alone."""
    named = {(step.desired.kind, step.identifier) for step in steps}
    return [(kind, item) for kind, item in owned_resources(deployment, live) if (kind, str(item["id"])) not in named]


def resolve_references(value: object, known: Mapping[tuple[ResourceKind, str], str]) -> object:
    """The value with every reference replaced by its id, or by `KNOWN_AFTER_APPLY` where there is none yet."""
    match value:
        case Reference(kind=kind, name=name):
            return known.get((kind, name), KNOWN_AFTER_APPLY)
        case Mapping():
            return {key: resolve_references(item, known) for key, item in value.items()}
        case list():
            return [resolve_references(item, known) for item in value]
        case _:
            return value


def _find_live(item: DesiredResource, candidates: Iterable[Mapping[str, object]]) -> Mapping[str, object] | None:
    return next((found for found in candidates if plain_name(found) == item.remote_name), None)


def _deployment_mark(found: Mapping[str, object]) -> str | None:
    env = found.get("env")
    return str(env[MARK_VARIABLE]) if isinstance(env, Mapping) and MARK_VARIABLE in env else None


def _refuse_foreign(deployment: str, item: DesiredResource, found: Mapping[str, object]) -> None:
    if item.kind in ("registry", "volume"):
        return
    if _deployment_mark(found) != deployment:
        raise NotOurs(kind=item.kind, name=item.remote_name, id=str(found["id"]))


def _compare_resource(
    item: DesiredResource, found: Mapping[str, object], known: Mapping[tuple[ResourceKind, str], str]
) -> DeploymentStep:
    if item.existing:
        return DeploymentStep(verb="unchanged", desired=item, live=found)
    wanted = _flatten_record(resolve_references(item.body, known))
    actual = _flatten_record(found)
    changes = tuple(
        FieldChange(path=path, before=actual.get(path), after=after)
        for path, after in wanted.items()
        if path != "name" and not _is_same_value(path, actual.get(path), after)
    )
    # A variable that RunPod has and the file has not would survive in the console's eyes only: env is replaced whole.
    changes += tuple(
        FieldChange(path=path, before=before, after=None)
        for path, before in actual.items()
        if path.startswith("env.") and path not in wanted and "env" in item.body
    )
    if not changes:
        return DeploymentStep(verb="unchanged", desired=item, live=found)
    if item.kind == "volume":
        _refuse_volume_loss(item, changes)
    fixed = any(change.path in item.immutable for change in changes)
    return DeploymentStep(verb="replace" if fixed else "change", desired=item, live=found, changes=changes)


def _refuse_volume_loss(item: DesiredResource, changes: Iterable[FieldChange]) -> None:
    for change in changes:
        if change.path in item.immutable:
            finding = (
                f"{change.path} is {change.before!r} and the file says {change.after!r}; a volume cannot be moved "
                "or retyped: give the new one another name, push the release to it, then remove the old one"
            )
            raise DeploymentInvalid(path=f"volume {item.name!r}", findings=[finding])
        if change.path == "size" and int(str(change.after)) < int(str(change.before)):
            finding = f"size is {change.before} GB and the file says {change.after}; RunPod volumes only grow"
            raise DeploymentInvalid(path=f"volume {item.name!r}", findings=[finding])


def _no_such_volume(item: DesiredResource, live: LiveResources) -> str:
    names = ", ".join(sorted(plain_name(found) for found in live.get("volume", ()))) or "none"
    return f"existing = true, but the account has no volume of that name; it has {names}"


def _flatten_record(value: object, prefix: str = "") -> dict[str, object]:
    """A nested record as dotted paths; lists of plain values stay whole, lists of records are numbered."""
    if isinstance(value, Mapping):
        flat: dict[str, object] = {}
        for key, item in value.items():
            flat |= _flatten_record(item, f"{prefix}.{key}" if prefix else str(key))
        return flat
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        flat = {}
        for index, item in enumerate(value):
            flat |= _flatten_record(item, f"{prefix}.{index}")
        return flat
    return {prefix: value}


def _is_same_value(path: str, before: object, after: object) -> bool:
    if path in _SETS and isinstance(after, list):
        return sorted(map(str, before if isinstance(before, list) else ())) == sorted(map(str, after))
    if isinstance(after, float) and isinstance(before, int | float):
        return abs(before - after) < 1e-6
    if after in ("", None) and before in ("", None):
        return True
    return before == after
