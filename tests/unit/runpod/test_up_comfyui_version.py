"""Which ComfyUI a workflow means: the one it names, else a question with candidates."""

import pytest

from comfypin.runpod.up.comfyui_version import COMFYUI_REPOSITORY, named_version, newest_releases, version_finding


@pytest.mark.parametrize(
    ("versions", "named"), [(("0.33.0",), "0.33.0"), (("0.33.0", "0.3.49"), None), (("nightly",), None), ((), None)]
)
def test_only_one_release_is_an_answer(versions: tuple[str, ...], named: str | None) -> None:
    assert named_version(versions) == named


def test_of_several_the_newest_is_the_first_candidate() -> None:
    finding = version_finding(("0.3.9", "0.3.49", "nightly"), newest_releases(["refs/tags/v0.33.0", "refs/heads/x"]))
    assert finding.endswith(f"candidates: {COMFYUI_REPOSITORY}@v0.3.49, {COMFYUI_REPOSITORY}@v0.33.0")


def test_without_any_the_newest_releases_are_the_candidates() -> None:
    tags = [f"refs/tags/v0.{number}.0" for number in range(9, 16)]
    finding = version_finding((), newest_releases(tags))
    assert finding.count(f"{COMFYUI_REPOSITORY}@v0.1") == 5
    assert "v0.15.0, " in finding
