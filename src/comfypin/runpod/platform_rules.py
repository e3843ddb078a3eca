"""Checks Runpod's rules before any call; every finding says what is wrong, with what, and what to do. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from comfypin.plurals import format_size
from comfypin.runpod.compute_rules import endpoint_compute_findings, pod_compute_findings
from comfypin.runpod.deployment_file import Deployment, EndpointConfig, PodConfig, TemplateConfig
from comfypin.runpod.desired_state import MARK_VARIABLE, SERVE_PORT, needed_disk_gb
from comfypin.runpod.release_facts import ReleaseFacts, to_gigabytes
from comfypin.settings.plain_secrets import looks_secret

MAX_HTTP_PORTS = 10
MAX_VARIABLES = 50
# What desired_state.py adds to all: the release, its digest, the mark.
_PLATFORM_VARIABLES = 3
SECRET_REFERENCE = re.compile(r"\{\{\s*RUNPOD_SECRET_[A-Za-z_][A-Za-z0-9_./-]*\s*\}\}")
_FIRST_SYMMETRICAL = 70_000
_PORT = re.compile(r"(\d{1,6})/(http|tcp)")
_OUR_VARIABLES = {"COMFY_VERSION_NAME", "COMFYPIN_LOCK_DIGEST", MARK_VARIABLE}


def deployment_findings(deployment: Deployment, release_facts: ReleaseFacts) -> list[str]:
    """Return everything in the file that Runpod would refuse, or that would fail later, unseen."""
    return [
        *_name_findings(deployment),
        *_reference_findings(deployment),
        *_image_findings(deployment),
        *_volume_findings(deployment, release_facts),
        *_template_findings(deployment, release_facts),
        *_endpoint_findings(deployment, release_facts),
        *_pod_findings(deployment, release_facts),
    ]


def _name_findings(deployment: Deployment) -> Iterator[str]:
    kinds = {
        "registry": [resource.name for resource in deployment.registry],
        "volume": [resource.name for resource in deployment.volume],
        "template": [resource.name for resource in deployment.template],
        "endpoint": [resource.name for resource in deployment.endpoint],
        "pod": [resource.name for resource in deployment.pod],
    }
    for kind, names in kinds.items():
        for resource_name, occurrences in Counter(names).items():
            if occurrences > 1:
                yield f"{kind} {resource_name!r} is in the file {occurrences} times; name each {kind} differently"


def _reference_findings(deployment: Deployment) -> Iterator[str]:
    templates = {template.name: template for template in deployment.template}
    volumes = {volume.name: volume for volume in deployment.volume}
    registries = {registry.name for registry in deployment.registry}
    for template in deployment.template:
        if template.registry is not None and template.registry not in registries:
            yield _unknown_name(f"template {template.name!r}", "registry", template.registry, registries)
    template_users: list[tuple[str, EndpointConfig | PodConfig, str, tuple[str, ...]]] = [
        *(
            (f"endpoint {resource.name!r}", resource, "serverless", resource.volumes)
            for resource in deployment.endpoint
        ),
        *(
            (f"pod {resource.name!r}", resource, "pod", (resource.volume,) if resource.volume else ())
            for resource in deployment.pod
        ),
    ]
    for location, resource, kind, volume_names in template_users:
        if resource.template not in templates:
            yield _unknown_name(location, "template", resource.template, templates)
        elif templates[resource.template].kind != kind:
            actual = templates[resource.template].kind
            yield f'{location}: template {resource.template!r} has kind "{actual}", it needs "{kind}"'
        for volume_name in volume_names:
            if volume_name not in volumes:
                yield _unknown_name(location, "volume", volume_name, volumes)
        yield from _data_center_findings(
            location,
            resource,
            [volumes[volume_name].data_center for volume_name in volume_names if volume_name in volumes],
        )


def _data_center_findings(
    location: str, resource: EndpointConfig | PodConfig, volume_centers: list[str]
) -> Iterator[str]:
    """Find several volumes in one data centre, and data centres without any of the resource's volumes."""
    for center, occurrences in Counter(volume_centers).items():
        if occurrences > 1:
            yield f"{location}: {occurrences} volumes are in {center}; a worker mounts only one volume per data centre"
    outside = set(resource.data_centers) - set(volume_centers)
    # Without volumes any data centre will do.
    if volume_centers and outside:
        yield (
            f"{location}: data centre {', '.join(sorted(outside))} has none of its volumes "
            f"({', '.join(volume_centers)}); a volume is only reached from its own data centre"
        )


def _image_findings(deployment: Deployment) -> Iterator[str]:
    for template in deployment.template:
        image = template.image or deployment.image
        location = f"template {template.name!r}"
        if image is None:
            yield f"{location}: no image; set `image` there or at the top of the file"
        elif not re.search(r"@sha256:[0-9a-f]{64}$", image):
            yield (
                f"{location}: image {image!r} is not pinned by digest; use NAME@sha256:..., "
                "which `comfypin image push` prints (a tag can change under running workers)"
            )
        elif image.endswith("0" * 64) or "/YOU/" in image:
            yield (
                f"{location}: image is still the placeholder of `comfypin runpod init`; "
                "write the one that `comfypin image push` printed, or run init with --image"
            )


def _volume_findings(deployment: Deployment, release_facts: ReleaseFacts) -> Iterator[str]:
    for volume in deployment.volume:
        if not volume.existing and volume.size < to_gigabytes(release_facts.models_bytes):
            yield (
                f"volume {volume.name!r}: size = {volume.size} GB is less than the release's models "
                f"({format_size(release_facts.models_bytes)})"
            )


def _template_findings(deployment: Deployment, release_facts: ReleaseFacts) -> Iterator[str]:
    for template in deployment.template:
        location = f"template {template.name!r}"
        # The nearest place wins.
        merged = {**deployment.env, **deployment.storage, **template.env}
        yield from variable_findings(location, merged)
        yield from _variable_count_findings(location, deployment, template.name, {})
        yield from _port_findings(location, template)
        needed = needed_disk_gb(deployment, release_facts, template)
        if template.disk is not None and template.disk < needed:
            yield (
                f"{location}: disk = {template.disk} GB is less than the {needed} GB that the release's container "
                "writes (with its models, if no volume holds them); leave it out to have it derived"
            )
        if template.args and (template.cmd is not None or template.entrypoint is not None):
            yield f"{location}: args and cmd (or entrypoint) are two ways to say one command; keep one"
        if template.kind == "serverless" and template.volume_disk is not None:
            yield f"{location}: volume_disk belongs to pods; a serverless worker has a container disk only"


def is_secret_reference(text: str) -> bool:
    """Return whether a value names a secret of Runpod instead of being one."""
    return SECRET_REFERENCE.fullmatch(text.strip()) is not None


def variable_findings(location: str, variables: Mapping[str, str]) -> Iterator[str]:
    """Find plain secrets, names that no shell takes, and names that comfypin sets itself."""
    for variable, variable_value in variables.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
            yield f"{location}: {variable!r} is not a valid variable name; use letters, digits and _"
        if variable in _OUR_VARIABLES:
            yield f"{location}: {variable} is set from the release in `release`; leave it out"
        if looks_secret(variable, variable_value, is_reference=is_secret_reference):
            yield (
                f"{location}: {variable} looks like a secret in plain text; store it in Runpod's secret manager "
                f"(console, Secrets, Create Secret, name {variable.lower()}) and write "
                f'{variable} = "{{{{ RUNPOD_SECRET_{variable.lower()} }}}}"'
            )


def _variable_count_findings(
    location: str, deployment: Deployment, template: str, own: Mapping[str, str], *, added: int = 0
) -> Iterator[str]:
    """Find more variables than Runpod allows, of all the places that a worker's or pod's variables come from."""
    shared = next((resource.env for resource in deployment.template if resource.name == template), {})
    occurrences = len({**deployment.env, **deployment.storage, **shared, **own})
    ours = _PLATFORM_VARIABLES + added
    if occurrences + ours > MAX_VARIABLES:
        yield f"{location}: {occurrences} variables and {ours} of ours; Runpod allows {MAX_VARIABLES}"


def _count_added(resource: EndpointConfig | PodConfig) -> int:
    """Return how many variables desired_state.py adds to an endpoint or a pod beside those of all."""
    if isinstance(resource, EndpointConfig):
        # The time to start; where models and packs are; the ports and the mode.
        return 1 + (2 if resource.volumes else 0) + (3 if resource.type == "load-balancer" else 0)
    return (3 if resource.volume else 0) + (1 if resource.stop_after else 0)


def _port_findings(location: str, template: TemplateConfig) -> Iterator[str]:
    ports = template.ports or ()
    http_ports = [port for port in ports if port.endswith("/http")]
    if len(http_ports) > MAX_HTTP_PORTS:
        yield f"{location}: {len(http_ports)} HTTP ports; Runpod's proxy takes {MAX_HTTP_PORTS}"
    for port, occurrences in Counter(ports).items():
        port_match = _PORT.fullmatch(port)
        if port_match is None:
            yield f"{location}: port {port!r} must read NUMBER/http or NUMBER/tcp"
            continue
        if occurrences > 1:
            yield f"{location}: port {port} is listed {occurrences} times"
        number = int(port_match[1])
        # From 70000 on Runpod gives a TCP port that is the same inside and outside, told in RUNPOD_TCP_PORT_<number>;
        # https://docs.runpod.io/pods/configuration/expose-ports#symmetrical-port-mapping
        symmetrical = port_match[2] == "tcp" and number >= _FIRST_SYMMETRICAL
        if not (1 <= number <= 65_535 or symmetrical):
            yield f"{location}: port {port} does not exist; take 1 to 65535, or 70000/tcp and above (symmetrical)"


def _endpoint_findings(deployment: Deployment, release_facts: ReleaseFacts) -> Iterator[str]:
    for endpoint in deployment.endpoint:
        location = f"endpoint {endpoint.name!r}"
        workers, scaling = endpoint.workers, endpoint.scaling
        yield from variable_findings(location, endpoint.env)
        yield from _variable_count_findings(
            location, deployment, endpoint.template, endpoint.env, added=_count_added(endpoint)
        )
        if workers.min > workers.max:
            yield f"{location}: workers.min = {workers.min} is more than workers.max = {workers.max}"
        if scaling.queue_delay is not None and scaling.request_count is not None:
            yield f"{location}: scaling takes queue_delay or request_count, not both"
        if endpoint.type == "load-balancer" and scaling.queue_delay is not None:
            yield f"{location}: a load-balancer has no queue; scale it by request_count"
        # 10 is the default: somebody who did not set it need not hear of it.
        if endpoint.type == "queue" and scaling.request_count is not None and workers.idle_timeout != 10:
            yield (
                f"{location}: workers.idle_timeout does not apply to a queue that scales by request_count; leave it out"
            )
        if endpoint.flashboot != "off" and workers.max == 0:
            yield f'{location}: flashboot needs workers; set workers.max, or flashboot = "off"'
        yield from endpoint_compute_findings(location, endpoint, release_facts)
        if endpoint.type == "load-balancer":
            yield from _balancer_findings(location, deployment, endpoint)


def _balancer_findings(location: str, deployment: Deployment, endpoint: EndpointConfig) -> Iterator[str]:
    """Find what lets a load balancer's workers start, and then refuse or miss every request."""
    template = next((resource for resource in deployment.template if resource.name == endpoint.template), None)
    shared = {} if template is None else template.env
    variables = {**deployment.env, **deployment.storage, **shared, **endpoint.env}
    if not variables.get("COMFYPIN_TOKEN"):
        yield (
            f"{location}: a load balancer's workers need one token, or each makes its own and refuses everybody; write "
            'COMFYPIN_TOKEN = "{{ RUNPOD_SECRET_comfypin_token }}" into [env], and send it as X-Comfypin-Token '
            "(Authorization is for Runpod's key)"
        )
    if variables.get("COMFYPIN_MODE", "serve") != "serve":
        yield f"{location}: COMFYPIN_MODE = {variables['COMFYPIN_MODE']} serves no load balancer; leave it out"
    port = variables.get("PORT") or str(SERVE_PORT)
    for wanted_port in dict.fromkeys((port, variables.get("PORT_HEALTH") or port)):
        if template is not None and template.ports and f"{wanted_port}/http" not in template.ports:
            yield (
                f"{location}: its workers serve port {wanted_port}, which template {template.name!r} does not expose; "
                f"add {wanted_port}/http to its ports, or leave ports out"
            )


def _pod_findings(deployment: Deployment, release_facts: ReleaseFacts) -> Iterator[str]:
    for pod in deployment.pod:
        location = f"pod {pod.name!r}"
        yield from variable_findings(location, pod.env)
        yield from _variable_count_findings(location, deployment, pod.template, pod.env, added=_count_added(pod))
        template = next((resource for resource in deployment.template if resource.name == pod.template), None)
        if pod.volume and template is not None and template.volume_disk is not None:
            yield f"{location}: a network volume and the template's volume_disk exclude each other; keep one"
        if pod.volume and pod.cloud == "community":
            yield f"{location}: network volumes exist on the secure cloud only; leave out cloud, or the volume"
        if pod.cpu is not None and template is not None and template.volume_disk is not None:
            yield f"{location}: a pod on CPUs takes no volume_disk; give it a network volume"
        yield from pod_compute_findings(location, pod, release_facts)
        if pod.ssh and template is not None and "22/tcp" not in (template.ports or ("22/tcp",)):
            yield f"{location}: ssh = true needs the port 22/tcp in template {template.name!r}"


def _unknown_name(location: str, kind: str, resource_name: str, known: Iterable[str]) -> str:
    return (
        f"{location}: there is no {kind} {resource_name!r} in the file; there are {', '.join(sorted(known)) or 'none'}"
    )
