"""Uses git to get one commit of one repository, without history, keep it once and write it out as plain files.

A kept commit is a bare repository of its own (`<cache>/<commit>.git`), made beside its place and renamed into it: two
processes cannot hurt each other, and a kill leaves no lock file of git behind. We write files from the objects, not by
`git checkout`, which exits 0 when a blob is missing and lets attributes change bytes.
"""

import contextlib
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

from comfypin.addresses import hide_credentials
from comfypin.atomic_files import link_stays_inside
from comfypin.lease import is_dead, process_token
from comfypin.tools.errors import (
    CommitMissing,
    CommitNotHere,
    PatchUnfit,
    RepoUnreachable,
    TreeIncomplete,
    TreeRefused,
)
from comfypin.tools.git_process import feed_stdin, run_git, start_git

FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
_LFS_HEAD = b"version https://git-lfs.github.com/spec/"
# The LFS specification limits a pointer file to 1024 bytes: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_LFS_POINTER_BYTES = 1024
_COMMIT_NOT_FOUND = re.compile(r"not our ref|couldn't find remote ref|unadvertised object|no such ref", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """Describes one path of a commit: a file (100644, 100755), a link (120000) or a submodule (160000)."""

    mode: str
    object_id: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitSource:
    """Gets commits from the cache, then a vendor folder's bundles, then their repository."""

    cache: Path
    bundles: Path | None = None
    offline: bool = False

    def obtain_repository(self, repo: str, commit: str) -> Path:
        """Return a bare repository with the commit. Raises `RepoUnreachable`, `CommitMissing` or `CommitNotHere`."""
        kept = self.cache / f"{commit}.git"
        if kept.is_dir():
            return kept
        # A bundle before the network: a vendor folder must give the same result without one.
        bundle = self.bundles / f"{commit}.bundle" if self.bundles else None
        if bundle is not None and not bundle.is_file():
            bundle = None
        if bundle is None and self.offline:
            searched = tuple(str(place) for place in (self.cache, self.bundles) if place)
            raise CommitNotHere(repo=hide_credentials(repo), commit=commit, searched=searched)
        self.cache.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(self.cache)
        temporary = self.cache / f".tmp-{process_token()}"
        try:
            run_git(["init", "--quiet", "--bare", temporary], cwd=self.cache)
            if bundle is not None:
                _fetch_from_bundle(temporary, bundle, repo, commit)
            else:
                _fetch_commit(temporary, repo, commit)
            # A rename onto a folder that is not empty fails, so the first of two processes wins.
            with contextlib.suppress(OSError):  # somebody else was faster, with the same commit
                temporary.rename(kept)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return kept


def write_commit(commits: CommitSource, repo: str, commit: str, folder: Path) -> None:
    """Write all files of a commit, and of its submodules, into a folder that does not exist yet.

    Raises what `Commits.obtain_repository` raises, `TreeIncomplete` and `TreeRefused`.
    """
    kept = commits.obtain_repository(repo, commit)
    entries = list_tree(kept, commit)
    for entry in entries:
        # Check every name before the first byte is written: a refused commit leaves nothing behind.
        _check_path(entry, repo, commit)
    folder.mkdir(parents=True)
    links: list[tuple[TreeEntry, bytes]] = []
    for entry, data in read_blobs(kept, [entry for entry in entries if entry.mode != "160000"], repo, commit):
        if entry.mode == "120000":
            links.append((entry, data))
        else:
            _write_file(folder / entry.path, entry, data, repo, commit)
    # 160000 is a gitlink: the commit of a submodule, whose address only .gitmodules has.
    modules = [entry for entry in entries if entry.mode == "160000"]
    addresses = _submodule_addresses(kept, commit) if modules else {}
    for entry in modules:
        address = addresses.get(entry.path)
        if address is None:
            reason = "it is a submodule, but .gitmodules does not name it"
            raise TreeRefused(repo=hide_credentials(repo), commit=commit, path=entry.path, reason=reason)
        write_commit(commits, _absolute_address(repo, address), entry.object_id, folder / entry.path)
    # Links last: nothing is ever written through one.
    for entry, data in links:
        _write_link(folder, entry, os.fsdecode(data), repo, commit)


def rewrite_files(commits: CommitSource, repo: str, commit: str, folder: Path, paths: Sequence[str]) -> None:
    """Write some files of a commit again, because something changed them. Raises what `write_commit` raises."""
    kept = commits.obtain_repository(repo, commit)
    wanted = frozenset(paths)
    entries = [entry for entry in list_tree(kept, commit) if entry.path in wanted and entry.mode.startswith("100")]
    for entry, data in read_blobs(kept, entries, repo, commit):
        path = folder / entry.path
        path.unlink(missing_ok=True)
        _write_file(path, entry, data, repo, commit)


def list_submodules(kept: Path, repo: str, commit: str) -> tuple[tuple[str, str], ...]:
    """Return the repositories and commits of a commit's submodules. Raises `TreeRefused`."""
    modules = [entry for entry in list_tree(kept, commit) if entry.mode == "160000"]
    addresses = _submodule_addresses(kept, commit) if modules else {}
    for entry in modules:
        if entry.path not in addresses:
            reason = "it is a submodule, but .gitmodules does not name it"
            raise TreeRefused(repo=hide_credentials(repo), commit=commit, path=entry.path, reason=reason)
    return tuple((_absolute_address(repo, addresses[entry.path]), entry.object_id) for entry in modules)


def write_bundle(kept: Path, repo: str, commit: str, bundle: Path) -> None:
    """Write one commit as a bundle, which `CommitSource` reads from a vendor folder. Raises `TreeIncomplete`."""
    bundle.parent.mkdir(parents=True, exist_ok=True)
    scratch = bundle.parent / f".tmp-{process_token()}"
    try:
        # A bundle needs a ref. It is made in a repository that only borrows the kept one's objects: a kill must not
        # leave a lock file of git in the cache.
        run_git(["init", "--quiet", "--bare", scratch], cwd=bundle.parent)
        (scratch / "objects" / "info" / "alternates").write_text(f"{(kept / 'objects').resolve()}\n")
        if (kept / "shallow").is_file():
            # Without it git would miss the parents of a shallow commit, and refuse to bundle it.
            shutil.copyfile(kept / "shallow", scratch / "shallow")
        done = run_git(["update-ref", "refs/heads/comfypin", commit], cwd=scratch)
        if not done.exit_code:
            # One thread: how a commit is packed must not depend on how many cores there are.
            arguments = ["-c", "pack.threads=1", "bundle", "create", "whole.bundle", "refs/heads/comfypin"]
            done = run_git(arguments, cwd=scratch)
        if done.exit_code:
            raise TreeIncomplete(repo=hide_credentials(repo), commit=commit, path=f"its files ({done.error_summary})")
        (scratch / "whole.bundle").replace(bundle)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def require_whole_files(kept: Path, repo: str, commit: str) -> None:
    """Refuse a commit with Git LFS pointers, which cannot become an env. Raises `TreeRefused`."""
    listed = run_git(["ls-tree", "-r", "-l", "-z", "--full-tree", commit], cwd=kept)
    entries = []
    for line in listed.stdout.split(b"\0"):
        head, _, path = line.partition(b"\t")
        mode, _, oid, size = head.decode().split() or ("",) * 4
        if mode.startswith("100") and size.isdigit() and len(_LFS_HEAD) < int(size) < _LFS_POINTER_BYTES:
            entries.append(TreeEntry(mode=mode, object_id=oid, path=os.fsdecode(path)))
    for entry, data in read_blobs(kept, entries, repo, commit):
        _refuse_pointer(entry, data, repo, commit)


def list_tree(kept: Path, commit: str) -> tuple[TreeEntry, ...]:
    """Return every path of a commit, in git's order."""
    listed = run_git(["ls-tree", "-r", "-z", "--full-tree", commit], cwd=kept)
    if listed.exit_code:
        raise TreeIncomplete(repo=str(kept), commit=commit, path="its tree")
    entries = []
    for line in listed.stdout.split(b"\0"):
        if line:
            head, _, path = line.partition(b"\t")
            mode, _, oid = head.decode().split(" ")
            entries.append(TreeEntry(mode=mode, object_id=oid, path=os.fsdecode(path)))
    return tuple(entries)


def read_blobs(kept: Path, entries: Sequence[TreeEntry], repo: str, commit: str) -> Iterator[tuple[TreeEntry, bytes]]:
    """Yield the content of the entries, in order, each checked against its object id. Raises `TreeIncomplete`."""
    process = start_git(["cat-file", "--batch", "--buffer"], cwd=kept)
    assert process.stdin is not None
    assert process.stdout is not None
    wanted = "".join(f"{entry.object_id}\n" for entry in entries).encode()
    # In a thread: thousands of ids overflow the pipe while git waits for us to read.
    writer = threading.Thread(target=feed_stdin, args=(process, wanted), daemon=True)
    writer.start()
    try:
        for entry in entries:
            head = process.stdout.readline().split()
            if len(head) != 3 or head[1] != b"blob":
                raise TreeIncomplete(repo=hide_credentials(repo), commit=commit, path=entry.path)
            data = process.stdout.read(int(head[2]))
            # `cat-file --batch` ends each object with a newline that is not part of it.
            process.stdout.read(1)
            # `cat-file` need not compare the content with its hash, so we do.
            if hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() != entry.object_id:
                raise TreeIncomplete(repo=hide_credentials(repo), commit=commit, path=entry.path)
            yield entry, data
    finally:
        process.kill()
        process.wait()
        writer.join()
        process.stdout.close()


def apply_patch(folder: Path, patch: str, *, what: str) -> None:
    """Apply a diff to the files in a folder. Raises `PatchUnfit`."""
    # Else `git apply` may find a repository above the folder, and skip the paths as not its own.
    ceiling = {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent)}
    done = run_git(["apply", "--whitespace=nowarn", "-"], cwd=folder, stdin=patch.encode(), extra_variables=ceiling)
    if done.exit_code:
        raise PatchUnfit(repo=hide_credentials(what), reason=done.error_summary)


def _fetch_commit(bare: Path, repo: str, commit: str) -> None:
    # One commit without history: an env needs only its files.
    done = run_git(["fetch", "--quiet", "--depth", "1", "--no-tags", "--", repo, commit], cwd=bare)
    if done.exit_code and _COMMIT_NOT_FOUND.search(done.stderr):
        # Old servers give only what a branch or a tag names: take these, with their history.
        done = run_git(["fetch", "--quiet", "--", repo, "+refs/*:refs/comfypin/*"], cwd=bare)
    if done.exit_code:
        raise RepoUnreachable(repo=hide_credentials(repo), reason=_without_secrets(done.error_summary, repo))
    if not _has_commit(bare, commit):
        raise CommitMissing(repo=hide_credentials(repo), commit=commit, reason="no branch or tag leads to it")


def _fetch_from_bundle(bare: Path, bundle: Path, repo: str, commit: str) -> None:
    done = run_git(["bundle", "unbundle", bundle.resolve()], cwd=bare)
    if done.exit_code or not _has_commit(bare, commit):
        raise CommitMissing(repo=hide_credentials(repo), commit=commit, reason=f"it is not in the bundle {bundle}")


def _has_commit(bare: Path, commit: str) -> bool:
    return run_git(["cat-file", "-e", f"{commit}^{{tree}}"], cwd=bare).exit_code == 0


def _write_file(path: Path, entry: TreeEntry, data: bytes, repo: str, commit: str) -> None:
    _refuse_pointer(entry, data, repo, commit)
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o755 if entry.mode == "100755" else 0o644
    # O_EXCL and O_NOFOLLOW: never write through a link, never over a file of another entry.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        # The umask may have taken bits away; the same lock must give the same modes.
        os.fchmod(descriptor, mode)


def _refuse_pointer(entry: TreeEntry, data: bytes, repo: str, commit: str) -> None:
    if data.startswith(_LFS_HEAD) and len(data) < _LFS_POINTER_BYTES:
        reason = "it is a Git LFS pointer, not the file; use a fork or a version that has the file itself"
        raise TreeRefused(repo=hide_credentials(repo), commit=commit, path=entry.path, reason=reason)


def _write_link(folder: Path, entry: TreeEntry, target: str, repo: str, commit: str) -> None:
    path = folder / entry.path
    if not link_stays_inside(entry.path, target):
        raise TreeRefused(
            repo=hide_credentials(repo),
            commit=commit,
            path=entry.path,
            reason=f"it is a link that leads out, to {target}",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _submodule_addresses(kept: Path, commit: str) -> dict[str, str]:
    listed = run_git(["config", "--blob", f"{commit}:.gitmodules", "-z", "--list"], cwd=kept)
    values: dict[str, dict[str, str]] = {}
    for line in listed.stdout_text.split("\0"):
        key, _, value = line.partition("\n")
        parts = re.fullmatch(r"submodule\.(.*)\.(path|url)", key, re.S)
        if parts:
            values.setdefault(parts[1], {})[parts[2]] = value
    return {module["path"]: module["url"] for module in values.values() if {"path", "url"} <= module.keys()}


def _absolute_address(repo: str, address: str) -> str:
    if not address.startswith(("./", "../")):
        return address
    base = repo.rstrip("/") + "/"
    if "://" in base:
        scheme, _, rest = base.partition("://")
        # `urljoin` resolves `..` only for schemes that it knows, and ssh is not one of them.
        return f"{scheme}://" + urljoin(f"http://{rest}", address).removeprefix("http://")
    return os.path.normpath(base + address)


def _check_path(entry: TreeEntry, repo: str, commit: str) -> None:
    parts = entry.path.split("/")
    # `.git` in any case: on file systems that ignore case it would be the repository itself (CVE-2014-9390).
    if any(part in {"", ".", ".."} or part.lower() == ".git" for part in parts):
        reason = "its name leads out of the folder"
        raise TreeRefused(repo=hide_credentials(repo), commit=commit, path=entry.path, reason=reason)


def _remove_leftovers(cache: Path) -> None:
    """Remove what fetches that were killed on this machine left behind."""
    for entry in os.scandir(cache):
        if entry.name.startswith(".tmp-") and is_dead(entry.name.removeprefix(".tmp-")):
            shutil.rmtree(entry.path, ignore_errors=True)


def _without_secrets(text: str, repo: str) -> str:
    return text.replace(repo, hide_credentials(repo))
