"""Chooses where a deployment goes: the GPU pool, the data centre, and the CPU that fills its volume. Pure.

The rule is fixed, so that the same catalogs give the same place: of the pools whose GPUs hold the largest model, the
cheapest that is available now; of its data centres, the one that has the most of it, then the first by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from comfypin.runpod.up.errors import NoPlaceAvailable

_LEVELS = ("NONE", "LOW", "MEDIUM", "HIGH")
# Building an env unpacks and compiles; two processors and their memory are too little for torch.
FILL_VCPUS = 4
# What a job needs beside the largest model: latents, the text encoder's output, CUDA's own context.
_MEMORY_BESIDE_GB = 2

Record = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceWish:
    """What the place must offer; `pools` and `data_center` are what the user chose, or what exists already."""

    model_gb: float = 0.0
    needs_volume: bool = False
    pools: tuple[str, ...] = ()
    data_center: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a deployment goes. `price` is what a worker costs at most, in dollars an hour; `level` is its availability.

    `others` are the next best, for the plan. `cpu` is the flavour of the pod that fills the volume, with its price.
    """

    pools: tuple[str, ...]
    data_center: str | None
    price: float | None
    level: str
    others: tuple[str, ...] = ()
    cpu: str | None = None
    cpu_price: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    pool: str
    data_center: str
    level: str
    price: float
    memory_gb: int

    @property
    def rank(self) -> tuple[int, int]:
        """Return the order of a pool's GPUs: the smallest memory first, then what there is more of."""
        return self.memory_gb, -_LEVELS.index(self.level)

    def __str__(self) -> str:
        return (
            f"{self.pool} in {self.data_center}: {self.memory_gb} GB, ${self.price:.2f} an hour, {self.level.lower()}"
        )


def choose_place(
    gpus: Sequence[Record], data_centers: Sequence[Record], cpus: Sequence[Record], wish: PlaceWish
) -> Place:
    """Return the place for these catalogs (asked with their availability). Raises `NoPlaceAvailable`."""
    offers = sorted(_list_offers(gpus), key=lambda offer: (offer.price, -_LEVELS.index(offer.level), offer.data_center))
    fitting = [offer for offer in offers if _fits(offer, wish)]
    with_volumes = {str(center.get("id")) for center in data_centers if center.get("networkVolumeTypes")}
    flavours = {center: _cheapest_cpu(cpus, center) for center in {offer.data_center for offer in fitting}}
    if wish.needs_volume:
        fitting = [
            offer for offer in fitting if offer.data_center in with_volumes and flavours[offer.data_center] is not None
        ]
    if wish.data_center is not None:
        fitting = [offer for offer in fitting if offer.data_center == wish.data_center]
    if not fitting:
        raise _nothing_available(offers, wish)
    best = fitting[0]
    pools = wish.pools or (best.pool,)
    flavour = flavours[best.data_center] if wish.needs_volume else None
    return Place(
        pools=pools,
        data_center=best.data_center if wish.needs_volume or wish.data_center else None,
        price=max(offer.price for offer in offers if offer.pool in pools),
        level=best.level,
        others=tuple(str(offer) for offer in _next_best(fitting, is_bound=wish.needs_volume)),
        cpu=None if flavour is None else flavour[0],
        cpu_price=None if flavour is None else flavour[1],
    )


def _next_best(fitting: Sequence[_Offer], *, is_bound: bool) -> list[_Offer]:
    """Return three more offers; if no volume binds the deployment to a data centre, one per pool."""
    if not is_bound:
        by_pool: dict[str, _Offer] = {}
        for offer in fitting:
            by_pool.setdefault(offer.pool, offer)
        fitting = list(by_pool.values())
    return list(fitting[1:4])


def _list_offers(gpus: Iterable[Record]) -> Iterable[_Offer]:
    best: dict[tuple[str, str], _Offer] = {}
    for gpu in gpus:
        prices, pool, memory = gpu.get("price"), gpu.get("pool"), gpu.get("memory")
        price = prices.get("serverless") if isinstance(prices, Mapping) else None
        if not isinstance(pool, str) or not isinstance(price, int | float) or not isinstance(memory, int):
            continue
        for center, level in _levels_of(gpu):
            offer = _Offer(pool=pool, data_center=center, level=level, price=float(price), memory_gb=memory)
            known = best.get((pool, center))
            # A worker may start on any GPU of its pool, so the smallest memory of the pool counts.
            if known is None or offer.rank < known.rank:
                best[pool, center] = offer
    return best.values()


def _levels_of(record: Record) -> Iterable[tuple[str, str]]:
    centers = record.get("dataCenters")
    for center in centers if isinstance(centers, list) else ():
        level = str(center.get("availability", "NONE"))
        if level in _LEVELS and level != "NONE":
            yield str(center.get("id")), level


def _fits(offer: _Offer, wish: PlaceWish) -> bool:
    # Whoever names a pool knows what it holds.
    if wish.pools:
        return offer.pool in wish.pools
    return offer.memory_gb >= wish.model_gb + (_MEMORY_BESIDE_GB if wish.model_gb else 0)


def _cheapest_cpu(cpus: Iterable[Record], center: str) -> tuple[str, float] | None:
    fitting: list[tuple[float, str]] = []
    for cpu in cpus:
        counts, prices = cpu.get("vcpu"), cpu.get("price")
        if not isinstance(counts, Mapping) or not isinstance(prices, Mapping):
            continue
        enough = int(counts.get("min", 0)) <= FILL_VCPUS <= int(counts.get("max", 0))
        if enough and any(there == center for there, _ in _levels_of(cpu)):
            fitting.append((float(prices.get("securePerVcpu", 0.0)) * FILL_VCPUS, str(cpu.get("id"))))
    return (min(fitting)[1], min(fitting)[0]) if fitting else None


def _nothing_available(offers: Sequence[_Offer], wish: PlaceWish) -> NoPlaceAvailable:
    where = f"in {wish.data_center}" if wish.data_center else "anywhere"
    if wish.pools:
        reason = f"no GPU of {' or '.join(wish.pools)} is free now"
    elif wish.model_gb:
        reason = f"its largest model needs {wish.model_gb + _MEMORY_BESIDE_GB:.0f} GB"
    else:
        reason = "Runpod's catalog lists none with a price"
    if wish.needs_volume:
        reason += ", in a data centre that has network volumes and a CPU to fill them"
    return NoPlaceAvailable(
        where=where,
        reason=f"{reason}; choose with --gpu POOL and --data-center ID, or try later",
        candidates=[str(offer) for offer in offers],
    )
