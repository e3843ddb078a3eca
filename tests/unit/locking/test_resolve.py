"""What a resolve is made of: the best wheel, torch's builds, targets merged, requirements that cannot be used."""

from collections.abc import Iterable

import pytest

from comfypin.digest import Digest
from comfypin.lock.model import PackagePin
from comfypin.lock.requirements import RequirementSet, read_requirements
from comfypin.locking.errors import PackagesUnreachable, PackageWithoutFile, RequirementsUnreadable
from comfypin.locking.pylock import PLATFORMS, read_pylock
from comfypin.locking.resolve import (
    ResolveRequest,
    merge_targets,
    resolve_packages,
)

SHA = "ab" * 32


def silent(_: str) -> None:
    """Nobody listens."""


def needs(*lines: str, origin: str = "ComfyUI") -> RequirementSet:
    return read_requirements("r.txt", origin=origin, read=lambda _: "\n".join(lines))


def a_question(asked: RequirementSet, **parts: object) -> ResolveRequest:
    return ResolveRequest(**{"needs": asked, "python": "3.12", "platforms": ("linux-x86_64",), **parts})  # type: ignore[arg-type]


def versions(pins: Iterable[PackagePin]) -> dict[str, str]:
    return {pin.name: pin.version for pin in pins}


def a_pylock(*wheels: str, sdist: str | None = None) -> str:
    listed = ", ".join(f'{{ url = "https://x.org/{name}", hashes = {{ sha256 = "{SHA}" }} }}' for name in wheels)
    source = f'sdist = {{ url = "https://x.org/{sdist}", hashes = {{ sha256 = "{SHA}" }} }}\n' if sdist else ""
    return f'lock-version = "1.0"\n[[packages]]\nname = "a"\nversion = "1"\nwheels = [{listed}]\n{source}'


@pytest.mark.parametrize(
    ("platform", "wanted"),
    [
        ("linux-x86_64", "a-1-cp312-cp312-manylinux_2_28_x86_64.whl"),
        ("linux-aarch64", "a-1-cp312-abi3-manylinux2014_aarch64.whl"),
        ("darwin-aarch64", "a-1-py3-none-any.whl"),
    ],
)
def test_the_best_wheel_of_a_platform_is_chosen(platform: str, wanted: str) -> None:
    text = a_pylock(
        "a-1-py3-none-any.whl",
        "a-1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "a-1-cp312-cp312-manylinux_2_17_x86_64.whl",
        "a-1-cp312-cp312-manylinux_2_28_x86_64.whl",
        "a-1-cp312-cp312-manylinux_2_39_x86_64.whl",
        "a-1-cp312-cp312-win_amd64.whl",
        "a-1-cp312-abi3-manylinux2014_aarch64.whl",
        "a-1-cp312-cp312-macosx_15_0_arm64.whl",
    )
    (pin,) = read_pylock(text, platform=PLATFORMS[platform], python_version="3.12")
    assert pin.url == f"https://x.org/{wanted}"
    assert pin.sha256 == (Digest(SHA),)


def test_without_a_fitting_wheel_the_source_archive_is_pinned() -> None:
    text = a_pylock("a-1-cp312-cp312-win_amd64.whl", sdist="a-1.tar.gz")
    assert (
        read_pylock(text, platform=PLATFORMS["linux-x86_64"], python_version="3.12")[0].url
        == "https://x.org/a-1.tar.gz"
    )


def test_a_package_without_any_file_for_the_platform_is_named() -> None:
    with pytest.raises(PackageWithoutFile, match="a 1"):
        read_pylock(
            a_pylock("a-1-cp312-cp312-win_amd64.whl"), platform=PLATFORMS["linux-x86_64"], python_version="3.12"
        )


def test_a_git_requirement_is_pinned_by_its_commit() -> None:
    vcs = f'vcs = {{ type = "git", url = "https://x.org/a", requested-revision = "v1", commit-id = "{"1" * 40}" }}'
    text = f'[[packages]]\nname = "a"\nversion = "1"\n{vcs}\n'
    (pin,) = read_pylock(text, platform=PLATFORMS["linux-x86_64"], python_version="3.12")
    assert pin.url == f"git+https://x.org/a@{'1' * 40}"


def test_what_all_targets_have_alike_is_there_once() -> None:
    shared = PackagePin(name="a", version="1", url="u", sha256=(Digest(SHA),))
    own = [PackagePin(name="b", version="1", url=f"u{number}") for number in (1, 2)]
    merged = merge_targets({"one": (shared, own[0]), "two": (shared, own[1])})
    assert [(pin.name, pin.target) for pin in merged] == [("a", None), ("b", "one"), ("b", "two")]


def test_unusable_requirements_are_all_said_before_anything_is_asked() -> None:
    with pytest.raises(RequirementsUnreadable) as caught:
        resolve_packages(a_question(needs("-e .") + needs("./x.whl", origin="the node N")), report=silent)
    assert len(caught.value.facts["lines"]) == 2  # type: ignore[arg-type]


@pytest.mark.soak
def test_for_a_torchaudio_that_fits_one_torch_alone_torch_is_held_back() -> None:
    found = versions(resolve_packages(a_question(needs("torch", "torchaudio<2.10")), report=silent).packages)
    assert found["torch"].split(".")[:2] == found["torchaudio"].split(".")[:2]


def test_an_index_that_cannot_be_reached_is_said() -> None:
    with pytest.raises(PackagesUnreachable):
        resolve_packages(a_question(needs("idna"), indexes=("http://127.0.0.1:9/simple",)), report=silent)
