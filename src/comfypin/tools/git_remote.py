"""What git knows without fetching: the refs of a remote repository, and the state of a checkout on this machine."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from comfypin.addresses import hide_credentials
from comfypin.temp_folders import temp_folder
from comfypin.tools.errors import CheckoutUnreadable, RefAmbiguous, RefMissing, RepoUnreachable
from comfypin.tools.git import FULL_COMMIT, git, setting_variables

LS_REMOTE_TIMEOUT_S = 120.0
_BRANCH, _TAG = "refs/heads/", "refs/tags/"
_FILTER = r"^filter\..*\.(clean|smudge|process)$"
_SILENT = {"clean": "", "smudge": "", "process": "", "required": "false"}
_OWN = frozenset({"local", "worktree"})
_LFS_COMMANDS = frozenset({"git-lfs clean -- %f", "git-lfs smudge -- %f", "git-lfs filter-process"})
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")


def list_refs(repo: str) -> dict[str, str]:
    """The refs of a repository and the commits they name; an annotated tag counts as the commit it stands for.

    Raises `RepoUnreachable`.
    """
    listed = git(["ls-remote", "--", repo], cwd=Path.cwd(), timeout_s=LS_REMOTE_TIMEOUT_S)
    if listed.exit_code:
        raise RepoUnreachable(
            repo=hide_credentials(repo), reason=listed.complaint.replace(repo, hide_credentials(repo))
        )
    refs: dict[str, str] = {}
    for line in listed.text.splitlines():
        oid, _, name = line.partition("\t")
        if FULL_COMMIT.fullmatch(oid):
            refs[name.removesuffix("^{}")] = oid  # the peeled line comes after the tag's own
    return refs


def resolve_ref(repo: str, ref: str | None) -> str:
    """The commit that a branch, a tag, a full ref or a commit's first digits name; None is the default branch.

    Raises `RepoUnreachable`, `RefMissing` (with names that are near) or `RefAmbiguous`.
    """
    if ref is not None and FULL_COMMIT.fullmatch(ref.lower()):
        return ref.lower()
    refs = list_refs(repo)
    if ref is None:
        if "HEAD" not in refs:
            raise RefMissing(repo=hide_credentials(repo), ref="HEAD", near=())
        return refs["HEAD"]
    names = [name for name in (ref, _TAG + ref, _BRANCH + ref) if name in refs]
    if len({refs[name] for name in names}) > 1:
        raise RefAmbiguous(repo=hide_credentials(repo), ref=ref, names=names)
    if not names and _SHORT_COMMIT.fullmatch(ref.lower()):
        return _whole_commit(repo, ref.lower())
    if not names:
        raise RefMissing(repo=hide_credentials(repo), ref=ref, near=_near(ref, refs))
    return refs[names[0]]


def _whole_commit(repo: str, digits: str) -> str:
    """The one commit on a branch or a tag that begins so. A remote cannot be asked for it: its history is fetched,
    without trees and files where the server can leave them out.
    """
    with temp_folder("commits") as scratch:
        folder = Path(scratch)
        git(["init", "--quiet", "--bare", "."], cwd=folder)
        wanted = [f"+{kind}*:{kind}*" for kind in (_BRANCH, _TAG)]
        fetched = git(["fetch", "--quiet", "--filter=tree:0", "--no-tags", "--", repo, *wanted], cwd=folder)
        if fetched.exit_code:
            raise RepoUnreachable(
                repo=hide_credentials(repo), reason=fetched.complaint.replace(repo, hide_credentials(repo))
            )
        listed = git(["rev-list", "--all"], cwd=folder).text.split()
    found = [commit for commit in listed if commit.startswith(digits)]
    if len(found) > 1:
        raise RefAmbiguous(repo=hide_credentials(repo), ref=digits, names=found[:3])
    if not found:
        raise RefMissing(repo=hide_credentials(repo), ref=digits, near=())
    return found[0]


def _near(ref: str, refs: Mapping[str, str]) -> tuple[str, ...]:
    import difflib

    short = [name.removeprefix(_TAG).removeprefix(_BRANCH) for name in refs]
    return tuple(difflib.get_close_matches(ref, short, n=3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A working tree: where it came from, the commit it is at, the branch, and its changes as a diff."""

    folder: Path
    remote: str | None
    commit: str
    branch: str | None
    changed: tuple[str, ...]


def read_checkout(folder: Path, apart: Collection[str] = ()) -> Checkout | None:
    """The state of a checkout, None where the folder is no git repository of its own. Raises `CheckoutUnreadable`.

    What git does not track counts as no change in `apart`, names in the checkout's root, nor where it is byte-code.
    """
    if not (folder / ".git").exists():
        return None
    head = _in(folder, "rev-parse", "--verify", "HEAD^{commit}")
    branch = git(["symbolic-ref", "--short", "--quiet", "HEAD"], cwd=folder)
    # Git would look into a submodule by its own settings, which may name programs; we look ourselves.
    looking = ("--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=dirty")
    status = _in(folder, "status", *looking)
    changed = [entry[3:] for entry in status.split("\0") if entry and not _is_apart(entry, apart)]
    return Checkout(
        folder=folder,
        remote=_remote(folder, branch.text.strip()),
        commit=head.strip(),
        branch=branch.text.strip() or None,
        changed=(*changed, *(name for name in _changed_submodules(folder) if name not in changed)),
    )


def _changed_submodules(folder: Path) -> Iterator[str]:
    """The submodules of a checkout whose files are not those of their commits."""
    for entry in _in(folder, "ls-files", "--stage", "-z").split("\0"):
        head, _, name = entry.partition("\t")
        if head.startswith("160000"):
            inner = read_checkout(folder / name)
            if inner is not None and inner.changed:
                yield name


def _is_apart(entry: str, apart: Collection[str]) -> bool:
    parts = entry[3:].split("/")
    return entry.startswith("??") and (parts[0] in apart or "__pycache__" in parts)


def tracked_files(folder: Path) -> frozenset[str]:
    """The paths that git tracks in a checkout."""
    return frozenset(name for name in _in(folder, "ls-files", "-z").split("\0") if name)


def diff_of(checkout: Checkout) -> str:
    """The changes of a checkout, untracked files too, as a diff that `git apply` takes.

    The checkout is only read: the index and the objects that git needs for it lie in a temporary folder.
    """
    folder = checkout.folder
    objects = Path(_in(folder, "rev-parse", "--git-path", "objects").strip())
    with temp_folder("diff") as scratch:
        (Path(scratch) / "objects").mkdir()
        places = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": f"{scratch}/objects",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.fspath((folder / objects).resolve()),
            "GIT_LITERAL_PATHSPECS": "1",
            **_without_filters(folder),
        }
        # `git add` would look into a repository within this one, by that one's settings.
        within = [name for name in checkout.changed if (folder / name / ".git").exists()]
        heads = [(name.rstrip("/"), _in(folder / name, "rev-parse", "--verify", "HEAD").strip()) for name in within]
        files = set(checkout.changed) - set(within)
        names = Path(scratch) / "changed"
        names.write_bytes("\0".join(files).encode(errors="surrogateescape"))
        adding = ["add", "--all", "--force", f"--pathspec-from-file={names}", "--pathspec-file-nul"]
        commands = [["read-tree", "HEAD"], *([adding] if files else [])]
        commands += [["update-index", "--add", "--cacheinfo", f"160000,{head},{name}"] for name, head in heads]
        for command in commands:
            done = git(command, cwd=folder, extra=places)
            if done.exit_code:
                raise CheckoutUnreadable(folder=str(folder), reason=done.complaint)
        diff = ["diff", "--cached", "--binary", "--full-index", "--no-ext-diff", "--no-textconv", "HEAD"]
        try:
            return git(diff, cwd=folder, extra=places).stdout.decode()
        except UnicodeDecodeError:
            # A text in another encoding cannot lie in a lock as it is; as binary changes, which are ASCII, it can.
            attributes = Path(scratch) / "attributes"
            attributes.write_text("* -text -diff\n")
            return git(["-c", f"core.attributesFile={attributes}", *diff], cwd=folder, extra=places).text


def _remote(folder: Path, branch: str) -> str | None:
    """The address of the branch's own remote, else of `origin`, else of the only one."""
    names = git(["remote"], cwd=folder).text.split()
    tracked = git(["config", f"branch.{branch}.remote"], cwd=folder).text.strip() if branch else ""
    name = tracked if tracked in names else "origin" if "origin" in names else names[0] if len(names) == 1 else None
    return None if name is None else git(["remote", "get-url", name], cwd=folder).text.strip() or None


def _without_filters(folder: Path) -> dict[str, str]:
    """The variables that have git run no filter that the checkout's own settings name: they are programs of strangers.

    Those of the user's settings run, and so do Git LFS's own, which `git lfs install --local` writes there.
    """
    listed = git(["config", "--show-scope", "-z", "--get-regexp", _FILTER], cwd=folder)
    fields = listed.stdout.decode(errors="surrogateescape").split("\0")
    values = [(key.partition("\n"), scope) for scope, key in zip(fields[::2], fields[1::2], strict=False)]
    named = sorted(
        {key.rpartition(".")[0] for (key, _, value), scope in values if scope in _OWN and value not in _LFS_COMMANDS}
    )
    silent = [(f"{name}.{field}", value) for name in named for field, value in _SILENT.items()]
    return setting_variables(silent)


def _in(folder: Path, *arguments: str) -> str:
    done = git(list(arguments), cwd=folder, extra=_without_filters(folder))
    if done.exit_code:
        raise CheckoutUnreadable(folder=str(folder), reason=done.complaint)
    return done.stdout.decode(errors="surrogateescape")
