"""Asks git without fetching: the refs of a remote repository, and the state of a checkout on this machine."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from comfypin.addresses import hide_credentials
from comfypin.temp_folders import temp_folder
from comfypin.tools.errors import CheckoutUnreadable, RefAmbiguous, RefMissing, RepoUnreachable
from comfypin.tools.git import FULL_COMMIT
from comfypin.tools.git_process import run_git

# A list of refs is small; a server that needs longer than this is not answering.
LS_REMOTE_TIMEOUT_S = 120.0
_BRANCH_PREFIX, _TAG_PREFIX = "refs/heads/", "refs/tags/"
# git itself abbreviates to seven digits at least.
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")


def list_refs(repo: str) -> dict[str, str]:
    """Return the refs of a repository and their commits; an annotated tag counts as the commit it stands for.

    Raises `RepoUnreachable`.
    """
    listed = run_git(["ls-remote", "--", repo], cwd=Path.cwd(), timeout_s=LS_REMOTE_TIMEOUT_S)
    if listed.exit_code:
        raise RepoUnreachable(
            repo=hide_credentials(repo), reason=listed.error_summary.replace(repo, hide_credentials(repo))
        )
    refs: dict[str, str] = {}
    for line in listed.stdout_text.splitlines():
        oid, _, name = line.partition("\t")
        if FULL_COMMIT.fullmatch(oid):
            refs[name.removesuffix("^{}")] = oid  # the peeled line comes after the tag's own
    return refs


def resolve_ref(repo: str, ref: str | None) -> str:
    """Return the commit named by a branch, a tag, a full ref or a commit's first digits; None is the default branch.

    Raises `RepoUnreachable`, `RefMissing` (with similar names) or `RefAmbiguous`.
    """
    if ref is not None and FULL_COMMIT.fullmatch(ref.lower()):
        return ref.lower()
    refs = list_refs(repo)
    if ref is None:
        if "HEAD" not in refs:
            raise RefMissing(repo=hide_credentials(repo), ref="HEAD", near=())
        return refs["HEAD"]
    # Tags before branches, as `git rev-parse` resolves them.
    names = [name for name in (ref, _TAG_PREFIX + ref, _BRANCH_PREFIX + ref) if name in refs]
    if len({refs[name] for name in names}) > 1:
        raise RefAmbiguous(repo=hide_credentials(repo), ref=ref, names=names)
    if not names and _SHORT_COMMIT.fullmatch(ref.lower()):
        return _complete_commit(repo, ref.lower())
    if not names:
        raise RefMissing(repo=hide_credentials(repo), ref=ref, near=_similar_refs(ref, refs))
    return refs[names[0]]


def _complete_commit(repo: str, digits: str) -> str:
    """Return the one commit on a branch or a tag that begins with these digits.

    A remote cannot be asked for it, so its history is fetched, without trees and files if the server can omit them.
    """
    with temp_folder("commits") as scratch:
        folder = Path(scratch)
        run_git(["init", "--quiet", "--bare", "."], cwd=folder)
        wanted = [f"+{kind}*:{kind}*" for kind in (_BRANCH_PREFIX, _TAG_PREFIX)]
        fetched = run_git(["fetch", "--quiet", "--filter=tree:0", "--no-tags", "--", repo, *wanted], cwd=folder)
        if fetched.exit_code:
            raise RepoUnreachable(
                repo=hide_credentials(repo), reason=fetched.error_summary.replace(repo, hide_credentials(repo))
            )
        listed = run_git(["rev-list", "--all"], cwd=folder).stdout_text.split()
    found = [commit for commit in listed if commit.startswith(digits)]
    if len(found) > 1:
        raise RefAmbiguous(repo=hide_credentials(repo), ref=digits, names=found[:3])
    if not found:
        raise RefMissing(repo=hide_credentials(repo), ref=digits, near=())
    return found[0]


def _similar_refs(ref: str, refs: Mapping[str, str]) -> tuple[str, ...]:
    import difflib

    short = [name.removeprefix(_TAG_PREFIX).removeprefix(_BRANCH_PREFIX) for name in refs]
    return tuple(difflib.get_close_matches(ref, short, n=3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """Describes a working tree: its remote, its commit, its branch, and its changed paths."""

    folder: Path
    remote: str | None
    commit: str
    branch: str | None
    changed: tuple[str, ...]


def read_checkout(folder: Path, apart: Collection[str] = ()) -> Checkout | None:
    """Return the state of a checkout, None if the folder is not a git repository itself. Raises `CheckoutUnreadable`.

    Untracked files do not count as changes if they are byte-code, or below a name in `apart` in the root.
    """
    # Without a `.git` here, git would describe a checkout further up.
    if not (folder / ".git").exists():
        return None
    head = _run_in_checkout(folder, "rev-parse", "--verify", "HEAD^{commit}")
    # Fails on a detached HEAD, which is no error: then there is no branch.
    branch = run_git(["symbolic-ref", "--short", "--quiet", "HEAD"], cwd=folder)
    status = _run_in_checkout(folder, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
    return Checkout(
        folder=folder,
        remote=_remote_address(folder, branch.stdout_text.strip()),
        commit=head.strip(),
        branch=branch.stdout_text.strip() or None,
        changed=tuple(entry[3:] for entry in status.split("\0") if entry and not _is_apart(entry, apart)),
    )


def _is_apart(entry: str, apart: Collection[str]) -> bool:
    parts = entry[3:].split("/")
    return entry.startswith("??") and (parts[0] in apart or "__pycache__" in parts)


def list_tracked_files(folder: Path) -> frozenset[str]:
    """Return the paths that git tracks in a checkout."""
    return frozenset(name for name in _run_in_checkout(folder, "ls-files", "-z").split("\0") if name)


def diff_checkout(checkout: Checkout) -> str:
    """Return the changes of a checkout, with untracked files, as a diff that `git apply` takes.

    The checkout is only read: the index and the objects that git needs are made in a temporary folder.
    """
    folder = checkout.folder
    # `--git-path` also finds the objects of a linked worktree.
    objects = Path(_run_in_checkout(folder, "rev-parse", "--git-path", "objects").strip())
    with temp_folder("diff") as scratch:
        (Path(scratch) / "objects").mkdir()
        places = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": f"{scratch}/objects",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.fspath((folder / objects).resolve()),
            # Names may contain `*` or `[`, which git would expand.
            "GIT_LITERAL_PATHSPECS": "1",
        }
        names = Path(scratch) / "changed"
        # Through a file: the names of a large change exceed the limit of a command line.
        names.write_bytes("\0".join(checkout.changed).encode(errors="surrogateescape"))
        named = [f"--pathspec-from-file={names}", "--pathspec-file-nul"]
        for command in (["read-tree", "HEAD"], ["add", "--all", "--force", *named]):
            done = run_git(command, cwd=folder, extra_variables=places)
            if done.exit_code:
                raise CheckoutUnreadable(folder=str(folder), reason=done.error_summary)
        diff = ["diff", "--cached", "--binary", "--full-index", "--no-ext-diff", "HEAD"]
        try:
            return run_git(diff, cwd=folder, extra_variables=places).stdout.decode()
        except UnicodeDecodeError:
            # A text in another encoding cannot lie in a lock as it is; as binary changes, which are ASCII, it can.
            attributes = Path(scratch) / "attributes"
            attributes.write_text("* -text -diff\n")
            return run_git(
                ["-c", f"core.attributesFile={attributes}", *diff], cwd=folder, extra_variables=places
            ).stdout_text


def _remote_address(folder: Path, branch: str) -> str | None:
    """Return the address of the branch's own remote, else of `origin`, else of the only one."""
    names = run_git(["remote"], cwd=folder).stdout_text.split()
    tracked = run_git(["config", f"branch.{branch}.remote"], cwd=folder).stdout_text.strip() if branch else ""
    name = tracked if tracked in names else "origin" if "origin" in names else names[0] if len(names) == 1 else None
    return None if name is None else run_git(["remote", "get-url", name], cwd=folder).stdout_text.strip() or None


def _run_in_checkout(folder: Path, *arguments: str) -> str:
    done = run_git(list(arguments), cwd=folder)
    if done.exit_code:
        raise CheckoutUnreadable(folder=str(folder), reason=done.error_summary)
    return done.stdout.decode(errors="surrogateescape")
