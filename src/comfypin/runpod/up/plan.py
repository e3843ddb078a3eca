"""Plans `comfypin runpod up`: from what is wanted and what exists to the steps that are left. Pure.

The order is the order in which one step needs another: secrets, the volume, its filling, the endpoint, a job through
it. A run that was cut off is planned again, and what it did is found done.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from comfypin.lock.carried import LONGEST_VARIABLE
from comfypin.runpod.deployment_file import Deployment, EndpointConfig, TemplateConfig, VolumeConfig, WorkersConfig
from comfypin.runpod.deployment_plan import DeploymentStep, LiveResources, plan_deployment
from comfypin.runpod.desired_state import MARK_VARIABLE, SERVERLESS_MOUNT, desired_state, plain_name, remote_name
from comfypin.runpod.release_facts import ReleaseFacts, to_gigabytes
from comfypin.runpod.up.choices import Place
from comfypin.runpod.up.errors import LockTooLarge
from comfypin.runpod.up.state import UpRelease, UpState

ENDPOINT, VOLUME, TEMPLATE = "api", "data", "worker"
LOCKS_FOLDER = "comfypin/locks"
# Runpod makes no smaller one.
_SMALLEST_VOLUME_GB = 10
# What an env pack of torch for CUDA and its packages takes, with room for the next one while the old is in use.
_ENV_GB = 12
_NOT_IN_SECRETS = re.compile(r"[^a-zA-Z0-9_]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretStep:
    """A secret of the platform that is to be made from a variable of this machine; its value is nowhere in the plan."""

    variable: str
    secret_name: str
    is_there: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FillStep:
    """A CPU pod at the volume that fetches the models and builds the env. `live` is the pod if it runs already."""

    pod_name: str
    is_done: bool
    live: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpPlan:
    """What is left to do. `smoke` says whether a job goes through the endpoint at the end."""

    name: str
    release: UpRelease
    deployment: Deployment
    secrets: tuple[SecretStep, ...] = ()
    resources: tuple[DeploymentStep, ...] = ()
    fill: FillStep | None = None
    idle_pods: tuple[Mapping[str, object], ...] = ()
    smoke: bool = False

    @property
    def is_empty(self) -> bool:
        """Return whether everything is as it should be."""
        return not (
            any(not secret.is_there for secret in self.secrets)
            or any(step.verb != "unchanged" for step in self.resources)
            or (self.fill is not None and not self.fill.is_done)
            or self.idle_pods
            or self.smoke
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretWish:
    """A variable of the workers whose value is a secret of the platform; `own_value` if this machine brings it."""

    variable: str
    secret_name: str
    own_value: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UpFacts:
    """What the plan is made from besides the release: the lock's facts and text, and what Runpod has."""

    release_facts: ReleaseFacts
    carried_lock: str
    live: LiveResources
    known_secrets: frozenset[str] = frozenset()
    secrets: Sequence[SecretWish] = field(default_factory=tuple)


def secret_name(deployment: str, variable: str) -> str:
    """Return the name of a deployment's secret on the platform: letters, digits and underscores."""
    return _NOT_IN_SECRETS.sub("_", f"comfypin_{deployment}_{variable}")


def secret_reference(secret_name: str) -> str:
    """Return the value of a variable that the platform fills in."""
    return "{{ RUNPOD_SECRET_" + secret_name + " }}"


def needs_volume(lock_engine: str, release_facts: ReleaseFacts) -> bool:
    """Return whether there is anything that every worker would otherwise fetch for itself: models, or an env."""
    return lock_engine == "comfyui" or release_facts.models_bytes > 0


def volume_size_gb(release_facts: ReleaseFacts, *, builds_env: bool) -> int:
    """Return the size of a volume that holds the release, with a fifth of its models' size to spare."""
    models_gb = to_gigabytes(release_facts.models_bytes) * 1.2
    return max(_SMALLEST_VOLUME_GB, math.ceil(models_gb + (_ENV_GB if builds_env else 1)))


def find_volume(deployment_name: str, live: LiveResources) -> Mapping[str, object] | None:
    """Return the deployment's volume, or None before it is made."""
    return _find_named(live.get("volume", ()), remote_name(deployment_name, VOLUME))


def place_release(release: UpRelease, place: Place, volume_gb: int | None) -> UpRelease:
    """Return the release with its place."""
    return replace(release, gpu_pools=place.pools, data_center=place.data_center, volume_gb=volume_gb)


def fill_pod_name(deployment_name: str, lock_digest: str) -> str:
    """Return the pod's name, one a lock: a second `up` finds the pod of the first."""
    return remote_name(deployment_name, f"fill-{lock_digest.removeprefix('sha256:')[:12]}")


def plan_up(deployment_name: str, release: UpRelease, facts: UpFacts, state: UpState) -> UpPlan:
    """Return what is left to do for this release.

    Raises `NotOurs`, `DeploymentInvalid` (a volume that would have to move), `LockTooLarge`.
    """
    live_volume = find_volume(deployment_name, facts.live)
    grown = _never_smaller(release, live_volume)
    deployment = make_deployment(deployment_name, grown, facts)
    # Endpoints carry their container settings themselves: a template of our own would only be one thing more.
    wanted_resources = [
        resource for resource in desired_state(deployment, facts.release_facts) if resource.kind != "template"
    ]
    resources = plan_deployment(deployment_name, wanted_resources, facts.live)
    fill, idle_pods = _plan_fill(deployment_name, grown, facts, state, live_volume)
    changed = any(step.verb != "unchanged" for step in resources)
    current = state.current
    is_proven = current is not None and current.stage == "proven" and current.deploys_as(grown)
    same_workflow = current is not None and current.workflow_sha256 == grown.workflow_sha256
    return UpPlan(
        name=deployment_name,
        release=grown,
        deployment=deployment,
        secrets=tuple(
            SecretStep(
                variable=wish.variable, secret_name=wish.secret_name, is_there=wish.secret_name in facts.known_secrets
            )
            for wish in facts.secrets
        ),
        resources=resources,
        fill=fill,
        idle_pods=idle_pods,
        smoke=changed or not is_proven or not same_workflow,
    )


def make_deployment(deployment_name: str, release: UpRelease, facts: UpFacts) -> Deployment:
    """Return the release as a deployment: one endpoint, and one volume if the release needs it."""
    has_volume = release.volume_gb is not None and release.data_center is not None
    volumes = (
        (VolumeConfig(name=VOLUME, data_center=str(release.data_center), size=int(release.volume_gb or 0)),)
        if has_volume
        else ()
    )
    return Deployment(
        name=deployment_name,
        release=release.release,
        image=release.image,
        env={**release.env, **lock_variables(release, facts.carried_lock)},
        volume=volumes,
        template=(TemplateConfig(name=TEMPLATE),),
        endpoint=(
            EndpointConfig(
                name=ENDPOINT,
                template=TEMPLATE,
                gpu_pools=release.gpu_pools,
                workers=WorkersConfig(max=release.max_workers, idle_timeout=release.idle_timeout_s),
                volumes=(VOLUME,) if has_volume else (),
                # A volume ties its endpoint to its data centre; naming it again would be a second truth.
                data_centers=() if has_volume or release.data_center is None else (release.data_center,),
                timeout=release.timeout_s,
            ),
        ),
    )


def lock_variables(release: UpRelease, carried_lock: str) -> dict[str, str]:
    """Return how a worker finds the lock: on the volume, at its address, or in a variable. Raises `LockTooLarge`."""
    if release.volume_gb is not None:
        return {"LOCK_PATH": f"{SERVERLESS_MOUNT}/{LOCKS_FOLDER}/{_hex(release)}.lock.json"}
    return travelling_lock(release, carried_lock)


def travelling_lock(release: UpRelease, carried_lock: str) -> dict[str, str]:
    """Return how the lock comes to a machine that has no volume with it yet. Raises `LockTooLarge`."""
    return carried_lock_variables(carried_lock, release=release.release, lock_url=release.lock_url)


def carried_lock_variables(carried_lock: str, *, release: str, lock_url: str | None) -> dict[str, str]:
    """Return the variable with a lock, or with its address. Raises `LockTooLarge`."""
    if lock_url is not None:
        return {"COMFYPIN_LOCK_URL": lock_url}
    if len(carried_lock) > LONGEST_VARIABLE:
        raise LockTooLarge(release=release, characters=len(carried_lock), limit=LONGEST_VARIABLE)
    return {"COMFYPIN_LOCK_DATA": carried_lock}


def fill_pod_body(plan: UpPlan, facts: UpFacts, *, cpu: str, vcpus: int, volume_id: str) -> dict[str, object]:
    """Return the request for the pod that fills the volume. It has the volume where workers have it."""
    release, mount = plan.release, SERVERLESS_MOUNT
    variables = {
        **release.env,
        **travelling_lock(release, facts.carried_lock),
        "COMFYPIN_LOCK_DIGEST": release.lock_digest,
        "MODELS_DIR": f"{mount}/models",
        "COMFYPIN_PACKS": f"{mount}/packs",
        MARK_VARIABLE: plan.name,
    }
    return {
        "name": fill_pod_name(plan.name, release.lock_digest),
        "image": release.image,
        "args": f"comfypin runpod fill --volume {mount}",
        # The env, and the wheels that it is made from.
        "disk": facts.release_facts.container_disk_gb + 10,
        # Nobody connects to it: it tells its progress in its log.
        "ports": [],
        "env": variables,
        "registry": None,
        "cpu": {"id": cpu, "vcpuCount": vcpus},
        "cloud": "SECURE",
        "dataCenterIds": [release.data_center],
        "mounts": {"network": [{"volumeId": volume_id, "path": mount}]},
    }


def _plan_fill(
    deployment_name: str, release: UpRelease, facts: UpFacts, state: UpState, live_volume: Mapping[str, object] | None
) -> tuple[FillStep | None, tuple[Mapping[str, object], ...]]:
    prefix = remote_name(deployment_name, "fill-")
    pods = [pod for pod in facts.live.get("pod", ()) if plain_name(pod).startswith(prefix)]
    if release.volume_gb is None:
        return None, tuple(pods)
    pod_name = fill_pod_name(deployment_name, release.lock_digest)
    is_done = live_volume is not None and state.is_filled(str(live_volume["id"]), release.lock_digest)
    live = None if is_done else _find_named(pods, pod_name)
    return (
        FillStep(pod_name=pod_name, is_done=is_done, live=live),
        # A pod that nobody waits for is billed until somebody removes it.
        tuple(pod for pod in pods if live is None or pod["id"] != live["id"]),
    )


def _never_smaller(release: UpRelease, live_volume: Mapping[str, object] | None) -> UpRelease:
    """Return the release with at least the volume that is there: volumes only grow, and never for nothing."""
    # Runpod cannot shrink a volume, and bills each gigabyte that was added.
    size = None if live_volume is None else live_volume.get("size")
    if release.volume_gb is None or not isinstance(size, int):
        return release
    return replace(release, volume_gb=max(size, release.volume_gb))


def _find_named(resources: Iterable[Mapping[str, object]], resource_name: str) -> Mapping[str, object] | None:
    return next((resource for resource in resources if plain_name(resource) == resource_name), None)


def _hex(release: UpRelease) -> str:
    return release.lock_digest.removeprefix("sha256:")
