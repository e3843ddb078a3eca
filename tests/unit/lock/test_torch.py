"""What the versions of torch and its companions say: the build, the target, whether they belong together."""

import pytest

from comfypin.lock.model import PackagePin
from comfypin.lock.torch import find_requested_build, find_torch_build, is_trio_consistent, split_target, target_name


@pytest.mark.parametrize(
    ("packages", "build"),
    [
        ({}, None),
        ({"torch": "2.8.0", "nvidia-cuda-runtime-cu12": "12.8.90"}, "cu128"),
        ({"torch": "2.11.0", "nvidia-cuda-runtime": "13.0.96"}, "cu130"),
        ({"torch": "2.8.0+cpu"}, "cpu"),
        ({"torch": "2.8.0"}, None),
    ],
)
def test_what_torch_was_built_for_is_read_from_the_pins(packages: dict[str, str], build: str | None) -> None:
    pins = [PackagePin(name=name, version=version) for name, version in packages.items()]
    assert find_torch_build(pins) == build
    assert target_name("linux-x86_64", pins) == (f"linux-x86_64-{build}" if build else "linux-x86_64")


def test_torchaudio_of_another_release_does_not_fit() -> None:
    torch, audio = PackagePin(name="torch", version="2.8.0"), PackagePin(name="torchaudio", version="2.8.1+cu128")
    assert is_trio_consistent([torch, audio])
    assert not is_trio_consistent([torch, PackagePin(name="torchaudio", version="2.11.0")])
    assert is_trio_consistent([audio])


@pytest.mark.parametrize(
    ("torch", "torchaudio", "fits"),
    [
        ("2.11.0", "2.11.0", True),
        ("2.14.1+cu130", "2.11.1", True),
        ("2.10.0", "2.11.0", False),
        ("2.11.0", "2.9.1", False),
        ("2.9.1", "2.8.0", False),
    ],
)
def test_torchaudio_of_the_stable_interface_fits_every_later_torch(torch: str, torchaudio: str, *, fits: bool) -> None:
    pins = [PackagePin(name="torch", version=torch), PackagePin(name="torchaudio", version=torchaudio)]
    assert is_trio_consistent(pins) is fits


@pytest.mark.parametrize(
    ("target", "parts"),
    [("linux-x86_64-cu128", ("linux-x86_64", "cu128")), ("darwin-aarch64", ("darwin-aarch64", None))],
)
def test_a_target_names_its_platform_and_the_build_of_torch(target: str, parts: tuple[str, str | None]) -> None:
    assert split_target(target) == parts


def test_the_build_that_a_requirement_asks_for_is_its_local_version() -> None:
    assert find_requested_build(["numpy==2.0", "torch==2.8.0+cu128"]) == "cu128"
    assert find_requested_build(["torch==2.8.0", "torchvision==0.23.0+cu128"]) is None
