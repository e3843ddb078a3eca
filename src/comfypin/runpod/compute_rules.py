"""Checks what endpoints and pods run on: GPUs or CPUs, their CUDA, and what Runpod's catalogs have of them. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from comfypin.plurals import format_size
from comfypin.runpod.deployment_file import CpuChoice, Deployment, EndpointConfig, PodConfig
from comfypin.runpod.release_facts import ReleaseFacts, to_gigabytes


def endpoint_compute_findings(location: str, endpoint: EndpointConfig, release_facts: ReleaseFacts) -> Iterator[str]:
    """Find an endpoint without compute, with two kinds of it, and GPU settings of one on CPUs."""
    if bool(endpoint.gpu_pools) == bool(endpoint.cpu):
        yield f"{location}: give it gpu_pools, or cpu for workers without a GPU, and not both"
    for choice, occurrences in Counter(endpoint.cpu).items():
        if occurrences > 1:
            yield f"{location}: cpu lists {choice.id} with {choice.vcpus} vCPUs {occurrences} times"
    if endpoint.cpu:
        gpu_options = {"excluded_gpus": endpoint.excluded_gpus, "gpu_count": endpoint.gpu_count != 1}
        yield from _cpu_findings(location, endpoint, endpoint.cpu, gpu_options, release_facts)
    yield from _cuda_findings(location, endpoint, release_facts)


def pod_compute_findings(location: str, pod: PodConfig, release_facts: ReleaseFacts) -> Iterator[str]:
    """Find a pod without compute, with two kinds of it, and GPU settings of one on CPUs."""
    if (pod.gpu is None) == (pod.cpu is None):
        yield f"{location}: give it a gpu, or cpu for a pod without one, and not both"
    if pod.cpu is not None:
        gpu_options = {
            "gpu_count": pod.gpu_count != 1,
            "min_ram": pod.min_ram,
            "min_vcpus": pod.min_vcpus,
            "global_networking": pod.global_networking,
        }
        yield from _cpu_findings(location, pod, (pod.cpu,), gpu_options, release_facts)
    yield from _cuda_findings(location, pod, release_facts)


def _cpu_findings(
    location: str,
    resource: EndpointConfig | PodConfig,
    choices: Iterable[CpuChoice],
    gpu_options: Mapping[str, object],
    release_facts: ReleaseFacts,
) -> Iterator[str]:
    cuda = {"min_cuda": resource.min_cuda, "cuda_versions": resource.cuda_versions}
    if useless := [field_name for field_name, value in {**gpu_options, **cuda}.items() if value]:
        yield f"{location}: {', '.join(useless)} need a GPU; leave them out beside cpu"
    for choice in choices:
        # Zero for powers of two, and for nothing else.
        if choice.vcpus & (choice.vcpus - 1):
            yield f"{location}: {choice.vcpus} vCPUs of {choice.id} are no power of two, which Runpod requires"
    if release_facts.needs_gpu:
        yield (
            f"{location}: ComfyUI ends on a machine without a GPU; put --cpu into the lock's engine arguments, "
            "or choose GPUs"
        )


def _cuda_findings(location: str, resource: EndpointConfig | PodConfig, release_facts: ReleaseFacts) -> Iterator[str]:
    if resource.min_cuda and resource.cuda_versions:
        yield f"{location}: min_cuda and cuda_versions exclude each other; min_cuda takes newer drivers too"
    for field_name, stated in (
        ("min_cuda", resource.min_cuda),
        *(("cuda_versions", cuda_version) for cuda_version in resource.cuda_versions),
    ):
        if stated and release_facts.cuda and _parse_version(stated) < _parse_version(release_facts.cuda):
            yield (
                f"{location}: {field_name} = {stated} is below CUDA {release_facts.cuda}, which the lock's torch "
                "needs; leave it out to have it derived"
            )


def gpu_findings(
    deployment: Deployment, release_facts: ReleaseFacts, gpus: Iterable[Mapping[str, object]]
) -> list[str]:
    """Return what only the catalog shows: unknown pools and GPUs, and models larger than a GPU's memory."""
    catalog = [gpu_type for gpu_type in gpus if isinstance(gpu_type.get("memory"), int)]
    pools: dict[str, list[Mapping[str, object]]] = {}
    for gpu_type in catalog:
        pools.setdefault(str(gpu_type.get("pool")), []).append(gpu_type)
    by_id = {str(gpu_type["id"]): gpu_type for gpu_type in catalog}
    findings: list[str] = []
    for endpoint in deployment.endpoint:
        location = f"endpoint {endpoint.name!r}"
        for pool in endpoint.gpu_pools:
            # The catalog's GPUs without a pool are grouped under None.
            if pool not in pools or pool == "None":
                known = ", ".join(sorted(set(pools) - {"None"}))
                findings.append(f"{location}: there is no GPU pool {pool!r}; there are {known}")
            else:
                allowed_gpus = [gpu_type for gpu_type in pools[pool] if gpu_type["id"] not in endpoint.excluded_gpus]
                findings += [
                    finding
                    for gpu_type in allowed_gpus
                    if (finding := _gpu_memory_finding(location, gpu_type, release_facts))
                ]
        findings += _excluded_gpu_findings(location, endpoint, pools)
    for pod in deployment.pod:
        location = f"pod {pod.name!r}"
        if pod.gpu is None:
            continue
        if pod.gpu not in by_id:
            findings.append(f"{location}: there is no GPU {pod.gpu!r}; there are {', '.join(sorted(by_id))}")
        elif finding := _gpu_memory_finding(location, by_id[pod.gpu], release_facts):
            findings.append(finding)
    return findings


def _excluded_gpu_findings(
    location: str, endpoint: EndpointConfig, pools: Mapping[str, list[Mapping[str, object]]]
) -> Iterator[str]:
    """Find exclusions that exclude nothing: Runpod refuses a GPU that is in none of the pools."""
    offered = {str(gpu_type["id"]) for pool in endpoint.gpu_pools for gpu_type in pools.get(pool, ())}
    for excluded_gpu in endpoint.excluded_gpus:
        if excluded_gpu not in offered:
            known = ", ".join(sorted(offered)) or "none"
            yield f"{location}: excluded_gpus names {excluded_gpu!r}, which its pools do not have; they have {known}"
    if offered and offered <= set(endpoint.excluded_gpus):
        yield f"{location}: excluded_gpus leaves no GPU of its pools"


def cpu_findings(deployment: Deployment, cpus: Iterable[Mapping[str, object]]) -> list[str]:
    """Return what only the catalog of CPUs shows: unknown flavors, and numbers of vCPUs that they do not have."""
    by_id = {str(flavor["id"]): flavor for flavor in cpus}
    choices = [
        *((f"endpoint {endpoint.name!r}", choice) for endpoint in deployment.endpoint for choice in endpoint.cpu),
        *((f"pod {pod.name!r}", pod.cpu) for pod in deployment.pod if pod.cpu is not None),
    ]
    findings = []
    for location, choice in choices:
        if choice.id not in by_id:
            findings.append(
                f"{location}: there is no CPU {choice.id!r}; there are {', '.join(sorted(by_id)) or 'none'}"
            )
            continue
        span = by_id[choice.id].get("vcpu")
        if isinstance(span, Mapping) and not int(span["min"]) <= choice.vcpus <= int(span["max"]):
            findings.append(
                f"{location}: {choice.id} has {span['min']} to {span['max']} vCPUs, and the file says {choice.vcpus}"
            )
    return findings


def _gpu_memory_finding(location: str, gpu_type: Mapping[str, object], release_facts: ReleaseFacts) -> str | None:
    memory_gb = int(str(gpu_type["memory"]))
    if to_gigabytes(release_facts.largest_model_bytes) <= memory_gb:
        return None
    return (
        f"{location}: the release's largest model has {format_size(release_facts.largest_model_bytes)} and "
        f"{gpu_type['id']} has {memory_gb} GB of memory; choose larger GPUs or exclude this one"
    )


def _parse_version(version_text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version_text.split("."))
