"""Workers that Runpod took away from an endpoint that nobody used are told with the way back."""

import pytest
from pydantic import TypeAdapter

from comfypin.runpod.deployment_file import Deployment
from comfypin.runpod.idle_rule import explain_lowered_workers

DEPLOYMENT = TypeAdapter(Deployment).validate_python(
    {
        "name": "shop",
        "release": "r",
        "template": [{"name": "worker"}],
        "endpoint": [{"name": "api", "template": "worker", "gpu_pools": ["ADA_24"], "workers": {"max": 3}}],
    }
)


@pytest.mark.parametrize("live_most", [0, 2])
def test_lowered_workers_are_explained(live_most: int) -> None:
    said = explain_lowered_workers(DEPLOYMENT, {"name": "comfypin-shop-api -fb", "workers": {"max": live_most}})
    assert said is not None
    assert said.startswith(f"at most {live_most} workers, and the file says 3")
    assert "comfypin runpod apply" in said


@pytest.mark.parametrize(
    "endpoint",
    [
        {"name": "comfypin-shop-api", "workers": {"max": 3}},
        {"name": "comfypin-shop-api", "workers": {"max": 1}},
        {"name": "comfypin-shop-other", "workers": {"max": 0}},
        {"name": "comfypin-shop-api"},
    ],
)
def test_other_numbers_are_no_doing_of_runpods(endpoint: dict[str, object]) -> None:
    assert explain_lowered_workers(DEPLOYMENT, endpoint) is None
