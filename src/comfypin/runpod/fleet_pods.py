"""Pods that work for a fleet: what they are asked for, which GPU they get, and which of an account's pods they are.

They are no part of a deployment: their marks are variables of their own, so that no `apply` takes them for its pods.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from comfypin.runpod.desired_state import POD_MOUNT
from comfypin.runpod.errors import ApiRefused, NoPodPlaced
from comfypin.runpod.management_api import ManagementApi, Resource
from comfypin.runpod.spot_pods import make_spot_pod, read_spot_price

FLEET_VARIABLE = "COMFYPIN_FLEET"
RELEASE_VARIABLE = "COMFYPIN_FLEET_RELEASE"
CLASS_VARIABLE = "COMFYPIN_FLEET_CLASS"
QUEUE_VARIABLE = "COMFYPIN_FLEET_QUEUE"
_ENDED = frozenset({"EXITED", "ERROR", "TERMINATED"})
# Statuses with which Runpod says that another GPU or data centre may do: the body broke a rule or found no place, or
# the account may not use the pool. https://docs.runpod.io/api-reference-v2/pods/create-a-pod
_TRY_NEXT = (400, 403)
# What a job needs beside the largest model: latents, the text encoder's output, CUDA's own context.
_MEMORY_BESIDE_GB = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPod:
    """A pod of a fleet, as Runpod tells of it. `cost` is dollars an hour now, `queue_id` that of its fleet's queue."""

    id: str
    name: str
    release: str
    gpu_class: str
    status: str
    cost: float
    created_at: float
    queue_id: str = ""

    @property
    def has_ended(self) -> bool:
        """Return whether its container will not run again by itself; Runpod may still bill its disk."""
        return self.status in _ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOffer:
    """A GPU type that pods can have now, with its price an hour, None if the catalog has none."""

    id: str
    price: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodWish:
    """What each pod of a release and class is to be. `env` holds references to secrets, never their values."""

    fleet: str
    queue_id: str
    release: str
    gpu_class: str
    image: str
    command: tuple[str, ...]
    disk_gb: int
    env: Mapping[str, str] = field(repr=False)
    cloud: str = "secure"
    min_cuda: str | None = None
    data_centers: tuple[str, ...] = ()
    volume: str | None = None
    registry: str | None = None
    is_spot: bool = False

    def make_request(self, gpu: GpuOffer, suffix: str) -> dict[str, object]:
        """Return the request that makes one. The suffix tells it from others: a lost answer is looked up by name."""
        limits = {} if self.min_cuda is None else {"minCudaVersion": self.min_cuda}
        mounts: dict[str, object] = {}
        if self.volume is not None:
            mounts["network"] = [{"volumeId": self.volume, "path": POD_MOUNT}]
        return {
            "name": f"comfypin-{self.fleet}-{self.release[:8]}-{self.gpu_class}-{suffix}",
            "image": self.image,
            "args": shlex.join(self.command),
            "disk": self.disk_gb,
            # A worker asks the queue for jobs; nobody connects to it.
            "ports": [],
            "env": {
                **self.env,
                FLEET_VARIABLE: self.fleet,
                RELEASE_VARIABLE: self.release,
                CLASS_VARIABLE: self.gpu_class,
                QUEUE_VARIABLE: self.queue_id,
            },
            "registry": self.registry,
            "gpu": {"id": gpu.id, "count": 1, **limits},
            "cloud": self.cloud.upper(),
            "mounts": mounts,
            **({"dataCenterIds": list(self.data_centers)} if self.data_centers else {}),
        }


def list_fleet_pods(pods: Iterable[Resource], fleet: str) -> tuple[FleetPod, ...]:
    """Return the pods that carry the fleet's mark, oldest first."""
    fleet_pods = []
    for pod in pods:
        variables = pod.get("env")
        # Only by its mark: somebody else's pod may have a similar name, and is never removed.
        if not isinstance(variables, Mapping) or variables.get(FLEET_VARIABLE) != fleet:
            continue
        cost = pod.get("cost")
        fleet_pods.append(
            FleetPod(
                id=str(pod["id"]),
                name=str(pod.get("name", "")),
                release=str(variables.get(RELEASE_VARIABLE, "")),
                gpu_class=str(variables.get(CLASS_VARIABLE, "")),
                status=str(pod.get("status", "")),
                cost=float(cost) if isinstance(cost, int | float) else 0.0,
                created_at=_read_time(pod.get("createdAt")),
                queue_id=str(variables.get(QUEUE_VARIABLE, "")),
            )
        )
    return tuple(sorted(fleet_pods, key=lambda pod: (pod.created_at, pod.id)))


def choose_gpus(
    gpus: Iterable[Mapping[str, object]], *, named_gpus: Sequence[str], cloud: str, model_gb: float
) -> tuple[GpuOffer, ...]:
    """Return the GPU types to try, in order: those that are named, else all that hold the model, cheapest first."""
    by_id = {str(gpu.get("id")): gpu for gpu in gpus}
    if named_gpus:
        # Whoever names a GPU knows why: neither its memory nor its availability is judged.
        return tuple(GpuOffer(id=gpu_name, price=_price(by_id.get(gpu_name, {}), cloud)) for gpu_name in named_gpus)
    offers = []
    for identifier, gpu in by_id.items():
        memory, price = gpu.get("memory"), _price(gpu, cloud)
        is_there = gpu.get("availability", "HIGH") != "NONE" and bool(gpu.get(cloud))
        fits = isinstance(memory, int) and memory >= model_gb + (_MEMORY_BESIDE_GB if model_gb else 0)
        if is_there and fits and price is not None:
            offers.append(GpuOffer(id=identifier, price=price))
    return tuple(sorted(offers, key=lambda offer: (offer.price, offer.id)))


def offer_spot(management_api: ManagementApi, offers: Sequence[GpuOffer], bid: float | None) -> tuple[GpuOffer, ...]:
    """Return the offers at spot prices: those that the bid reaches, or all at the lowest bid that Runpod takes now."""
    priced = ((offer, read_spot_price(management_api, offer.id)) for offer in offers)
    return tuple(
        GpuOffer(id=offer.id, price=bid if bid is not None else lowest)
        for offer, lowest in priced
        if lowest is not None and (bid is None or lowest <= bid)
    )


def read_pod_gpus(management_api: ManagementApi) -> list[Resource]:
    """Return the GPU catalog with what pods can have now."""
    answer = management_api.send_request("GET", "/v2/catalog/gpus?include=AVAILABILITY&product=POD")
    gpu_types = answer.get("gpus") if isinstance(answer, dict) else None
    return gpu_types if isinstance(gpu_types, list) else []


def make_pod(management_api: ManagementApi, wish: PodWish, gpus: Sequence[GpuOffer], suffix: str) -> FleetPod:
    """Make a pod on the first of these GPUs that has room. Raises `NoPodPlaced`, `ApiRefused`, `ApiUnreachable`."""
    refusals: list[str] = []
    for gpu in gpus:
        try:
            made = _make_once(management_api, wish, gpu, suffix)
        except ApiRefused as refused:
            # A key that is wrong, or a limit of the account, is the same for every GPU.
            if refused.status not in _TRY_NEXT:
                raise
            refusals.append(f"{gpu.id}: {refused.detail}")
            continue
        (pod,) = list_fleet_pods([{**made, "env": wish.make_request(gpu, suffix)["env"]}], wish.fleet)
        return pod
    raise NoPodPlaced(refusals=refusals or ["no GPU of the catalog holds the largest model and is available"])


def _make_once(management_api: ManagementApi, wish: PodWish, gpu: GpuOffer, suffix: str) -> Resource:
    request = wish.make_request(gpu, suffix)
    if not wish.is_spot:
        return management_api.create_resource("pod", request)
    return make_spot_pod(management_api, request, bid=gpu.price or 0.0)


def _price(gpu: Mapping[str, object], cloud: str) -> float | None:
    prices = gpu.get("price")
    price = prices.get(cloud) if isinstance(prices, Mapping) else None
    return float(price) if isinstance(price, int | float) else None


def _read_time(time_text: object) -> float:
    try:
        moment = datetime.fromisoformat(str(time_text))
    except ValueError:
        return 0.0
    # Runpod writes UTC, at times without saying so.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
