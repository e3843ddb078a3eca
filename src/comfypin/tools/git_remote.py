"""Asks git for the refs of a remote repository, and for the state of a checkout on this machine."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from comfypin.addresses import hide_credentials
from comfypin.temp_folders import temp_folder
from comfypin.tools.errors import CheckoutUnreadable, RefAmbiguous, RefMissing, RepoUnreachable
from comfypin.tools.git import FULL_COMMIT
from comfypin.tools.git_process import run_git, setting_variables

# A list of refs is small; a server that needs longer than this is not answering.
LS_REMOTE_TIMEOUT_S = 120.0
_BRANCH_PREFIX, _TAG_PREFIX = "refs/heads/", "refs/tags/"
_FILTER_SETTINGS = r"^filter\..*\.(clean|smudge|process)$"
_NO_FILTER = {"clean": "", "smudge": "", "process": "", "required": "false"}
# The scopes of settings that come with a checkout, as `git config --show-scope` names them.
_CHECKOUT_SCOPES = frozenset({"local", "worktree"})
_LFS_COMMANDS = frozenset({"git-lfs clean -- %f", "git-lfs smudge -- %f", "git-lfs filter-process"})
# git itself abbreviates to seven digits at least.
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")


def list_refs(repository: str) -> dict[str, str]:
    """Return the refs of a repository and their commits; an annotated tag counts as the commit it points to.

    Raises `RepoUnreachable`.
    """
    finished = run_git(["ls-remote", "--", repository], cwd=Path.cwd(), timeout_s=LS_REMOTE_TIMEOUT_S)
    if finished.exit_code:
        raise RepoUnreachable(
            repo=hide_credentials(repository),
            reason=finished.error_summary.replace(repository, hide_credentials(repository)),
        )
    refs_by_name: dict[str, str] = {}
    for ref_line in finished.stdout_text.splitlines():
        object_id, _, ref_name = ref_line.partition("\t")
        if FULL_COMMIT.fullmatch(object_id):
            refs_by_name[ref_name.removesuffix("^{}")] = object_id  # the peeled line comes after the tag's own
    return refs_by_name


def resolve_ref(repository: str, ref_name: str | None) -> str:
    """Return the commit named by a branch, a tag, a full ref or a commit's first digits; None is the default branch.

    Raises `RepoUnreachable`, `RefMissing` (with similar names) or `RefAmbiguous`.
    """
    if ref_name is not None and FULL_COMMIT.fullmatch(ref_name.lower()):
        return ref_name.lower()
    refs_by_name = list_refs(repository)
    if ref_name is None:
        if "HEAD" not in refs_by_name:
            raise RefMissing(repo=hide_credentials(repository), ref="HEAD", near=())
        return refs_by_name["HEAD"]
    # Tags before branches, as `git rev-parse` resolves them.
    matching_names = [
        candidate_name
        for candidate_name in (ref_name, _TAG_PREFIX + ref_name, _BRANCH_PREFIX + ref_name)
        if candidate_name in refs_by_name
    ]
    if len({refs_by_name[candidate_name] for candidate_name in matching_names}) > 1:
        raise RefAmbiguous(repo=hide_credentials(repository), ref=ref_name, names=matching_names)
    if not matching_names and _SHORT_COMMIT.fullmatch(ref_name.lower()):
        return _complete_commit(repository, ref_name.lower())
    if not matching_names:
        raise RefMissing(repo=hide_credentials(repository), ref=ref_name, near=_similar_refs(ref_name, refs_by_name))
    return refs_by_name[matching_names[0]]


def _complete_commit(repository: str, commit_digits: str) -> str:
    """Return the one commit on a branch or a tag that begins with these digits.

    A remote cannot be asked for it, so its history is fetched.
    """
    with temp_folder("commits") as temporary_folder:
        repository_folder = Path(temporary_folder)
        _fetch_history(repository, repository_folder)
        commit_ids = run_git(["rev-list", "--all"], cwd=repository_folder).stdout_text.split()
    matching_commits = [commit_id for commit_id in commit_ids if commit_id.startswith(commit_digits)]
    if len(matching_commits) > 1:
        raise RefAmbiguous(repo=hide_credentials(repository), ref=commit_digits, names=matching_commits[:3])
    if not matching_commits:
        raise RefMissing(repo=hide_credentials(repository), ref=commit_digits, near=())
    return matching_commits[0]


def list_commits_between(repository: str, before: str, after: str) -> tuple[str, ...]:
    """Return the commits since `before` up to `after`, the oldest first, along first parents as `git bisect` may walk.

    Returns () if `after` does not descend from `before`, or if no branch or tag leads to it. Raises `RepoUnreachable`.
    """
    with temp_folder("commits") as temporary_folder:
        repository_folder = Path(temporary_folder)
        _fetch_history(repository, repository_folder)
        descends = run_git(["merge-base", "--is-ancestor", before, after], cwd=repository_folder)
        if descends.exit_code:
            return ()
        walk = ["rev-list", "--reverse", "--first-parent", f"{before}..{after}"]
        return tuple(run_git(walk, cwd=repository_folder).stdout_text.split())


def _fetch_history(repository: str, folder: Path) -> None:
    """Fetch the history of all branches and tags, without trees and files if the server can omit them."""
    run_git(["init", "--quiet", "--bare", "."], cwd=folder)
    refspecs = [f"+{ref_kind}*:{ref_kind}*" for ref_kind in (_BRANCH_PREFIX, _TAG_PREFIX)]
    finished = run_git(["fetch", "--quiet", "--filter=tree:0", "--no-tags", "--", repository, *refspecs], cwd=folder)
    if finished.exit_code:
        raise RepoUnreachable(
            repo=hide_credentials(repository),
            reason=finished.error_summary.replace(repository, hide_credentials(repository)),
        )


def _similar_refs(ref_name: str, refs_by_name: Mapping[str, str]) -> tuple[str, ...]:
    import difflib

    short_names = [known_name.removeprefix(_TAG_PREFIX).removeprefix(_BRANCH_PREFIX) for known_name in refs_by_name]
    return tuple(difflib.get_close_matches(ref_name, short_names, n=3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """Describes a working tree: its remote, its commit, its branch, and its changed paths."""

    folder: Path
    remote: str | None
    commit: str
    branch: str | None
    changed: tuple[str, ...]


def read_checkout(checkout_folder: Path, ignored_names: Collection[str] = ()) -> Checkout | None:
    """Return the state of a checkout, None if the folder is not a git repository itself. Raises `CheckoutUnreadable`.

    Untracked files do not count as changes if they are byte-code, or in an entry of the root named in `ignored_names`.
    """
    # Without a `.git` here, git would describe a checkout further up.
    if not (checkout_folder / ".git").exists():
        return None
    head_commit = _run_in_checkout(checkout_folder, "rev-parse", "--verify", "HEAD^{commit}")
    # Fails on a detached HEAD, which is not an error: there is just no branch.
    branch_result = run_git(["symbolic-ref", "--short", "--quiet", "HEAD"], cwd=checkout_folder)
    # Git would obey a submodule's own settings, which may name programs to run; so we look into it ourselves.
    status_options = ("--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=dirty")
    status_text = _run_in_checkout(checkout_folder, "status", *status_options)
    changed_paths = [
        status_entry[3:]
        for status_entry in status_text.split("\0")
        if status_entry and not _is_apart(status_entry, ignored_names)
    ]
    changed_paths += [path for path in _changed_submodules(checkout_folder) if path not in changed_paths]
    return Checkout(
        folder=checkout_folder,
        remote=_remote_address(checkout_folder, branch_result.stdout_text.strip()),
        commit=head_commit.strip(),
        branch=branch_result.stdout_text.strip() or None,
        changed=tuple(changed_paths),
    )


def _changed_submodules(checkout_folder: Path) -> Iterator[str]:
    """Yield the submodules of a checkout whose files are not those of their commits."""
    for index_entry in _run_in_checkout(checkout_folder, "ls-files", "--stage", "-z").split("\0"):
        entry_head, _, submodule_path = index_entry.partition("\t")
        if entry_head.startswith("160000"):
            submodule_checkout = read_checkout(checkout_folder / submodule_path)
            if submodule_checkout is not None and submodule_checkout.changed:
                yield submodule_path


def _is_apart(status_entry: str, ignored_names: Collection[str]) -> bool:
    path_parts = status_entry[3:].split("/")
    return status_entry.startswith("??") and (path_parts[0] in ignored_names or "__pycache__" in path_parts)


def list_tracked_files(checkout_folder: Path) -> frozenset[str]:
    """Return the paths that git tracks in a checkout."""
    return frozenset(
        tracked_name for tracked_name in _run_in_checkout(checkout_folder, "ls-files", "-z").split("\0") if tracked_name
    )


def diff_checkout(checkout: Checkout) -> str:
    """Return the changes of a checkout, with untracked files, as a diff that `git apply` takes.

    The checkout is only read: the index and the objects that git needs are made in a temporary folder.
    """
    checkout_folder = checkout.folder
    # `--git-path` also finds the objects of a linked worktree.
    objects_folder = Path(_run_in_checkout(checkout_folder, "rev-parse", "--git-path", "objects").strip())
    with temp_folder("diff") as temporary_folder:
        (Path(temporary_folder) / "objects").mkdir()
        git_variables = {
            "GIT_INDEX_FILE": f"{temporary_folder}/index",
            "GIT_OBJECT_DIRECTORY": f"{temporary_folder}/objects",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.fspath((checkout_folder / objects_folder).resolve()),
            # Names may contain `*` or `[`, which git would expand.
            "GIT_LITERAL_PATHSPECS": "1",
            **_without_filters(checkout_folder),
        }
        # `git add` would look into a nested repository, and obey its settings.
        inner_paths = [path for path in checkout.changed if (checkout_folder / path / ".git").exists()]
        file_paths = set(checkout.changed) - set(inner_paths)
        names_path = Path(temporary_folder) / "changed"
        # Through a file: the names of a large change exceed the limit of a command line.
        names_path.write_bytes("\0".join(file_paths).encode(errors="surrogateescape"))
        git_commands = [["read-tree", "HEAD"]]
        if file_paths:
            pathspec_options = [f"--pathspec-from-file={names_path}", "--pathspec-file-nul"]
            git_commands.append(["add", "--all", "--force", *pathspec_options])
        for path in inner_paths:
            inner_commit = _run_in_checkout(checkout_folder / path, "rev-parse", "--verify", "HEAD").strip()
            cache_info = f"160000,{inner_commit},{path.rstrip('/')}"
            git_commands.append(["update-index", "--add", "--cacheinfo", cache_info])
        for git_command in git_commands:
            finished = run_git(git_command, cwd=checkout_folder, extra_variables=git_variables)
            if finished.exit_code:
                raise CheckoutUnreadable(folder=str(checkout_folder), reason=finished.error_summary)
        diff_command = ["diff", "--cached", "--binary", "--full-index", "--no-ext-diff", "--no-textconv", "HEAD"]
        try:
            return run_git(diff_command, cwd=checkout_folder, extra_variables=git_variables).stdout.decode()
        except UnicodeDecodeError:
            # A lock holds only UTF-8; for text in another encoding, a binary diff will do, because it is ASCII.
            attributes_path = Path(temporary_folder) / "attributes"
            attributes_path.write_text("* -text -diff\n")
            return run_git(
                ["-c", f"core.attributesFile={attributes_path}", *diff_command],
                cwd=checkout_folder,
                extra_variables=git_variables,
            ).stdout_text


def _remote_address(checkout_folder: Path, branch_name: str) -> str | None:
    """Return the address of the branch's own remote, else of `origin`, else of the only one."""
    remote_names = run_git(["remote"], cwd=checkout_folder).stdout_text.split()
    tracked_remote = (
        run_git(["config", f"branch.{branch_name}.remote"], cwd=checkout_folder).stdout_text.strip()
        if branch_name
        else ""
    )
    remote_name = (
        tracked_remote
        if tracked_remote in remote_names
        else "origin"
        if "origin" in remote_names
        else remote_names[0]
        if len(remote_names) == 1
        else None
    )
    if remote_name is None:
        return None
    # What this user's `insteadOf` makes of it (a mirror, a token, ssh) is no address for others.
    written = run_git(["config", "--get-all", f"remote.{remote_name}.url"], cwd=checkout_folder).stdout_text
    first_address = written.partition("\n")[0].strip()
    if "://" in first_address:
        return first_address
    return run_git(["remote", "get-url", remote_name], cwd=checkout_folder).stdout_text.strip() or None


def _without_filters(checkout_folder: Path) -> dict[str, str]:
    """Return variables that keep git from running the filters in a checkout's settings: they are strangers' programs.

    Filters of the user's settings run, and so do Git LFS's own, which `git lfs install --local` writes there.
    """
    finished = run_git(["config", "--show-scope", "-z", "--get-regexp", _FILTER_SETTINGS], cwd=checkout_folder)
    # Scopes alternate with settings, of which each is its key, a newline and its value.
    listed = finished.stdout.decode(errors="surrogateescape").split("\0")
    filter_names = set()
    for scope, setting in zip(listed[::2], listed[1::2], strict=False):
        setting_key, _, command = setting.partition("\n")
        if scope in _CHECKOUT_SCOPES and command not in _LFS_COMMANDS:
            filter_names.add(setting_key.rpartition(".")[0])
    return setting_variables(
        [
            (f"{filter_name}.{setting_name}", setting_value)
            for filter_name in sorted(filter_names)
            for setting_name, setting_value in _NO_FILTER.items()
        ]
    )


def _run_in_checkout(checkout_folder: Path, *arguments: str) -> str:
    finished = run_git(list(arguments), cwd=checkout_folder, extra_variables=_without_filters(checkout_folder))
    if finished.exit_code:
        raise CheckoutUnreadable(folder=str(checkout_folder), reason=finished.error_summary)
    return finished.stdout.decode(errors="surrogateescape")
