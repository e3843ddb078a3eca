"""Endpoints on CPUs, behind load balancers, with CUDA limits; pods of every kind: as Runpod's OpenAPI takes them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter

from comfypin.digest import Digest
from comfypin.runpod.apply import apply_plan, survey_account
from comfypin.runpod.cost import HourlyCost, hourly_costs
from comfypin.runpod.deployment_file import Deployment
from comfypin.runpod.deployment_plan import DeploymentStep, plan_deployment
from comfypin.runpod.desired_state import desired_state
from comfypin.runpod.errors import ApiRefused
from comfypin.runpod.management_api import ManagementApi
from comfypin.runpod.release_facts import ReleaseFacts
from tests.conftest import shared_path
from tests.support.runpod_api import CPUS, GPUS, KEY, FakeRunPod

FACTS = ReleaseFacts(
    name="wan22",
    digest=Digest.of(b"lock"),
    cuda="12.8",
    models_bytes=0,
    largest_model_bytes=0,
    container_disk_gb=12,
)
CPU = [{"id": "cpu5c", "vcpus": 4}]
GPU = {"name": "api", "template": "worker", "gpu_pools": ["ADA_24"]}
TOKEN = {"COMFYPIN_TOKEN": "{{ RUNPOD_SECRET_comfypin_token }}"}
BALANCED = {**GPU, "type": "load-balancer", "env": TOKEN}


@pytest.fixture
def runpod() -> Iterator[FakeRunPod]:
    with FakeRunPod(shared_path("openapi") / "runpod-rest-v2.openapi.json") as server:
        yield server
    assert server.violations == []


@pytest.fixture
def api(runpod: FakeRunPod) -> ManagementApi:
    return ManagementApi(key=KEY, base_url=runpod.url, sleep=lambda _s: None)


def deployment(**changes: Any) -> Deployment:
    document: dict[str, Any] = {
        "name": "shop",
        "release": "wan22",
        "image": "ghcr.io/me/x@sha256:" + "1" * 64,
        "volume": [{"name": "models", "data_center": "EU-RO-1"}],
        "template": [{"name": "worker"}, {"name": "studio", "kind": "pod"}],
    }
    return TypeAdapter(Deployment).validate_python({**document, **changes})


def planned(api: ManagementApi, **changes: Any) -> tuple[DeploymentStep, ...]:
    wanted = deployment(**changes)
    return plan_deployment(wanted.name, desired_state(wanted, FACTS), survey_account(api))


def apply(api: ManagementApi, **changes: Any) -> None:
    apply_plan(api, planned(api, **changes), variables={})


def step(steps: tuple[DeploymentStep, ...], kind: str) -> DeploymentStep:
    return next(found for found in steps if found.desired.kind == kind)


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": [GPU]},
        {"endpoint": [{**GPU, "cuda_versions": ["12.8", "13.0"]}]},
        {"endpoint": [{"name": "api", "template": "worker", "cpu": CPU}]},
        {"endpoint": [BALANCED]},
        {"template": [{"name": "worker", "entrypoint": ["/bin/sh", "-c"], "cmd": ["sleep 1"]}], "endpoint": [GPU]},
        {"pod": [{"name": "desk", "template": "studio", "cpu": CPU[0], "volume": "models", "mount": "/data"}]},
        {
            "pod": [
                {
                    "name": "desk",
                    "template": "studio",
                    "gpu": GPUS[0]["id"],
                    "min_ram": 32,
                    "min_vcpus": 8,
                    "global_networking": True,
                    "stop_after": 7200,
                    "cuda_versions": ["12.8"],
                }
            ]
        },
    ],
)
def test_what_was_applied_is_unchanged_for_the_next_plan(api: ManagementApi, changes: dict[str, Any]) -> None:
    apply(api, **changes)
    assert {found.verb for found in planned(api, **changes)} == {"unchanged"}


def test_an_endpoint_on_cpus_asks_for_no_gpu(api: ManagementApi, runpod: FakeRunPod) -> None:
    apply(api, endpoint=[{"name": "api", "template": "worker", "cpu": CPU}])
    endpoint = runpod.named("endpoints", "comfypin-shop-api")
    assert endpoint["cpu"] == [{"id": "cpu5c", "vcpuCount": 4, "memory": 8}]
    assert "gpu" not in endpoint


def test_another_number_of_cpu_flavors_is_a_change(api: ManagementApi) -> None:
    apply(api, endpoint=[{"name": "api", "template": "worker", "cpu": [*CPU, {"id": "cpu5c", "vcpus": 8}]}])
    fewer = planned(api, endpoint=[{"name": "api", "template": "worker", "cpu": CPU}])
    assert step(fewer, "endpoint").verb == "change"
    assert [change.path for change in step(fewer, "endpoint").changes] == ["cpu.count"]


def test_from_gpus_to_cpus_the_endpoint_is_replaced(api: ManagementApi, runpod: FakeRunPod) -> None:
    apply(api, endpoint=[GPU])
    on_cpus = {"endpoint": [{"name": "api", "template": "worker", "cpu": CPU}]}
    assert step(planned(api, **on_cpus), "endpoint").verb == "replace"
    apply(api, **on_cpus)
    assert len(runpod.state["endpoints"]) == 1


def test_of_the_two_limits_of_cuda_one_clears_the_other(api: ManagementApi, runpod: FakeRunPod) -> None:
    apply(api, endpoint=[GPU])
    assert runpod.named("endpoints", "comfypin-shop-api")["gpu"]["minCudaVersion"] == "12.8"
    apply(api, endpoint=[{**GPU, "cuda_versions": ["12.8"]}])
    gpu = runpod.named("endpoints", "comfypin-shop-api")["gpu"]
    assert (gpu["allowedCudaVersions"], gpu["minCudaVersion"]) == (["12.8"], None)
    apply(api, endpoint=[GPU])
    gpu = runpod.named("endpoints", "comfypin-shop-api")["gpu"]
    assert (gpu["allowedCudaVersions"], gpu["minCudaVersion"]) == ([], "12.8")


def test_a_command_in_exec_form_is_told_as_runpod_stores_it(api: ManagementApi, runpod: FakeRunPod) -> None:
    template = [{"name": "worker", "entrypoint": ["/bin/sh", "-c"], "cmd": ["exec sleep 'a b'"]}]
    apply(api, template=template, endpoint=[GPU])
    args = runpod.named("endpoints", "comfypin-shop-api")["args"]
    assert json.loads(args) == {"entrypoint": ["/bin/sh", "-c"], "cmd": ["exec sleep 'a b'"]}


def test_a_command_that_comes_back_spelled_otherwise_is_no_change(api: ManagementApi, runpod: FakeRunPod) -> None:
    template = [{"name": "worker", "entrypoint": ["/bin/sh"], "cmd": ["-c", "x"]}]
    apply(api, template=template, endpoint=[GPU])
    for resource in (*runpod.state["endpoints"].values(), *runpod.state["templates"].values()):
        resource["args"] = json.dumps(dict(reversed(json.loads(resource["args"]).items())), indent=2)
    assert {found.verb for found in planned(api, template=template, endpoint=[GPU])} == {"unchanged"}


def test_a_load_balancers_worker_serves_http_on_a_port_that_is_exposed(api: ManagementApi, runpod: FakeRunPod) -> None:
    apply(api, endpoint=[BALANCED])
    endpoint = runpod.named("endpoints", "comfypin-shop-api")
    assert endpoint["ports"] == ["8000/http"]
    served = {name: endpoint["env"][name] for name in ("PORT", "PORT_HEALTH", "COMFYPIN_MODE")}
    assert served == {"PORT": "8000", "PORT_HEALTH": "8000", "COMFYPIN_MODE": "serve"}


def test_a_port_of_ones_own_is_the_one_that_is_exposed(api: ManagementApi, runpod: FakeRunPod) -> None:
    apply(api, endpoint=[{**BALANCED, "env": {**TOKEN, "PORT": "9000"}}])
    endpoint = runpod.named("endpoints", "comfypin-shop-api")
    assert (endpoint["ports"], endpoint["env"]["PORT_HEALTH"]) == (["9000/http"], "9000")


def test_a_worker_has_the_time_that_its_downloads_take(api: ManagementApi, runpod: FakeRunPod) -> None:
    apply(api, endpoint=[GPU])
    assert runpod.named("endpoints", "comfypin-shop-api")["env"]["RUNPOD_INIT_TIMEOUT"] == "420"
    apply(api, endpoint=[{**GPU, "env": {"RUNPOD_INIT_TIMEOUT": "1800"}}])
    assert runpod.named("endpoints", "comfypin-shop-api")["env"]["RUNPOD_INIT_TIMEOUT"] == "1800"


def pod(**changes: Any) -> dict[str, Any]:
    return {"pod": [{"name": "desk", "template": "studio", "gpu": GPUS[0]["id"], **changes}]}


def test_a_pod_mounts_its_volume_where_the_file_says(api: ManagementApi, runpod: FakeRunPod) -> None:
    apply(api, **pod(volume="models", mount="/data/comfy"))
    made = runpod.named("pods", "comfypin-shop-desk")
    assert made["mounts"]["network"][0]["path"] == "/data/comfy"
    assert {name: made["env"][name] for name in ("MODELS_DIR", "COMFYPIN_PACKS", "COMFYPIN_VOLUME")} == {
        "MODELS_DIR": "/data/comfy/models",
        "COMFYPIN_PACKS": "/data/comfy/packs",
        "COMFYPIN_VOLUME": "/data/comfy",
    }


def test_another_mount_changes_the_pod_and_keeps_it(api: ManagementApi, runpod: FakeRunPod) -> None:
    apply(api, **pod(volume="models"))
    moved = planned(api, **pod(volume="models", mount="/runpod-volume"))
    assert step(moved, "pod").verb == "change"


def test_a_pod_that_gets_a_volume_is_replaced(api: ManagementApi) -> None:
    apply(api, **pod())
    assert step(planned(api, **pod(volume="models")), "pod").verb == "replace"


def test_a_pod_that_gets_a_volume_disk_is_replaced(api: ManagementApi) -> None:
    apply(api, **pod())
    template = [{"name": "worker"}, {"name": "studio", "kind": "pod", "volume_disk": 20}]
    assert step(planned(api, template=template, **pod()), "pod").verb == "replace"


def test_global_networking_is_changed_in_place(api: ManagementApi, runpod: FakeRunPod) -> None:
    apply(api, **pod())
    apply(api, **pod(global_networking=True))
    assert runpod.named("pods", "comfypin-shop-desk")["globalNetworking"] == {"enabled": True}


def test_a_pod_knows_when_to_stop(api: ManagementApi, runpod: FakeRunPod) -> None:
    apply(api, **pod(stop_after=7200))
    assert runpod.named("pods", "comfypin-shop-desk")["env"]["COMFYPIN_STOP_AFTER"] == "7200"


def test_what_only_runpod_knows_goes_along_and_its_refusal_names_it(api: ManagementApi, runpod: FakeRunPod) -> None:
    with pytest.raises(ApiRefused, match="'shiny' was unexpected"):
        apply(api, **pod(api_fields={"shiny": True}))
    # The server of these tests knows the field no more than we do, and noted it.
    assert all("shiny" in violation for violation in runpod.violations)
    runpod.violations.clear()


def test_a_field_that_runpod_does_not_tell_back_is_no_difference(api: ManagementApi, runpod: FakeRunPod) -> None:
    apply(api, endpoint=[GPU])
    again = planned(api, endpoint=[{**GPU, "api_fields": {"shiny": True}}])
    assert step(again, "endpoint").verb == "unchanged"


def test_cpus_have_their_prices() -> None:
    wanted = deployment(
        endpoint=[{"name": "api", "template": "worker", "cpu": CPU, "workers": {"min": 1, "max": 2}}],
        pod=[{"name": "desk", "template": "studio", "cpu": CPU[0]}],
    )
    costs: Mapping[str, HourlyCost] = {cost.name: cost for cost in hourly_costs(wanted, GPUS, CPUS)}
    assert costs["api"].least == pytest.approx(0.12)
    assert costs["api"].most == pytest.approx(0.24)
    assert costs["desk"].least == pytest.approx(0.16)
