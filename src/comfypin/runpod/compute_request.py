"""Writes what an endpoint or a pod runs on as fields of Runpod's API: GPUs with their CUDA limits, or CPUs. Pure."""

from collections.abc import Mapping

from comfypin.runpod.deployment_file import CpuChoice, EndpointConfig, PodConfig
from comfypin.runpod.release_facts import ReleaseFacts


def endpoint_compute(endpoint: EndpointConfig, release_facts: ReleaseFacts) -> dict[str, object]:
    """Return the field `cpu` or `gpu` of an endpoint."""
    if endpoint.cpu:
        return {"cpu": [_cpu_fields(choice) for choice in endpoint.cpu]}
    gpu: dict[str, object] = {
        "pools": list(endpoint.gpu_pools),
        "excludedTypes": list(endpoint.excluded_gpus),
        "count": endpoint.gpu_count,
    }
    return {"gpu": {**gpu, **_cuda_limits(endpoint, release_facts)}}


def pod_compute(pod: PodConfig) -> dict[str, object]:
    """Return the field `cpu` or `gpu` of a pod: what Runpod tells back of it."""
    if pod.cpu is not None:
        return {"cpu": _cpu_fields(pod.cpu)}
    return {"gpu": {"id": pod.gpu, "count": pod.gpu_count}}


def pod_placement(pod: PodConfig, release_facts: ReleaseFacts) -> dict[str, object]:
    """Return what else a pod asks of its host: Runpod takes these when the pod is made, and never tells them back."""
    if pod.cpu is not None:
        return {}
    least = {"minRamPerGpu": pod.min_ram, "minVcpuCountPerGpu": pod.min_vcpus}
    limits = {field_name: value for field_name, value in _cuda_limits(pod, release_facts).items() if value}
    return {**limits, **{field_name: value for field_name, value in least.items() if value is not None}}


def compute_family(resource: Mapping[str, object]) -> str | None:
    """Return `cpu` or `gpu`, whichever a request or a live resource has; Runpod changes none into the other."""
    return next((family for family in ("cpu", "gpu") if resource.get(family)), None)


def _cuda_limits(resource: EndpointConfig | PodConfig, release_facts: ReleaseFacts) -> dict[str, object]:
    """Return both limits, of which Runpod takes only one: setting one does not clear the other."""
    if resource.cuda_versions:
        return {"allowedCudaVersions": list(resource.cuda_versions), "minCudaVersion": None}
    if cuda_floor := resource.min_cuda or release_facts.cuda:
        return {"allowedCudaVersions": [], "minCudaVersion": cuda_floor}
    return {}


def _cpu_fields(choice: CpuChoice) -> dict[str, object]:
    return {"id": choice.id, "vcpuCount": choice.vcpus}
