"""One joint resolve by the real uv: conflicts, overrides, torch and its companions, several platforms."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from comfypin.errors import ComfypinError
from comfypin.lock.model import PackagePin
from comfypin.lock.requirements import RequirementSet, read_requirements
from comfypin.locking.errors import PackagesUnreachable, RequirementsConflict
from comfypin.locking.resolve import ResolveRequest, pin_installed, resolve_packages

pytestmark = pytest.mark.network


def silent(_: str) -> None:
    """Nobody listens."""


def needs(*lines: str, origin: str = "ComfyUI") -> RequirementSet:
    return read_requirements("r.txt", origin=origin, read=lambda _: "\n".join(lines))


def a_question(asked: RequirementSet, **parts: object) -> ResolveRequest:
    return ResolveRequest(**{"needs": asked, "python": "3.12", "platforms": ("linux-x86_64",), **parts})  # type: ignore[arg-type]


def versions(pins: Iterable[PackagePin]) -> dict[str, str]:
    return {pin.name: pin.version for pin in pins}


def test_everybodys_requirements_are_resolved_together_with_urls_and_digests() -> None:
    asked = needs("idna>=3") + needs("idna<3.5", "iniconfig", origin="the node N")
    pins = resolve_packages(a_question(asked), report=silent).packages
    assert versions(pins)["idna"] == "3.4"
    assert all(pin.url and len(pin.sha256) == 1 for pin in pins)


def test_a_conflict_names_both_sides_and_who_wants_what() -> None:
    asked = needs("idna>=3.7") + needs("idna<3.5", origin="the node N")
    with pytest.raises(RequirementsConflict) as caught:
        resolve_packages(a_question(asked), report=silent)
    assert caught.value.facts["wants"] == ["ComfyUI wants idna>=3.7", "the node N wants idna<3.5"]


def test_a_conflict_says_which_indexes_nobody_asked() -> None:
    lines = ("the node N (requirements.txt, line 1): --extra-index-url https://x.org/simple", "the node N: --pre")
    asked = needs("idna==99+cu1", origin="the node N") + RequirementSet(ignored=lines)
    with pytest.raises(RequirementsConflict, match=r"--index URL\):\n  the node N .*https://x\.org/simple\n") as caught:
        resolve_packages(a_question(asked), report=silent)
    assert "--pre" not in caught.value.message


def test_an_override_settles_a_conflict() -> None:
    asked = needs("idna>=3.7") + needs("idna<3.5", origin="the node N")
    assert (
        versions(resolve_packages(a_question(asked, overrides=("idna==3.6",)), report=silent).packages)["idna"] == "3.6"
    )


def test_a_package_that_does_not_exist_is_named_with_who_wants_it() -> None:
    with pytest.raises(RequirementsConflict, match="the node N wants comfypin-no-such-package"):
        resolve_packages(a_question(needs("comfypin-no-such-package", origin="the node N")), report=silent)


def test_torch_torchvision_and_torchaudio_are_of_one_release() -> None:
    asked = needs("torch==2.8.0", "torchvision", "torchaudio")
    python = resolve_packages(a_question(asked, torch="cu128"), report=silent)
    found = versions(python.packages)
    assert (found["torch"], found["torchvision"], found["torchaudio"]) == ("2.8.0", "0.23.0", "2.8.0")
    assert list(python.targets) == ["linux-x86_64-cu128"]


def test_several_platforms_share_what_they_have_alike() -> None:
    asked = a_question(needs("markupsafe", "idna"), platforms=("linux-x86_64", "darwin-aarch64"))
    python = resolve_packages(asked, report=silent)
    assert sorted((pin.name, pin.target) for pin in python.packages if pin.name == "markupsafe") == [
        ("markupsafe", "darwin-aarch64"),
        ("markupsafe", "linux-x86_64"),
    ]
    assert [pin.target for pin in python.packages if pin.name == "idna"] == [None]


def test_installed_packages_are_pinned_as_they_are_and_absent_ones_named() -> None:
    lines = ["idna==3.7", "comfypin-no-such-package==1", "iniconfig==99"]
    python, missing = pin_installed(
        lines, ResolveRequest(needs=RequirementSet(), python="3.12", platforms=("linux-x86_64",)), report=silent
    )
    assert versions(python.packages) == {"idna": "3.7"}
    assert sorted(missing) == ["comfypin-no-such-package==1", "iniconfig==99"]


def test_an_installed_package_that_uv_cannot_read_is_told_as_uv_tells_it(tmp_path: Path) -> None:
    (broken := tmp_path / "broken-1-py3-none-any.whl").write_text("no zip")
    with pytest.raises(ComfypinError, match="broken"):
        pin_installed([f"broken @ {broken.as_uri()}"], a_question(RequirementSet()), report=silent)


def test_a_build_of_torch_that_nobody_has_is_told_from_an_index_that_does_not_answer() -> None:
    question = ResolveRequest(needs=RequirementSet(), python="3.12", platforms=("linux-x86_64",))
    said: list[str] = []
    heard, missing = "", ()
    try:
        _, missing = pin_installed(["idna==3.7", "torch==0.0.1+cpu"], question, report=said.append)
    except PackagesUnreachable as error:
        heard = error.message
    if any("PyTorch's index for cpu cannot be reached" in line for line in said):
        assert re.search(r"PyTorch's index for cpu does not answer\. torch==0\.0\.1\+cpu .*--index", heard)
    else:
        assert missing == ("torch==0.0.1+cpu",)
