"""Refs of remotes and states of checkouts, with real git."""

from pathlib import Path

import pytest

from comfypin.tools.errors import RefAmbiguous, RefMissing, RepoUnreachable
from comfypin.tools.git import CommitSource, apply_patch, list_submodules, write_bundle, write_commit
from comfypin.tools.git_remote import (
    diff_checkout,
    list_commits_between,
    list_refs,
    list_tracked_files,
    read_checkout,
    resolve_ref,
)
from tests.support.repositories import commit, git


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    commit(folder, {"a.txt": "1\n"}, tag="v1")
    commit(folder, {"a.txt": "2\n"}, tag="v2")
    return folder


def test_a_branch_a_tag_and_a_full_ref_are_commits(origin: Path) -> None:
    url = origin.as_uri()
    head = git(origin, "rev-parse", "main")
    assert resolve_ref(url, "main") == head
    assert resolve_ref(url, None) == head
    assert resolve_ref(url, "refs/heads/main") == head
    assert resolve_ref(url, "v1") == git(origin, "rev-parse", "v1^{commit}")


def test_a_commit_is_its_own_name_and_asks_nobody() -> None:
    assert resolve_ref("https://nowhere.invalid/x", "AB" * 20) == "ab" * 20


def test_an_unknown_ref_names_near_ones(origin: Path) -> None:
    with pytest.raises(RefMissing, match="v1"):
        resolve_ref(origin.as_uri(), "v11")


def test_the_first_digits_of_a_commit_name_it_wherever_it_is_in_the_history(origin: Path) -> None:
    older = git(origin, "rev-parse", "v1^{commit}")
    git(origin, "tag", "--delete", "v1")
    assert resolve_ref(origin.as_uri(), older[:8]) == older
    assert resolve_ref(origin.as_uri(), older[:12].upper()) == older


def test_digits_that_no_commit_begins_with_are_refused(origin: Path) -> None:
    with pytest.raises(RefMissing, match="no branch, tag or commit '00000000'"):
        resolve_ref(origin.as_uri(), "00000000")


def test_the_commits_between_two_are_listed_the_oldest_first(tmp_path: Path) -> None:
    one, two, three = (commit(tmp_path / "walk", {"a.txt": text}) for text in ("1", "2", "3"))
    assert list_commits_between(str(tmp_path / "walk"), one, three) == (two, three)
    assert list_commits_between(str(tmp_path / "walk"), three, one) == (), "it does not descend from it"
    assert list_commits_between(str(tmp_path / "walk"), one, "0" * 40) == (), "no branch leads to it"


def test_a_branch_and_a_tag_of_one_name_are_ambiguous(origin: Path) -> None:
    git(origin, "branch", "both", "v1")
    git(origin, "tag", "both", "v2")
    with pytest.raises(RefAmbiguous, match="refs/tags/both or refs/heads/both"):
        resolve_ref(origin.as_uri(), "both")


def test_an_unreachable_repository_is_said_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(RepoUnreachable) as caught:
        list_refs("https://user:hunter2@nowhere.invalid/x")
    assert "hunter2" not in caught.value.message


def test_a_folder_without_git_has_no_checkout(tmp_path: Path) -> None:
    assert read_checkout(tmp_path) is None


def test_a_remote_is_the_address_that_others_can_use(origin: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(origin), "copy")
    copy = tmp_path / "copy"
    git(copy, "config", "url.https://sesame@example.com/.insteadOf", "https://example.com/")
    git(copy, "config", "url.https://example.org/.insteadOf", "short:")
    for written, address in (
        ("https://example.com/o/r", "https://example.com/o/r"),
        ("short:o/r", "https://example.org/o/r"),
    ):
        git(copy, "remote", "set-url", "origin", written)
        checkout = read_checkout(copy)
        assert checkout is not None
        assert checkout.remote == address


def test_a_checkout_knows_its_remote_branch_commit_and_changes(origin: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(origin), "copy")
    copy = tmp_path / "copy"
    (copy / "a.txt").write_text("changed\n")
    (copy / "new \u043d.txt").write_text("new\n")
    checkout = read_checkout(copy)
    assert checkout is not None
    assert (checkout.remote, checkout.branch) == (str(origin), "main")
    assert checkout.commit == git(origin, "rev-parse", "main")
    assert set(checkout.changed) == {"a.txt", "new \u043d.txt"}
    assert list_tracked_files(copy) == {"a.txt"}


def test_a_diff_brings_all_changes_elsewhere_and_changes_nothing_here(origin: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(origin), "copy")
    copy = tmp_path / "copy"
    (copy / "a.txt").write_text("changed\n")
    (copy / "bytes.bin").write_bytes(bytes(range(256)))
    (copy / "latin.txt").write_bytes("Größe\r\n".encode("latin-1"))
    before = git(copy, "status", "--porcelain"), git(copy, "count-objects")
    checkout = read_checkout(copy)
    assert checkout is not None
    patch = diff_checkout(checkout)
    assert (git(copy, "status", "--porcelain"), git(copy, "count-objects")) == before
    elsewhere = tmp_path / "elsewhere"
    write_commit(CommitSource(cache=tmp_path / "cache"), origin.as_uri(), git(origin, "rev-parse", "main"), elsewhere)
    apply_patch(elsewhere, patch, what="a patch")
    assert (elsewhere / "a.txt").read_text() == "changed\n"
    assert (elsewhere / "bytes.bin").read_bytes() == bytes(range(256))
    assert (elsewhere / "latin.txt").read_bytes() == "Größe\r\n".encode("latin-1")


def test_a_bundle_brings_a_commit_without_its_repository(origin: Path, tmp_path: Path) -> None:
    head = git(origin, "rev-parse", "main")
    kept = CommitSource(cache=tmp_path / "cache").obtain_repository(origin.as_uri(), head)
    write_bundle(kept, origin.as_uri(), head, tmp_path / "git" / f"{head}.bundle")
    offline = CommitSource(cache=tmp_path / "other", bundles=tmp_path / "git", offline=True)
    write_commit(offline, "https://gone.invalid/x", head, tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_text() == "2\n"
    assert [path.name for path in (tmp_path / "git").iterdir()] == [f"{head}.bundle"]


def test_submodules_are_named_with_their_commits(origin: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    commit(outer, {"b.txt": "b"})
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", origin.as_uri(), "inner")
    head = commit(outer, {})
    kept = CommitSource(cache=tmp_path / "cache").obtain_repository(outer.as_uri(), head)
    assert list_submodules(kept, outer.as_uri(), head) == ((origin.as_uri(), git(origin, "rev-parse", "main")),)
