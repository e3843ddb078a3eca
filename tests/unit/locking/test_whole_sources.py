"""What of a node is gone is found when the lock is made, and the node is named."""

from pathlib import Path

import pytest

from comfypin.locking.errors import SourceNotWhole
from comfypin.locking.whole_sources import require_whole_source
from comfypin.tools.git import CommitSource
from tests.support.repositories import commit, git

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"


def with_submodule(folder: Path, inner: str, inner_commit: str) -> str:
    """A repository with one submodule, whatever there is at its address."""
    commit(folder, {".gitmodules": f'[submodule "lib"]\n\tpath = ext/lib\n\turl = {inner}\n', "__init__.py": ""})
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{inner_commit},ext/lib")
    git(folder, "commit", "--quiet", "--message", "a submodule")
    return git(folder, "rev-parse", "HEAD")


def probe(folder: Path, commit_id: str, cache: Path) -> None:
    commits = CommitSource(cache=cache)
    stored = commits.obtain_repository(folder.as_uri(), commit_id)
    require_whole_source(commits, stored, folder.as_uri(), commit_id, origin="the node upscale")


def test_a_submodule_whose_repository_is_gone_is_named_with_its_node(tmp_path: Path) -> None:
    head = with_submodule(tmp_path / "node", (tmp_path / "gone").as_uri(), "b" * 40)
    with pytest.raises(SourceNotWhole, match=r"the node upscale is not complete: its submodule ext/lib .*gone"):
        probe(tmp_path / "node", head, tmp_path / "cache")


def test_a_submodule_whose_commit_is_gone_is_named(tmp_path: Path) -> None:
    commit(tmp_path / "lib", {"a.py": ""})
    head = with_submodule(tmp_path / "node", (tmp_path / "lib").as_uri(), "b" * 40)
    with pytest.raises(SourceNotWhole, match=r"ext/lib .*bbbbbbbbbbbb"):
        probe(tmp_path / "node", head, tmp_path / "cache")


def test_a_submodule_of_a_submodule_is_probed_too(tmp_path: Path) -> None:
    inner = with_submodule(tmp_path / "lib", (tmp_path / "gone").as_uri(), "b" * 40)
    head = with_submodule(tmp_path / "node", (tmp_path / "lib").as_uri(), inner)
    with pytest.raises(SourceNotWhole, match="gone"):
        probe(tmp_path / "node", head, tmp_path / "cache")


def test_a_pointer_of_lfs_in_a_submodule_is_found(tmp_path: Path) -> None:
    inner = commit(tmp_path / "lib", {"weights.bin": POINTER})
    head = with_submodule(tmp_path / "node", (tmp_path / "lib").as_uri(), inner)
    with pytest.raises(SourceNotWhole, match=r"submodule ext/lib .*weights\.bin .* Git LFS pointer"):
        probe(tmp_path / "node", head, tmp_path / "cache")


def test_submodules_that_are_there_are_fetched_as_realize_needs_them(tmp_path: Path) -> None:
    inner = commit(tmp_path / "lib", {"a.py": ""})
    head = with_submodule(tmp_path / "node", (tmp_path / "lib").as_uri(), inner)
    probe(tmp_path / "node", head, tmp_path / "cache")
    assert (tmp_path / "cache" / f"{inner}.git").is_dir()
