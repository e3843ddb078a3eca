"""How repositories are written on the command line."""

from pathlib import Path

import pytest

from comfypin.lock.errors import SpecInvalid
from comfypin.locking.repository_refs import RepoSpec, parse_comfyui_spec, parse_repo_spec


@pytest.mark.parametrize(
    ("text", "repo", "ref", "name"),
    [
        ("https://x.org/o/r@v1", "https://x.org/o/r", "v1", "r"),
        ("https://x.org/o/r.git", "https://x.org/o/r.git", None, "r"),
        ("https://x.org/o/r@feature/x", "https://x.org/o/r", "feature/x", "r"),
        ("https://me@x.org/o/r@v1", "https://me@x.org/o/r", "v1", "r"),
        ("git@x.org:o/r.git@main", "git@x.org:o/r.git", "main", "r"),
        ("ssh://git@x.org:22/o/r", "ssh://git@x.org:22/o/r", None, "r"),
        ("My Node=https://x.org/o/r@v1", "https://x.org/o/r", "v1", "My Node"),
        ("registry://pack@1.0.0", "registry://pack", "1.0.0", "pack"),
        ("/srv/repo@main", "file:///srv/repo", "main", "repo"),
    ],
)
def test_a_spec_is_a_repository_a_ref_and_a_folder(text: str, repo: str, ref: str | None, name: str) -> None:
    spec = parse_repo_spec(text)
    assert (spec.repo, spec.ref, spec.name) == (repo, ref, name)


def test_a_local_folder_becomes_a_url() -> None:
    assert parse_repo_spec("./x").repo == (Path.cwd() / "x").as_uri()


@pytest.mark.parametrize("text", ["", "-x", "org/repo", "https://x.org/r@", "a b", "N="])
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(SpecInvalid):
        parse_repo_spec(text)


@pytest.mark.parametrize("spec_text", ["0.3.64", "v0.3.64", "https://github.com/comfyanonymous/ComfyUI@v0.3.64"])
def test_a_release_of_comfyui_needs_no_address(spec_text: str) -> None:
    assert parse_comfyui_spec(spec_text) == RepoSpec(repo="https://github.com/comfyanonymous/ComfyUI", ref="v0.3.64")


def test_what_is_no_comfyui_is_answered_with_how_to_write_one() -> None:
    with pytest.raises(SpecInvalid, match=r"v0\.3\.64, or https://github\.com/comfyanonymous/ComfyUI@REF"):
        parse_comfyui_spec("newest")
