"""Runpod's rules are checked before any call, each with a sentence that says where and what to do."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from comfypin.digest import Digest
from comfypin.lock.model import Lock, ModelPin, PackagePin, PythonPins
from comfypin.lock.torch import minimum_cuda
from comfypin.runpod.compute_rules import cpu_findings, gpu_findings
from comfypin.runpod.deployment_file import Deployment
from comfypin.runpod.desired_state import needed_disk_gb
from comfypin.runpod.platform_rules import deployment_findings
from comfypin.runpod.release_facts import ReleaseFacts, release_facts

DIGEST = Digest.of(b"lock")
IMAGE = "ghcr.io/me/x@sha256:" + "1" * 64


def facts(**changes: Any) -> ReleaseFacts:
    values: dict[str, Any] = {
        "name": "wan22",
        "digest": DIGEST,
        "cuda": "12.8",
        "models_bytes": 0,
        "largest_model_bytes": 0,
        "container_disk_gb": 12,
    }
    return ReleaseFacts(**{**values, **changes})


def deployment(**changes: Any) -> Deployment:
    document: dict[str, Any] = {
        "name": "shop",
        "release": "wan22",
        "image": IMAGE,
        "volume": [{"name": "models", "data_center": "EU-RO-1", "size": 100}],
        "template": [{"name": "worker"}, {"name": "studio", "kind": "pod"}],
        "endpoint": [{"name": "api", "template": "worker", "gpu_pools": ["ADA_24"], "volumes": ["models"]}],
        "pod": [{"name": "desk", "template": "studio", "gpu": "NVIDIA GeForce RTX 4090", "volume": "models"}],
    }
    return TypeAdapter(Deployment).validate_python({**document, **changes})


CPUS = [{"id": "cpu5c", "vcpus": 4}]
POD = {"name": "desk", "template": "studio", "gpu": "NVIDIA GeForce RTX 4090"}
TOKEN = {"COMFYPIN_TOKEN": "{{ RUNPOD_SECRET_comfypin_token }}"}
BALANCED = {"name": "a", "template": "worker", "gpu_pools": ["X"], "type": "load-balancer", "env": TOKEN}


def test_a_sound_deployment_has_no_findings() -> None:
    assert deployment_findings(deployment(), facts()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "ghcr.io/me/x:latest"}, "not pinned by digest"),
        ({"image": None}, "no image"),
        ({"image": "ghcr.io/YOU/comfypin-demo@sha256:" + "0" * 64}, "placeholder"),
        ({"env": {"COMFY_VERSION_NAME": "other"}}, "is set from the release"),
        ({"env": {f"V{index}": "x" for index in range(48)}}, "Runpod allows 50"),
        ({"env": {"HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz"}}, "RUNPOD_SECRET_hf_token"),
        ({"storage": {"S3_URL": "https://user:pass@host/"}}, "looks like a secret"),
        ({"env": {"SETTINGS": "token ghp_abcdefghijklmnopqrstuvwxyz0123"}}, "looks like a secret"),
        ({"env": {"1X": "y"}}, "not a valid variable name"),
        ({"template": [{"name": "worker", "ports": [f"{8000 + i}/http" for i in range(11)]}]}, "11 HTTP ports"),
        ({"template": [{"name": "worker", "ports": ["8000"]}]}, "NUMBER/http or NUMBER/tcp"),
        ({"template": [{"name": "worker", "ports": ["70010/http"]}]}, "does not exist"),
        ({"template": [{"name": "worker", "ports": ["8000/http", "8000/http"]}]}, "listed 2 times"),
        ({"template": [{"name": "worker", "disk": 5}]}, "less than the 12 GB"),
        ({"template": [{"name": "worker", "volume_disk": 20}]}, "belongs to pods"),
        ({"template": [{"name": "worker", "registry": "ghcr"}]}, "no registry 'ghcr'"),
        ({"template": [{"name": "worker"}, {"name": "worker"}]}, "in the file 2 times"),
        ({"endpoint": [{"name": "a", "template": "nope", "gpu_pools": ["X"]}]}, "no template 'nope'"),
        ({"endpoint": [{"name": "a", "template": "studio", "gpu_pools": ["X"]}]}, 'it needs "serverless"'),
        (
            {
                "volume": [
                    {"name": "one", "data_center": "EU-RO-1"},
                    {"name": "two", "data_center": "EU-RO-1"},
                ],
                "endpoint": [{"name": "a", "template": "worker", "gpu_pools": ["X"], "volumes": ["one", "two"]}],
                "pod": [],
            },
            "only one volume per data centre",
        ),
        (
            {
                "endpoint": [
                    {
                        "name": "a",
                        "template": "worker",
                        "gpu_pools": ["X"],
                        "volumes": ["models"],
                        "data_centers": ["US-TX-3"],
                    }
                ]
            },
            "only reached from its own data centre",
        ),
        (
            {"endpoint": [{"name": "a", "template": "worker", "gpu_pools": ["X"], "workers": {"min": 4, "max": 2}}]},
            "more than workers.max",
        ),
        (
            {"endpoint": [{"name": "a", "template": "worker", "gpu_pools": ["X"], "min_cuda": "12.4"}]},
            "below CUDA 12.8",
        ),
        (
            {
                "endpoint": [
                    {
                        "name": "a",
                        "template": "worker",
                        "gpu_pools": ["X"],
                        "type": "load-balancer",
                        "scaling": {"queue_delay": 4},
                    }
                ]
            },
            "has no queue",
        ),
        ({"endpoint": [{**BALANCED, "env": {}}]}, "a load balancer's workers need one token"),
        ({"endpoint": [{**BALANCED, "env": {**TOKEN, "COMFYPIN_MODE": "worker"}}]}, "serves no load balancer"),
        (
            {"template": [{"name": "worker", "ports": ["9000/http"]}], "endpoint": [BALANCED]},
            "add 8000/http to its ports",
        ),
        ({"endpoint": [{"name": "a", "template": "worker"}]}, "give it gpu_pools, or cpu"),
        ({"endpoint": [{"name": "a", "template": "worker", "gpu_pools": ["X"], "cpu": CPUS}]}, "and not both"),
        ({"endpoint": [{"name": "a", "template": "worker", "cpu": CPUS, "gpu_count": 2}]}, "gpu_count need a GPU"),
        ({"endpoint": [{"name": "a", "template": "worker", "cpu": [{"id": "cpu5c", "vcpus": 6}]}]}, "no power of two"),
        ({"endpoint": [{"name": "a", "template": "worker", "cpu": CPUS * 2}]}, "with 4 vCPUs 2 times"),
        (
            {"endpoint": [{"name": "a", "template": "worker", "gpu_pools": ["X"], "cuda_versions": ["12.4"]}]},
            "cuda_versions = 12.4 is below CUDA 12.8",
        ),
        (
            {
                "endpoint": [
                    {
                        "name": "a",
                        "template": "worker",
                        "gpu_pools": ["X"],
                        "cuda_versions": ["12.8"],
                        "min_cuda": "12.8",
                    }
                ]
            },
            "exclude each other",
        ),
        ({"template": [{"name": "worker", "args": "a b", "cmd": ["a", "b"]}]}, "two ways to say one command"),
        ({"pod": [{**POD, "cloud": "community", "volume": "models"}]}, "exist on the secure cloud only"),
        ({"pod": [{"name": "desk", "template": "studio"}]}, "give it a gpu, or cpu"),
        ({"pod": [{"name": "desk", "template": "studio", "cpu": CPUS[0], "global_networking": True}]}, "need a GPU"),
        (
            {
                "template": [{"name": "worker"}, {"name": "studio", "kind": "pod", "volume_disk": 20}],
                "pod": [{"name": "desk", "template": "studio", "cpu": CPUS[0]}],
            },
            "takes no volume_disk",
        ),
    ],
)
def test_each_broken_rule_is_one_clear_finding(changes: dict[str, Any], words: str) -> None:
    found = deployment_findings(deployment(**{"endpoint": [], "pod": [], **changes}), facts())
    assert len([finding for finding in found if words in finding]) >= 1, found


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (variable, value)
        for variable in ("GOOGLE_APPLICATION_CREDENTIALS", "SETTINGS")
        for value in (
            '{"type": "service_account", "private_key": "-----BEGIN"}',
            '{"type": "authorized_user", "client_id": "me", "client_secret": "s3cret", "refresh_token": "s3cret"}',
            '{"type": "external_account", "credential_source": {"headers": {"Authorization": "Bearer s3cret"}}}',
            '{"type": "external_account", "workforce": [{"client_secret": "s3cret"}]}',
            '{"type": "service_account", "private_key": "s3cret", badly pasted',
        )
    ]
    + [("GOOGLE_APPLICATION_CREDENTIALS", '{"refresh_token": s3cret'), ("A", "AccountName=me;AccountKey=s3cret==")],
)
def test_a_key_in_plain_text_is_refused_and_not_shown(variable: str, value: str) -> None:
    found = deployment_findings(deployment(env={variable: value}), facts())
    assert found
    assert all(f"{variable} looks like a secret in plain text" in finding for finding in found)
    assert not any("s3cret" in finding for finding in found)


@pytest.mark.parametrize(
    "value",
    [
        "/run/secrets/key.json",
        '{"type": "external_account", "audience": "a", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", '
        '"token_url": "https://sts.googleapis.com/v1/token", "credential_source": {"file": "/var/run/token"}}',
        '{"type": "authorized_user", "refresh_token": "{{ RUNPOD_SECRET_google }}"}',
        "{{ RUNPOD_SECRET_google }}",
    ],
)
def test_credentials_without_a_secret_are_plain_facts(value: str) -> None:
    assert deployment_findings(deployment(env={"GOOGLE_APPLICATION_CREDENTIALS": value}), facts()) == []


@pytest.mark.parametrize("name", ["hf", "_hf", "team/hf.token-1"])
def test_a_secret_by_reference_is_accepted(name: str) -> None:
    assert deployment_findings(deployment(env={"HF_TOKEN": f"{{{{ RUNPOD_SECRET_{name} }}}}"}), facts()) == []


@pytest.mark.parametrize("port", ["70000/tcp", "70001/tcp", "70022/tcp", "99999/tcp"])
def test_tcp_ports_from_70000_on_ask_for_symmetrical_mapping_and_are_accepted(port: str) -> None:
    template = [{"name": "worker"}, {"name": "studio", "kind": "pod", "ports": ["8000/http", port]}]
    assert deployment_findings(deployment(template=template), facts()) == []


def test_a_port_between_the_real_ones_and_the_symmetrical_ones_does_not_exist() -> None:
    template = [{"name": "worker"}, {"name": "studio", "kind": "pod", "ports": ["69999/tcp"]}]
    (finding,) = deployment_findings(deployment(template=template), facts())
    assert finding == (
        "template 'studio': port 69999/tcp does not exist; take 1 to 65535, or 70000/tcp and above (symmetrical)"
    )


def test_models_larger_than_a_gpu_are_found_with_the_catalog() -> None:
    gpus = [{"id": "small", "pool": "ADA_24", "memory": 24}, {"id": "NVIDIA GeForce RTX 4090", "memory": 24}]
    found = gpu_findings(deployment(), facts(largest_model_bytes=28_000_000_000), gpus)
    assert len(found) == 2
    assert "28.00 GB" in found[0]
    assert "24 GB" in found[0]


def test_an_excluded_gpu_is_not_checked() -> None:
    gpus = [{"id": "small", "pool": "P", "memory": 24}, {"id": "large", "pool": "P", "memory": 80}]
    endpoint = [{"name": "a", "template": "worker", "gpu_pools": ["P"], "excluded_gpus": ["small"]}]
    assert gpu_findings(deployment(endpoint=endpoint, pod=[]), facts(largest_model_bytes=30 * 10**9), gpus) == []


@pytest.mark.parametrize(
    ("packages", "floor"),
    [
        ({"torch": "2.8.0+cu128"}, "12.8"),
        ({"torch": "2.7.1+cu126"}, "12.6"),
        ({"torch": "2.8.0+cpu"}, None),
        ({"torch": "2.8.0", "nvidia-cuda-runtime-cu12": "12.8.90"}, "12.8"),
        ({"torch": "2.10.0", "nvidia-cuda-runtime": "13.0.96"}, "13.0"),
        ({"torch": "2.6.0"}, "12.4"),
        ({"numpy": "2.0"}, None),
        ({"torch": "2.9.0+cu130"}, "13.0"),
    ],
)
def test_the_cuda_floor_comes_from_the_locks_torch(packages: dict[str, str], floor: str | None) -> None:
    assert minimum_cuda(tuple(PackagePin(name=name, version=version) for name, version in packages.items())) == floor


def test_facts_of_a_lock() -> None:
    models = tuple(ModelPin(name=str(size), target_path=f"$MODELS_DIR/{size}", size_bytes=size) for size in (5, 7))
    python = PythonPins(packages=(PackagePin(name="torch", version="2.8.0+cu128"),))
    read = release_facts(Lock(version_name="r", models=models, python=python), DIGEST)
    assert (read.models_bytes, read.largest_model_bytes, read.cuda) == (12, 7, "12.8")


def test_variables_of_all_places_are_counted_together() -> None:
    changes = {
        "env": {f"A{index}": "x" for index in range(30)},
        "endpoint": [
            {
                "name": "api",
                "template": "worker",
                "gpu_pools": ["ADA_24"],
                "env": {f"B{index}": "x" for index in range(20)},
            }
        ],
    }
    (finding,) = deployment_findings(deployment(**changes), facts())
    assert finding == "endpoint 'api': 50 variables and 4 of ours; Runpod allows 50"


def test_the_disk_holds_the_models_where_no_volume_does() -> None:
    big = facts(models_bytes=30_000_000_000)
    bare = [{"name": "api", "template": "worker", "gpu_pools": ["ADA_24"]}]
    template = deployment().template[0]
    assert needed_disk_gb(deployment(), big, template) == 12
    assert needed_disk_gb(deployment(endpoint=bare), big, template) == 42
    (finding,) = deployment_findings(deployment(endpoint=bare, template=[{"name": "worker", "disk": 20}], pod=[]), big)
    assert "less than the 42 GB" in finding


def test_a_volume_smaller_than_the_models_is_named() -> None:
    (finding,) = deployment_findings(deployment(), facts(models_bytes=130_000_000_000))
    assert finding == "volume 'models': size = 100 GB is less than the release's models (130.00 GB)"


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": [BALANCED]},
        {"endpoint": [{**BALANCED, "env": {**TOKEN, "PORT": "9000"}}]},
        {"template": [{"name": "worker", "ports": ["8000/http", "9001/http"]}], "endpoint": [BALANCED], "pod": []},
        {"endpoint": [{"name": "a", "template": "worker", "cpu": CPUS}]},
        {"pod": [{"name": "desk", "template": "studio", "cpu": CPUS[0], "volume": "models", "mount": "/data/models"}]},
        {"pod": [{**POD, "min_ram": 32, "min_vcpus": 8, "stop_after": 7200, "global_networking": True}]},
        {"pod": [{**POD, "cloud": "community"}]},
        {"template": [{"name": "worker", "entrypoint": ["/bin/sh", "-c"], "cmd": ["sleep 1"]}], "pod": []},
        {"endpoint": [{"name": "a", "template": "worker", "gpu_pools": ["X"], "cuda_versions": ["12.8", "13.0"]}]},
        {"env": {f"V{index}": "x" for index in range(41)}},
    ],
)
def test_what_runpod_takes_is_accepted(changes: dict[str, Any]) -> None:
    assert deployment_findings(deployment(**changes), facts()) == []


def test_a_release_that_needs_a_gpu_is_not_put_on_cpus() -> None:
    endpoint = [{"name": "a", "template": "worker", "cpu": CPUS}]
    (finding,) = deployment_findings(deployment(endpoint=endpoint), facts(needs_gpu=True))
    assert "ComfyUI ends on a machine without a GPU" in finding


def test_cpus_that_the_catalog_does_not_have_are_named() -> None:
    flavors = [{"id": "cpu5c", "vcpu": {"min": 2, "max": 32}}]
    endpoint = [{"name": "a", "template": "worker", "cpu": [{"id": "cpu9x", "vcpus": 4}, {"id": "cpu5c", "vcpus": 64}]}]
    assert cpu_findings(deployment(endpoint=endpoint), flavors) == [
        "endpoint 'a': there is no CPU 'cpu9x'; there are cpu5c",
        "endpoint 'a': cpu5c has 2 to 32 vCPUs, and the file says 64",
    ]


def test_an_exclusion_that_excludes_nothing_is_named_before_runpod_refuses_it() -> None:
    gpus = [{"id": "small", "pool": "P", "memory": 24}]
    endpoint = [{"name": "a", "template": "worker", "gpu_pools": ["P"], "excluded_gpus": ["smal"]}]
    (finding,) = gpu_findings(deployment(endpoint=endpoint, pod=[]), facts(), gpus)
    assert finding == "endpoint 'a': excluded_gpus names 'smal', which its pools do not have; they have small"


@pytest.mark.parametrize(
    ("fetched", "seconds"),
    [
        ({}, 420),
        ({"env_bytes": 4_000_000_000}, 480),
        ({"models_bytes": 25_000_000_000}, 1320),
        ({"models_bytes": 25_000_000_000, "env_bytes": 4_000_000_000}, 1500),
    ],
)
def test_the_time_to_start_comes_from_what_must_be_fetched(fetched: dict[str, int], seconds: int) -> None:
    assert facts(**fetched).init_timeout_s == seconds
