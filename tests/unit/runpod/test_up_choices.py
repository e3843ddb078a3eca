"""Where a deployment goes: the cheapest GPU that fits and is available, where all else that is needed is too."""

from typing import Any

import pytest

from comfypin.runpod.up.choices import PlaceWish, choose_place
from comfypin.runpod.up.errors import NoPlaceAvailable


def gpu(pool: str, memory: int, price: float, **levels: str) -> dict[str, Any]:
    centers = [{"id": name.replace("_", "-"), "availability": level} for name, level in levels.items()]
    return {"id": pool, "pool": pool, "memory": memory, "price": {"serverless": price}, "dataCenters": centers}


def cpu(*centers: str, price: float = 0.04) -> dict[str, Any]:
    return {
        "id": "cpu5c",
        "vcpu": {"min": 2, "max": 32},
        "price": {"securePerVcpu": price},
        "dataCenters": [{"id": name, "availability": "HIGH"} for name in centers],
    }


def center(name: str, *, volumes: bool = True) -> dict[str, Any]:
    return {"id": name, "networkVolumeTypes": ["STANDARD"] if volumes else []}


GPUS = [gpu("SMALL", 16, 0.5, A="LOW", B="HIGH"), gpu("BIG", 48, 1.9, A="HIGH", C="HIGH")]
CENTERS = [center("A"), center("B"), center("C", volumes=False)]


def test_the_cheapest_gpu_where_there_is_most_of_it() -> None:
    place = choose_place(GPUS, CENTERS, [cpu("A", "B")], PlaceWish(needs_volume=True))
    assert (place.pools, place.data_center, place.price) == (("SMALL",), "B", 0.5)
    assert (place.cpu, place.cpu_price) == ("cpu5c", pytest.approx(0.16))


def test_a_large_model_needs_a_large_gpu_where_volumes_are() -> None:
    place = choose_place(GPUS, CENTERS, [cpu("A", "B", "C")], PlaceWish(model_gb=20, needs_volume=True))
    assert (place.pools, place.data_center) == (("BIG",), "A")


def test_a_data_centre_without_a_cpu_for_the_fill_is_not_taken() -> None:
    place = choose_place(GPUS, CENTERS, [cpu("A")], PlaceWish(needs_volume=True))
    assert place.data_center == "A"


def test_without_a_volume_no_data_centre_is_chosen() -> None:
    place = choose_place(GPUS, CENTERS, [], PlaceWish())
    assert place.data_center is None
    assert place.others == ("BIG in A: 48 GB, $1.90 an hour, high",)


def test_what_is_not_available_is_said_with_what_is() -> None:
    with pytest.raises(NoPlaceAvailable) as caught:
        choose_place(GPUS, CENTERS, [cpu("A")], PlaceWish(pools=("BIG",), data_center="B", needs_volume=True))
    assert "in B" in caught.value.message
    assert "SMALL in B" in caught.value.message


def test_a_gpu_that_is_nowhere_available_has_no_list_of_data_centres() -> None:
    gone = {"id": "x", "pool": "GONE", "memory": 80, "price": {"serverless": 0.1}, "availability": "NONE"}
    assert choose_place([gone, *GPUS], CENTERS, [], PlaceWish()).pools == ("SMALL",)
