"""Calculates what the file's endpoints and pods cost an hour, from the catalog's prices. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from comfypin.runpod.deployment_file import CpuChoice, Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyCost:
    """Dollars an hour of an endpoint or pod: its fewest workers on the cheapest GPU, its most on the dearest.

    None if the catalog has no price for any of its GPUs.
    """

    kind: str
    name: str
    least: float | None
    most: float | None


def hourly_costs(
    deployment: Deployment, gpus: Iterable[Mapping[str, object]], cpus: Iterable[Mapping[str, object]] = ()
) -> tuple[HourlyCost, ...]:
    """Return the cost of each endpoint and pod. Volumes are billed by the month and are not in the catalog."""
    catalog, flavors = list(gpus), {flavor.get("id"): flavor for flavor in cpus}
    costs = []
    for endpoint in deployment.endpoint:
        # Workers may start on any GPU of the endpoint's pools, so its cost is a range.
        gpu_prices = [
            None if (price := _hourly_price(gpu, "serverless")) is None else price * endpoint.gpu_count
            for gpu in catalog
            if gpu.get("pool") in endpoint.gpu_pools and gpu.get("id") not in endpoint.excluded_gpus
        ]
        cpu_prices = [_vcpu_price(choice, flavors, "serverlessPerVcpu") for choice in endpoint.cpu]
        hourly_prices = [price for price in (*gpu_prices, *cpu_prices) if price is not None]
        least_cost = endpoint.workers.min * min(hourly_prices) if hourly_prices else None
        most_cost = endpoint.workers.max * max(hourly_prices) if hourly_prices else None
        costs.append(HourlyCost(kind="endpoint", name=endpoint.name, least=least_cost, most=most_cost))
    for pod in deployment.pod:
        catalog_gpu = next((gpu for gpu in catalog if gpu.get("id") == pod.gpu), {})
        gpu_price = _hourly_price(catalog_gpu, pod.cloud)
        hourly = None if gpu_price is None else gpu_price * pod.gpu_count
        if pod.cpu is not None:
            # The catalog has one price for CPU pods, that of the secure cloud.
            hourly = _vcpu_price(pod.cpu, flavors, "securePerVcpu")
        costs.append(HourlyCost(kind="pod", name=pod.name, least=hourly, most=hourly))
    return tuple(costs)


def _vcpu_price(choice: CpuChoice, flavors: Mapping[object, Mapping[str, object]], product: str) -> float | None:
    price = _hourly_price(flavors.get(choice.id, {}), product)
    return None if price is None else price * choice.vcpus


def _hourly_price(gpu: Mapping[str, object], product: str) -> float | None:
    hourly_prices = gpu.get("price")
    value = hourly_prices.get(product) if isinstance(hourly_prices, Mapping) else None
    return float(value) if isinstance(value, int | float) else None
