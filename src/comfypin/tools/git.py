"""Git as we use it: one commit of one repository, without history, kept once and written out as plain files.

A kept commit is a bare repository of its own (`<cache>/<commit>.git`), made beside its place and renamed into it: two
processes cannot hurt each other, and a kill leaves no lock file of git behind. Files are written from the objects by
us, not by `git checkout`, which exits 0 when a blob is missing and lets attributes change bytes.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
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
    ToolMissing,
    TreeIncomplete,
    TreeRefused,
)
from comfypin.tools.process import Finished, run

FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
FETCH_TIMEOUT_S = 900.0
_LINK_MODE = "120000"
_MOST_NESTED = 8
_IMPOSSIBLE = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP})
# What `git rev-parse --local-env-vars` lists (a hook that calls us has them set), less settings, which are how CI
# gives credentials; and what else would have git see another repository, or other paths of it.
_REPOSITORY_VARIABLES = frozenset(
    f"GIT_{name}"
    for name in (
        *("DIR", "WORK_TREE", "INDEX_FILE", "OBJECT_DIRECTORY", "ALTERNATE_OBJECT_DIRECTORIES", "NAMESPACE", "PREFIX"),
        *("COMMON_DIR", "SHALLOW_FILE", "GRAFT_FILE", "REPLACE_REF_BASE", "NO_REPLACE_OBJECTS", "IMPLICIT_WORK_TREE"),
        *("INTERNAL_SUPER_PREFIX", "QUARANTINE_PATH", "CONFIG", "CEILING_DIRECTORIES", "ATTR_SOURCE", "TEMPLATE_DIR"),
        *("LITERAL_PATHSPECS", "GLOB_PATHSPECS", "NOGLOB_PATHSPECS", "ICASE_PATHSPECS", "DEFAULT_HASH"),
        *("DEFAULT_REF_FORMAT", "EXTERNAL_DIFF", "DIFF_OPTS"),
    )
)
_LFS_HEAD = b"version https://git-lfs.github.com/spec/"
_LFS_POINTER_BYTES = 1024
_NOT_THERE = re.compile(r"not our ref|couldn't find remote ref|unadvertised object|no such ref", re.I)
_QUIET = (
    *("-c", "protocol.version=2"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "advice.detachedHead=false"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """One path of a commit: a file (100644, 100755), a link (120000) or a submodule (160000)."""

    mode: str
    oid: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commits:
    """Where commits come from: the cache, then a vendor folder's bundles, then their repository."""

    cache: Path
    bundles: Path | None = None
    offline: bool = False

    def obtain(self, repo: str, commit: str) -> Path:
        """A bare repository that has the commit. Raises `RepoUnreachable`, `CommitMissing` or `CommitNotHere`."""
        kept = self.cache / f"{commit}.git"
        if kept.is_dir():
            return kept
        bundle = self.bundles / f"{commit}.bundle" if self.bundles else None
        if bundle is not None and not bundle.is_file():
            bundle = None
        if bundle is None and self.offline:
            searched = tuple(str(place) for place in (self.cache, self.bundles) if place)
            raise CommitNotHere(repo=hide_credentials(repo), commit=commit, searched=searched)
        self.cache.mkdir(parents=True, exist_ok=True)
        _sweep(self.cache)
        temporary = self.cache / f".tmp-{process_token()}"
        try:
            git(["init", "--quiet", "--bare", temporary], cwd=self.cache)
            if bundle is not None:
                _unbundle(temporary, bundle, repo, commit)
            else:
                _fetch(temporary, repo, commit)
            with contextlib.suppress(OSError):  # somebody else was faster, with the same commit
                temporary.rename(kept)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return kept


def write_commit(commits: Commits, repo: str, commit: str, folder: Path, *, depth: int = 0) -> None:
    """Write all files of a commit, and of its submodules, into a folder that does not exist yet.

    `depth` counts the submodules around it. Raises what `Commits.obtain` raises, `TreeIncomplete` and `TreeRefused`.
    """
    kept = commits.obtain(repo, commit)
    entries = list_tree(kept, commit)
    for entry in entries:
        _check_path(entry, repo, commit)
    folder.mkdir(parents=True)
    links: list[tuple[TreeEntry, bytes]] = []
    for entry, data in read_blobs(kept, [entry for entry in entries if entry.mode != "160000"], repo, commit):
        if entry.mode == "120000":
            links.append((entry, data))
        else:
            with _refusing_impossible(entry, repo, commit):
                _write_file(folder / entry.path, entry, data, repo, commit)
    for entry, address in _submodules_of(kept, repo, commit, entries):
        if depth >= _MOST_NESTED:
            reason = f"it is a submodule within {depth} submodules"
            raise TreeRefused(repo=hide_credentials(repo), commit=commit, path=entry.path, reason=reason)
        with _refusing_impossible(entry, repo, commit):
            write_commit(commits, address, entry.oid, folder / entry.path, depth=depth + 1)
    # Links last: nothing is ever written through one.
    for entry, data in links:
        with _refusing_impossible(entry, repo, commit):
            _write_link(folder, entry, os.fsdecode(data), repo, commit)


@contextlib.contextmanager
def _refusing_impossible(entry: TreeEntry, repo: str, commit: str) -> Iterator[None]:
    """Refuse what no folder can hold: two entries of one name, a name that is too long. Raises `TreeRefused`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _IMPOSSIBLE:
            raise
        reason = f"it cannot be written beside the other files: {os.strerror(error.errno).lower()}"
        raise TreeRefused(repo=hide_credentials(repo), commit=commit, path=entry.path, reason=reason) from error


def rewrite_files(commits: Commits, repo: str, commit: str, folder: Path, paths: Sequence[str]) -> None:
    """Write some files of a commit again, where something has changed them. Raises what `write_commit` raises."""
    kept = commits.obtain(repo, commit)
    wanted = frozenset(paths)
    entries = [entry for entry in list_tree(kept, commit) if entry.path in wanted and entry.mode.startswith("100")]
    for entry, data in read_blobs(kept, entries, repo, commit):
        path = folder / entry.path
        path.unlink(missing_ok=True)
        _write_file(path, entry, data, repo, commit)


def submodules(kept: Path, repo: str, commit: str) -> tuple[tuple[str, str], ...]:
    """The repositories and commits of the submodules of a commit. Raises `TreeRefused`."""
    entries = list_tree(kept, commit)
    return tuple((address, entry.oid) for entry, address in _submodules_of(kept, repo, commit, entries))


def write_bundle(kept: Path, repo: str, commit: str, bundle: Path) -> None:
    """Write one commit as a bundle: what `Commits` takes from a vendor folder. Raises `TreeIncomplete`."""
    bundle.parent.mkdir(parents=True, exist_ok=True)
    scratch = bundle.parent / f".tmp-{process_token()}"
    try:
        # A bundle needs a ref. It is made in a repository that only borrows the kept one's objects: a kill must not
        # leave a lock file of git in the cache.
        git(["init", "--quiet", "--bare", scratch], cwd=bundle.parent)
        (scratch / "objects" / "info" / "alternates").write_text(f"{(kept / 'objects').resolve()}\n")
        if (kept / "shallow").is_file():
            shutil.copyfile(kept / "shallow", scratch / "shallow")
        done = git(["update-ref", "refs/heads/comfypin", commit], cwd=scratch)
        if not done.exit_code:
            # One thread: how a commit is packed must not depend on how many cores there are.
            arguments = ["-c", "pack.threads=1", "bundle", "create", "whole.bundle", "refs/heads/comfypin"]
            done = git(arguments, cwd=scratch)
        if done.exit_code:
            raise TreeIncomplete(repo=hide_credentials(repo), commit=commit, path=f"its files ({done.complaint})")
        (scratch / "whole.bundle").replace(bundle)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def require_whole_files(kept: Path, repo: str, commit: str) -> None:
    """Refuse a commit with pointers of Git LFS, which nobody could make an env of. Raises `TreeRefused`."""
    listed = git(["ls-tree", "-r", "-l", "-z", "--full-tree", commit], cwd=kept)
    entries = []
    for line in listed.stdout.split(b"\0"):
        head, _, path = line.partition(b"\t")
        mode, _, oid, size = head.decode().split() or ("",) * 4
        if mode.startswith("100") and size.isdigit() and len(_LFS_HEAD) < int(size) < _LFS_POINTER_BYTES:
            entries.append(TreeEntry(mode=mode, oid=oid, path=os.fsdecode(path)))
    for entry, data in read_blobs(kept, entries, repo, commit):
        _refuse_pointer(entry, data, repo, commit)


def list_tree(kept: Path, commit: str) -> tuple[TreeEntry, ...]:
    """Every path of a commit, in git's order."""
    listed = git(["ls-tree", "-r", "-z", "--full-tree", commit], cwd=kept)
    if listed.exit_code:
        raise TreeIncomplete(repo=str(kept), commit=commit, path="its tree")
    entries = []
    for line in listed.stdout.split(b"\0"):
        if line:
            head, _, path = line.partition(b"\t")
            mode, _, oid = head.decode().split(" ")
            entries.append(TreeEntry(mode=mode, oid=oid, path=os.fsdecode(path)))
    return tuple(entries)


def read_blobs(kept: Path, entries: Sequence[TreeEntry], repo: str, commit: str) -> Iterator[tuple[TreeEntry, bytes]]:
    """The content of the entries, in order, each checked against its object id. Raises `TreeIncomplete`."""
    process = _popen(["cat-file", "--batch", "--buffer"], cwd=kept)
    assert process.stdin is not None
    assert process.stdout is not None
    wanted = "".join(f"{entry.oid}\n" for entry in entries).encode()
    writer = threading.Thread(target=_feed, args=(process, wanted), daemon=True)
    writer.start()
    try:
        for entry in entries:
            head = process.stdout.readline().split()
            if len(head) != 3 or head[1] != b"blob":
                raise TreeIncomplete(repo=hide_credentials(repo), commit=commit, path=entry.path)
            data = process.stdout.read(int(head[2]))
            process.stdout.read(1)
            if hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() != entry.oid:
                raise TreeIncomplete(repo=hide_credentials(repo), commit=commit, path=entry.path)
            yield entry, data
    finally:
        process.kill()
        process.wait()
        writer.join()
        process.stdout.close()


def apply_patch(folder: Path, patch: str, *, what: str) -> None:
    """Apply a diff to the files in a folder. Raises `PatchUnfit`."""
    ceiling = {"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent)}
    done = git(["apply", "--whitespace=nowarn", "-"], cwd=folder, stdin=patch.encode(), extra=ceiling)
    if done.exit_code:
        raise PatchUnfit(repo=hide_credentials(what), reason=done.complaint)
    if _LINK_MODE in patch:
        for path in filter(Path.is_symlink, folder.rglob("*")):
            if not link_stays_inside(path.relative_to(folder).as_posix(), str(path.readlink())):
                raise PatchUnfit(repo=hide_credentials(what), reason=f"it makes {path.name} a link that leads out")


def _fetch(bare: Path, repo: str, commit: str) -> None:
    done = git(["fetch", "--quiet", "--depth", "1", "--no-tags", "--", repo, commit], cwd=bare)
    if done.exit_code and _NOT_THERE.search(done.stderr):
        # Old servers give only what a branch or a tag names: take these, with their history.
        done = git(["fetch", "--quiet", "--", repo, "+refs/*:refs/comfypin/*"], cwd=bare)
    if done.exit_code:
        raise RepoUnreachable(repo=hide_credentials(repo), reason=_without_secrets(done.complaint, repo))
    if not _has(bare, commit):
        raise CommitMissing(repo=hide_credentials(repo), commit=commit, reason="no branch or tag leads to it")


def _unbundle(bare: Path, bundle: Path, repo: str, commit: str) -> None:
    done = git(["bundle", "unbundle", bundle.resolve()], cwd=bare)
    if done.exit_code or not _has(bare, commit):
        raise CommitMissing(repo=hide_credentials(repo), commit=commit, reason=f"the bundle {bundle} does not give it")


def _has(bare: Path, commit: str) -> bool:
    return git(["cat-file", "-e", f"{commit}^{{tree}}"], cwd=bare).exit_code == 0


def _write_file(path: Path, entry: TreeEntry, data: bytes, repo: str, commit: str) -> None:
    _refuse_pointer(entry, data, repo, commit)
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o755 if entry.mode == "100755" else 0o644
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fchmod(descriptor, mode)


def _refuse_pointer(entry: TreeEntry, data: bytes, repo: str, commit: str) -> None:
    if data.startswith(_LFS_HEAD) and len(data) < _LFS_POINTER_BYTES:
        reason = "it is a pointer of Git LFS, not the file; take a fork or a version that has the file itself"
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


def _submodules_of(kept: Path, repo: str, commit: str, entries: Sequence[TreeEntry]) -> Iterator[tuple[TreeEntry, str]]:
    """The submodules of a commit, each with its address. Raises `TreeRefused`."""
    modules = [entry for entry in entries if entry.mode == "160000"]
    addresses = _submodule_addresses(kept, commit) if modules else {}
    for entry in modules:
        if entry.path not in addresses:
            reason = "it is a submodule that .gitmodules does not name"
            raise TreeRefused(repo=hide_credentials(repo), commit=commit, path=entry.path, reason=reason)
        address = _absolute_address(repo, addresses[entry.path])
        # A repository of strangers must not bring files of this machine into an env (CVE-2022-39253).
        if _is_of_this_machine(address) and not _is_of_this_machine(repo):
            reason = f"it is a submodule from this machine's own disk, {address}"
            raise TreeRefused(repo=hide_credentials(repo), commit=commit, path=entry.path, reason=reason)
        yield entry, address


def _is_of_this_machine(address: str) -> bool:
    """Whether git would read the address from a disk: a file:// URL, or a path that is no `host:path`."""
    scheme, separator, _ = address.partition("://")
    if separator:
        return scheme.lower() == "file"
    return "/" in address.partition(":")[0] or ":" not in address


def _submodule_addresses(kept: Path, commit: str) -> dict[str, str]:
    listed = git(["config", "--blob", f"{commit}:.gitmodules", "-z", "--list"], cwd=kept)
    values: dict[str, dict[str, str]] = {}
    for line in listed.text.split("\0"):
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
        return f"{scheme}://" + urljoin(f"http://{rest}", address).removeprefix("http://")
    return os.path.normpath(base + address)


def _check_path(entry: TreeEntry, repo: str, commit: str) -> None:
    parts = entry.path.split("/")
    if any(part in {"", ".", ".."} or part.lower() == ".git" for part in parts):
        reason = "its name does not stay inside the folder"
        raise TreeRefused(repo=hide_credentials(repo), commit=commit, path=entry.path, reason=reason)


def _sweep(cache: Path) -> None:
    """Remove what fetches that were killed on this machine left behind."""
    for entry in os.scandir(cache):
        if entry.name.startswith(".tmp-") and is_dead(entry.name.removeprefix(".tmp-")):
            shutil.rmtree(entry.path, ignore_errors=True)


def _without_secrets(text: str, repo: str) -> str:
    return text.replace(repo, hide_credentials(repo))


def git(
    arguments: Sequence[str | Path],
    *,
    cwd: Path,
    stdin: bytes | None = None,
    extra: Mapping[str, str] | None = None,
    timeout_s: float = FETCH_TIMEOUT_S,
) -> Finished:
    """Run git where no setting of the user's and no prompt can change or stop it; `extra` are variables."""
    command: list[str | Path] = ["git", *_QUIET, *arguments]
    return run(command, cwd=cwd, env={**_environment(), **(extra or {})}, stdin=stdin, timeout_s=timeout_s)


def _popen(arguments: Sequence[str], *, cwd: Path) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            ["git", *_QUIET, *arguments],
            cwd=cwd,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise ToolMissing(tool="git", remedy="install it (Debian: apt-get install git)") from error


def _feed(process: "subprocess.Popen[bytes]", data: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ValueError):
        process.stdin.write(data)
        process.stdin.close()


def setting_variables(settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the variables that give git these settings, after those that the user gives it so."""
    first = int(given) if (given := _environment().get("GIT_CONFIG_COUNT", "")).isdigit() else 0
    variables = {"GIT_CONFIG_COUNT": str(first + len(settings))}
    for number, (key, value) in enumerate(settings, start=first):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return variables


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _REPOSITORY_VARIABLES}
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh", "LC_ALL": "C"}
