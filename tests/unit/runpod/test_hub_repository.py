"""The files of a listing in Runpod's Hub: made from a release, and checked by the documented fields."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from comfypin.digest import Digest
from comfypin.runpod.errors import HubInvalid
from comfypin.runpod.hub_files import check_hub_file
from comfypin.runpod.hub_repository import HubOptions, hub_repository
from comfypin.runpod.release_facts import ReleaseFacts

IMAGE = "ghcr.io/me/comfypin-r@sha256:" + "1" * 64
FACTS = ReleaseFacts(
    name="r",
    digest=Digest.of(b"lock"),
    cuda="12.8",
    models_bytes=6_500_000_000,
    largest_model_bytes=6_500_000_000,
    container_disk_gb=18,
    env_bytes=4_000_000_000,
)


def options(**changes: Any) -> HubOptions:
    return HubOptions(**{"title": "Portraits", "description": "Makes portraits.", "image": IMAGE, **changes})


def document(name: str, **changes: Any) -> dict[str, Any]:
    return dict(json.loads(hub_repository(FACTS, options(**changes))[PurePosixPath(".runpod") / name]))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cpu_flavor": "cpu5c"},
        {"category": "video", "icon_url": "https://example.org/icon.png", "gpu_pools": ("ADA_24", "-NVIDIA L4")},
        {"test_workflows": ("portrait",), "variables": {"OUTPUT_FORMAT": "webp"}},
    ],
)
def test_what_is_made_is_valid_by_the_documented_fields(changes: dict[str, Any]) -> None:
    made = hub_repository(FACTS, options(**changes))
    for name in ("hub.json", "tests.json"):
        check_hub_file(Path(name), made[PurePosixPath(".runpod") / name])


def test_the_repository_has_every_file_that_the_hub_looks_for() -> None:
    assert {str(path) for path in hub_repository(FACTS, options())} == {
        ".runpod/hub.json",
        ".runpod/tests.json",
        ".runpod/Dockerfile",
        ".runpod/handler.py",
        "README.md",
    }


def test_the_dockerfile_stands_on_the_published_image_and_does_nothing_else() -> None:
    dockerfile = hub_repository(FACTS, options())[PurePosixPath(".runpod/Dockerfile")].decode()
    assert [line for line in dockerfile.splitlines() if not line.startswith("#")] == [f"FROM {IMAGE}"]


def test_disk_time_and_cuda_come_from_the_release() -> None:
    config = document("hub.json")["config"]
    assert config["containerDiskInGb"] == 25
    assert config["allowedCudaVersions"] == ["13.0", "12.9", "12.8"]
    assert {"key": "RUNPOD_INIT_TIMEOUT", "value": "720"} in config["env"]


def test_a_listing_on_cpus_asks_for_no_gpu() -> None:
    config = document("hub.json", cpu_flavor="cpu5c")["config"]
    assert (config["runsOn"], config["cpuFlavor"]) == ("CPU", "cpu5c")
    assert not {"gpuIds", "gpuCount", "allowedCudaVersions"} & set(config)
    assert document("tests.json", cpu_flavor="cpu5c")["config"] == {"cpuFlavor": "cpu5c"}


def test_the_smoke_test_has_the_time_of_a_cold_start() -> None:
    (smoke,) = document("tests.json")["tests"]
    assert smoke == {
        "name": "smoke",
        "input": {"workflow": {}, "output": {"mode": "base64"}},
        "timeout": (720 + 300) * 1000,
    }


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("hub.json", {"titel": "x"}, "titel: the Hub does not know this field"),
        ("hub.json", {"category": "pictures"}, "category"),
        ("hub.json", {"type": "pod"}, "type"),
        ("hub.json", {"description": ""}, "description"),
        ("hub.json", {"iconUrl": "icon.png"}, "iconUrl"),
        ("hub.json", {"config": {"runsOn": "GPU", "containerDiskInGb": 20}}, "needs gpuCount and gpuIds"),
        ("hub.json", {"config": {"runsOn": "CPU", "containerDiskInGb": 20}}, "needs cpuFlavor"),
        (
            "hub.json",
            {"config": {"runsOn": "CPU", "cpuFlavor": "c", "containerDiskInGb": 1, "env": [{"key": "A"}]}},
            "a value or an input",
        ),
        ("tests.json", {"tests": []}, "tests"),
        ("tests.json", {"config": {}}, "gpuTypeId or on a cpuFlavor"),
        ("tests.json", {"tests": [{"name": "a", "input": {}, "timeout": "10 s"}]}, "tests.0.timeout"),
    ],
)
def test_what_the_hub_would_not_take_is_named(name: str, change: dict[str, Any], words: str) -> None:
    broken = json.dumps({**document(name), **change}).encode()
    with pytest.raises(HubInvalid) as refused:
        check_hub_file(Path(name), broken)
    assert words in refused.value.message


def test_a_file_that_is_not_json_is_named() -> None:
    with pytest.raises(HubInvalid, match="it is not JSON"):
        check_hub_file(Path("hub.json"), b"{")
