"""Turns a deployment and its release's facts into the request bodies of Runpod's API. Pure.

Container settings are written out on every endpoint and pod, not only on the templates: Runpod applies a template once
and keeps no link to it, so only what is on the resource itself can be compared later.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from comfypin.runpod.compute_request import endpoint_compute, pod_compute, pod_placement
from comfypin.runpod.deployment_file import DEFAULT_POD_MOUNT, Deployment, EndpointConfig, PodConfig, TemplateConfig
from comfypin.runpod.release_facts import ReleaseFacts, to_gigabytes

ResourceKind = Literal["registry", "volume", "template", "endpoint", "pod"]
CREATION_ORDER: tuple[ResourceKind, ...] = ("registry", "volume", "template", "endpoint", "pod")
MARK_VARIABLE = "COMFYPIN_DEPLOYMENT"
SERVE_PORT = 8000
SERVERLESS_MOUNT = "/runpod-volume"
POD_MOUNT = DEFAULT_POD_MOUNT
# The container looks at these by itself; of any other mount it has to be told.
_KNOWN_MOUNTS = (SERVERLESS_MOUNT, POD_MOUNT)
_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
_FIXED_OF_PODS = frozenset(
    {"gpu.id", "gpu.count", "cpu.id", "cpu.vcpuCount", "cloud", "mounts.network.0.volumeId", "mounts.network.count"}
)
_FLASHBOOT = {"off": "OFF", "on": "FLASHBOOT", "priority": "PRIORITY_FLASHBOOT"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Points to another resource, which may have no id before apply, by its kind and its name in the file."""

    kind: ResourceKind
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredResource:
    """One resource as it should be. `name` is the file's; `remote_name` carries the deployment's name.

    `create_only` fields are sent when it is made and are neither compared nor changed; a difference in an `immutable`
    field (dotted path) can only be mended by replacing the resource. `existing` ones are used and never written.
    `unknown` fields are of `api_fields`: Runpod may take them without telling them back.
    """

    kind: ResourceKind
    name: str
    remote_name: str
    body: Mapping[str, object]
    create_only: Mapping[str, object] = field(default_factory=dict)
    immutable: frozenset[str] = frozenset()
    existing: bool = False
    unknown: frozenset[str] = frozenset()


def desired_state(deployment: Deployment, release_facts: ReleaseFacts) -> list[DesiredResource]:
    """All resources of the file, in the order in which they can be made."""
    return [
        *_desired_registries(deployment),
        *_desired_volumes(deployment),
        *(_desired_template(deployment, release_facts, template) for template in deployment.template),
        *(_desired_endpoint(deployment, release_facts, endpoint) for endpoint in deployment.endpoint),
        *(_desired_pod(deployment, release_facts, pod) for pod in deployment.pod),
    ]


def remote_name(deployment: str, resource_name: str) -> str:
    """Return a resource's name on Runpod. For volumes and registries, which hold no variables, it is the whole mark."""
    return f"comfypin-{deployment}-{resource_name}"


def plain_name(resource: Mapping[str, object]) -> str:
    """Return a resource's name as it was given."""
    # Runpod appends " -fb" to the name of an endpoint with FlashBoot.
    return str(resource.get("name", "")).removesuffix(" -fb")


def _desired_registries(deployment: Deployment) -> list[DesiredResource]:
    return [
        DesiredResource(
            kind="registry",
            name=resource_config.name,
            remote_name=remote_name(deployment.name, resource_config.name),
            body={"name": remote_name(deployment.name, resource_config.name)},
            # Runpod never tells credentials back, so they cannot be compared; apply reads these variables.
            create_only={"username_env": resource_config.username_env, "password_env": resource_config.password_env},
        )
        for resource_config in deployment.registry
    ]


def _desired_volumes(deployment: Deployment) -> list[DesiredResource]:
    volumes = []
    for resource_config in deployment.volume:
        volume_name = (
            resource_config.name if resource_config.existing else remote_name(deployment.name, resource_config.name)
        )
        request_body: dict[str, object] = {
            "name": volume_name,
            "size": resource_config.size,
            "dataCenter": resource_config.data_center,
        }
        if resource_config.type is not None:
            request_body["type"] = resource_config.type
        volumes.append(
            DesiredResource(
                kind="volume",
                name=resource_config.name,
                remote_name=volume_name,
                body=request_body,
                immutable=frozenset({"dataCenter", "type"}),
                existing=resource_config.existing,
            )
        )
    return volumes


def _volume_variables(mount: str) -> dict[str, str]:
    """Return where `comfypin runpod volume push` puts models and env packs, as variables for the engine."""
    places = {"MODELS_DIR": f"{mount}/models", "COMFYPIN_PACKS": f"{mount}/packs"}
    return places if mount in _KNOWN_MOUNTS else {**places, "COMFYPIN_VOLUME": mount}


def _merge_variables(
    deployment: Deployment,
    release_facts: ReleaseFacts,
    own_variables: Mapping[str, str],
    volume_variables: Mapping[str, str] = _NO_VARIABLES,
) -> dict[str, str]:
    return {
        # First, so that a deployment's own variables win over these.
        **volume_variables,
        **deployment.env,
        **deployment.storage,
        **own_variables,
        # Last, because nothing in the file may claim another release.
        "COMFY_VERSION_NAME": release_facts.name,
        "COMFYPIN_LOCK_DIGEST": str(release_facts.digest),
        MARK_VARIABLE: deployment.name,
    }


def _container_settings(
    deployment: Deployment, release_facts: ReleaseFacts, template: TemplateConfig
) -> dict[str, object]:
    ports = template.ports
    if ports is None:
        ports = (f"{SERVE_PORT}/http",) if template.kind == "pod" else ()
    return {
        "image": template.image or deployment.image or "",
        "args": _command_line(template),
        "disk": template.disk or needed_disk_gb(deployment, release_facts, template),
        "ports": list(ports),
        "env": _merge_variables(deployment, release_facts, template.env),
        "registry": Reference(kind="registry", name=template.registry) if template.registry else None,
    }


def _command_line(template: TemplateConfig) -> str:
    """Return the command as Runpod stores it: a line that it splits, or lists as a JSON object."""
    if template.cmd is None and template.entrypoint is None:
        return template.args
    # The fields `cmd` and `entrypoint` of newer APIs encode into this one, which all of them have;
    # https://docs.runpod.io/api-reference-v2/pods/create-a-pod
    lists = {"entrypoint": template.entrypoint, "cmd": template.cmd}
    return json.dumps({field_name: list(words) for field_name, words in lists.items() if words is not None})


def needed_disk_gb(deployment: Deployment, release_facts: ReleaseFacts, template: TemplateConfig) -> int:
    """Return the container disk that a template needs: for an env, and for the models if no volume holds them."""
    users = [
        *(
            bool(resource_config.volumes)
            for resource_config in deployment.endpoint
            if resource_config.template == template.name
        ),
        *(
            resource_config.volume is not None
            for resource_config in deployment.pod
            if resource_config.template == template.name
        ),
    ]
    on_volumes = all(users) or template.volume_disk is not None
    return release_facts.container_disk_gb + (0 if on_volumes else math.ceil(to_gigabytes(release_facts.models_bytes)))


def _desired_template(deployment: Deployment, release_facts: ReleaseFacts, template: TemplateConfig) -> DesiredResource:
    request_body: dict[str, object] = {
        "name": remote_name(deployment.name, template.name),
        **_container_settings(deployment, release_facts, template),
        "serverless": template.kind == "serverless",
        "public": False,
        "startJupyter": False,
        "startSsh": template.kind == "pod" and "22/tcp" in (template.ports or ()),
    }
    if template.volume_disk is not None:
        request_body["mounts"] = {"persistent": {"size": template.volume_disk, "path": POD_MOUNT}}
    return DesiredResource(
        kind="template",
        name=template.name,
        remote_name=str(request_body["name"]),
        body=_add_api_fields(request_body, template.api_fields),
        immutable=frozenset(),
        unknown=frozenset(template.api_fields),
    )


def _desired_endpoint(deployment: Deployment, release_facts: ReleaseFacts, endpoint: EndpointConfig) -> DesiredResource:
    template = next(
        resource_config for resource_config in deployment.template if resource_config.name == endpoint.template
    )
    container = _container_settings(deployment, release_facts, template)
    variables = _merge_variables(
        deployment,
        release_facts,
        {**template.env, **endpoint.env},
        {
            **(_volume_variables(SERVERLESS_MOUNT) if endpoint.volumes else {}),
            "RUNPOD_INIT_TIMEOUT": str(release_facts.init_timeout_s),
        },
    )
    if endpoint.type == "load-balancer":
        variables = {**variables, **_serving_variables(variables)}
        # A port that is not exposed is 8 minutes of a worker that bills, and then a 502.
        container["ports"] = container["ports"] or [f"{variables['PORT']}/http"]
    container["env"] = variables
    endpoint_name = remote_name(deployment.name, endpoint.name)
    request_body: dict[str, object] = {
        "name": endpoint_name,
        "type": "QUEUE" if endpoint.type == "queue" else "LOAD_BALANCER",
        **container,
        **endpoint_compute(endpoint, release_facts),
        **_scaling_settings(endpoint),
        "networkVolumes": [Reference(kind="volume", name=volume) for volume in endpoint.volumes],
        "dataCenterIds": list(endpoint.data_centers) or _data_centers_of(deployment, endpoint.volumes),
        # Runpod counts milliseconds, the file seconds.
        "timeout": endpoint.timeout * 1000,
        "flashboot": _FLASHBOOT[endpoint.flashboot],
    }
    return DesiredResource(
        kind="endpoint",
        name=endpoint.name,
        remote_name=endpoint_name,
        body=_add_api_fields(request_body, endpoint.api_fields),
        immutable=frozenset({"type"}),
        unknown=frozenset(endpoint.api_fields),
    )


def _scaling_settings(endpoint: EndpointConfig) -> dict[str, object]:
    by_requests = endpoint.scaling.request_count is not None or endpoint.type == "load-balancer"
    scaling: dict[str, object] = (
        {"type": "REQUEST_COUNT", "requestCount": endpoint.scaling.request_count or 4}
        if by_requests
        else {"type": "QUEUE_DELAY", "queueDelay": endpoint.scaling.queue_delay or 4.0}
    )
    workers: dict[str, object] = {"min": endpoint.workers.min, "max": endpoint.workers.max}
    if not (by_requests and endpoint.type == "queue"):
        workers["idleTimeout"] = endpoint.workers.idle_timeout
    return {"workers": workers, "scaling": scaling}


def _serving_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return what makes a worker serve HTTP for a load balancer; ports that the file names stay."""
    port = variables.get("PORT") or str(SERVE_PORT)
    # A load balancer's workers have RUNPOD_ENDPOINT_ID too, by which the image would take jobs of a queue.
    return {"PORT": port, "PORT_HEALTH": variables.get("PORT_HEALTH") or port, "COMFYPIN_MODE": "serve"}


def _add_api_fields(request_body: Mapping[str, object], api_fields: Mapping[str, object]) -> dict[str, object]:
    """Return the request with the fields that only Runpod knows; those of an object, such as `gpu`, join it."""
    joined = dict(request_body)
    for field_name, value in api_fields.items():
        ours = joined.get(field_name)
        joined[field_name] = {**value, **ours} if isinstance(ours, Mapping) and isinstance(value, Mapping) else value
    return joined


def _data_centers_of(deployment: Deployment, volumes: tuple[str, ...]) -> list[str]:
    return [resource_config.data_center for resource_config in deployment.volume if resource_config.name in volumes]


def _desired_pod(deployment: Deployment, release_facts: ReleaseFacts, pod: PodConfig) -> DesiredResource:
    template = next(resource_config for resource_config in deployment.template if resource_config.name == pod.template)
    container = _container_settings(deployment, release_facts, template)
    own_variables = {**template.env, **pod.env}
    if pod.stop_after is not None:
        own_variables["COMFYPIN_STOP_AFTER"] = str(pod.stop_after)
    volume_variables = _volume_variables(pod.mount) if pod.volume is not None else {}
    container["env"] = _merge_variables(deployment, release_facts, own_variables, volume_variables)
    volume_mounts: dict[str, object] = {}
    if pod.volume is not None:
        volume_mounts["network"] = [{"volumeId": Reference(kind="volume", name=pod.volume), "path": pod.mount}]
    elif template.volume_disk is not None:
        volume_mounts["persistent"] = {"size": template.volume_disk, "path": pod.mount}
    pod_name = remote_name(deployment.name, pod.name)
    request_body: dict[str, object] = {
        "name": pod_name,
        **container,
        "mounts": volume_mounts,
        **pod_compute(pod),
        "cloud": pod.cloud.upper(),
    }
    data_centers = list(pod.data_centers) or (_data_centers_of(deployment, (pod.volume,)) if pod.volume else [])
    create_only: dict[str, object] = {"startSsh": pod.ssh, "startJupyter": False}
    if data_centers:
        create_only["dataCenterIds"] = data_centers
    if placement := pod_placement(pod, release_facts):
        create_only["gpu"] = placement
    return DesiredResource(
        kind="pod",
        name=pod.name,
        remote_name=pod_name,
        # Runpod tells it back as an object, `{"enabled": ...}`, and takes it as a word.
        body={**_add_api_fields(request_body, pod.api_fields), "globalNetworking": {"enabled": pod.global_networking}},
        create_only=create_only,
        immutable=_FIXED_OF_PODS,
        unknown=frozenset(pod.api_fields),
    )
