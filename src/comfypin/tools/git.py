"""Uses git to get one commit of one repository, without history, keep it once and write it out as plain files.

A kept commit is a bare repository of its own (`<cache>/<commit>.git`), made beside its place and renamed into it: two
processes cannot hurt each other, and a kill leaves no lock file of git behind. We write files from the objects, not by
`git checkout`, which exits 0 when a blob is missing and lets attributes change bytes.
"""

import contextlib
import errno
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
_LINK_MODE = "120000"
# Deeper nesting is a mistake, or a repository that contains itself.
_MAX_SUBMODULE_DEPTH = 8
# What the file system says about names that no folder can hold beside the others.
_IMPOSSIBLE_NAME_ERRORS = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP})
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

    def obtain_repository(self, repository: str, commit_id: str) -> Path:
        """Return a bare repository with the commit. Raises `RepoUnreachable`, `CommitMissing` or `CommitNotHere`."""
        bare_repository = self.cache / f"{commit_id}.git"
        if bare_repository.is_dir():
            return bare_repository
        # A bundle before the network: a vendor folder must give the same result without one.
        bundle_path = self.bundles / f"{commit_id}.bundle" if self.bundles else None
        if bundle_path is not None and not bundle_path.is_file():
            bundle_path = None
        if bundle_path is None and self.offline:
            searched = tuple(str(searched_folder) for searched_folder in (self.cache, self.bundles) if searched_folder)
            raise CommitNotHere(repo=hide_credentials(repository), commit=commit_id, searched=searched)
        self.cache.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(self.cache)
        temporary = self.cache / f".tmp-{process_token()}"
        try:
            run_git(["init", "--quiet", "--bare", temporary], cwd=self.cache)
            if bundle_path is not None:
                _fetch_from_bundle(temporary, bundle_path, repository, commit_id)
            else:
                _fetch_commit(temporary, repository, commit_id)
            # A rename onto a folder that is not empty fails, so the first of two processes wins.
            with contextlib.suppress(OSError):  # somebody else was faster, with the same commit
                temporary.rename(bare_repository)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return bare_repository


def write_commit(
    commit_source: CommitSource, repository: str, commit_id: str, target_folder: Path, *, depth: int = 0
) -> None:
    """Write all files of a commit, and of its submodules, into a folder that does not exist yet.

    `depth` counts the submodules around it. Raises what `CommitSource.obtain_repository` raises, `TreeIncomplete` and
    `TreeRefused`.
    """
    bare_repository = commit_source.obtain_repository(repository, commit_id)
    tree_entries = list_tree(bare_repository, commit_id)
    for tree_entry in tree_entries:
        # Check every name before the first byte is written: a refused commit leaves nothing behind.
        _check_path(tree_entry, repository, commit_id)
    target_folder.mkdir(parents=True)
    link_entries: list[tuple[TreeEntry, bytes]] = []
    for tree_entry, content in read_blobs(
        bare_repository,
        [tree_entry for tree_entry in tree_entries if tree_entry.mode != "160000"],
        repository,
        commit_id,
    ):
        if tree_entry.mode == "120000":
            link_entries.append((tree_entry, content))
        else:
            with _refuse_impossible_names(tree_entry, repository, commit_id):
                _write_file(target_folder / tree_entry.path, tree_entry, content, repository, commit_id)
    for tree_entry, submodule_address in _find_submodules(bare_repository, repository, commit_id, tree_entries):
        if depth >= _MAX_SUBMODULE_DEPTH:
            reason = f"it is a submodule within {depth} submodules"
            raise TreeRefused(repo=hide_credentials(repository), commit=commit_id, path=tree_entry.path, reason=reason)
        submodule_folder = target_folder / tree_entry.path
        with _refuse_impossible_names(tree_entry, repository, commit_id):
            write_commit(commit_source, submodule_address, tree_entry.object_id, submodule_folder, depth=depth + 1)
    # Links last: nothing is ever written through one.
    for tree_entry, content in link_entries:
        with _refuse_impossible_names(tree_entry, repository, commit_id):
            _write_link(target_folder, tree_entry, os.fsdecode(content), repository, commit_id)


@contextlib.contextmanager
def _refuse_impossible_names(tree_entry: TreeEntry, repository: str, commit_id: str) -> Iterator[None]:
    """Refuse what no folder can hold: two entries of one name, a name that is too long. Raises `TreeRefused`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _IMPOSSIBLE_NAME_ERRORS:
            raise
        reason = f"it cannot be written beside the other files: {os.strerror(error.errno).lower()}"
        raise TreeRefused(
            repo=hide_credentials(repository), commit=commit_id, path=tree_entry.path, reason=reason
        ) from error


def rewrite_files(
    commit_source: CommitSource, repository: str, commit_id: str, target_folder: Path, paths: Sequence[str]
) -> None:
    """Write some files of a commit again, because something changed them. Raises what `write_commit` raises."""
    bare_repository = commit_source.obtain_repository(repository, commit_id)
    wanted_paths = frozenset(paths)
    tree_entries = [
        tree_entry
        for tree_entry in list_tree(bare_repository, commit_id)
        if tree_entry.path in wanted_paths and tree_entry.mode.startswith("100")
    ]
    for tree_entry, content in read_blobs(bare_repository, tree_entries, repository, commit_id):
        file_path = target_folder / tree_entry.path
        file_path.unlink(missing_ok=True)
        _write_file(file_path, tree_entry, content, repository, commit_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submodule:
    """Describes a submodule of a commit: its path, its repository's address and its commit."""

    path: str
    repository: str
    commit_id: str


def find_submodules(bare_repository: Path, repository: str, commit_id: str) -> tuple[Submodule, ...]:
    """Return the submodules of a commit. Raises `TreeRefused`."""
    tree_entries = list_tree(bare_repository, commit_id)
    return tuple(
        Submodule(path=tree_entry.path, repository=submodule_address, commit_id=tree_entry.object_id)
        for tree_entry, submodule_address in _find_submodules(bare_repository, repository, commit_id, tree_entries)
    )


def list_submodules(bare_repository: Path, repository: str, commit_id: str) -> tuple[tuple[str, str], ...]:
    """Return the repositories and commits of a commit's submodules. Raises `TreeRefused`."""
    return tuple(
        (submodule.repository, submodule.commit_id)
        for submodule in find_submodules(bare_repository, repository, commit_id)
    )


def write_bundle(bare_repository: Path, repository: str, commit_id: str, bundle_path: Path) -> None:
    """Write one commit as a bundle, which `CommitSource` reads from a vendor folder. Raises `TreeIncomplete`."""
    bundle_path.parent.mkdir(parents=True, exist_ok=True)
    temporary_folder = bundle_path.parent / f".tmp-{process_token()}"
    try:
        # A bundle needs a ref. It is made in a repository that only borrows the kept one's objects: a kill must not
        # leave a lock file of git in the cache.
        run_git(["init", "--quiet", "--bare", temporary_folder], cwd=bundle_path.parent)
        (temporary_folder / "objects" / "info" / "alternates").write_text(
            f"{(bare_repository / 'objects').resolve()}\n"
        )
        if (bare_repository / "shallow").is_file():
            # Without it git would miss the parents of a shallow commit, and refuse to bundle it.
            shutil.copyfile(bare_repository / "shallow", temporary_folder / "shallow")
        finished = run_git(["update-ref", "refs/heads/comfypin", commit_id], cwd=temporary_folder)
        if not finished.exit_code:
            # One thread: how a commit is packed must not depend on how many cores there are.
            bundle_arguments = ["-c", "pack.threads=1", "bundle", "create", "whole.bundle", "refs/heads/comfypin"]
            finished = run_git(bundle_arguments, cwd=temporary_folder)
        if finished.exit_code:
            raise TreeIncomplete(
                repo=hide_credentials(repository), commit=commit_id, path=f"its files ({finished.error_summary})"
            )
        (temporary_folder / "whole.bundle").replace(bundle_path)
    finally:
        shutil.rmtree(temporary_folder, ignore_errors=True)


def require_whole_files(bare_repository: Path, repository: str, commit_id: str) -> None:
    """Refuse a commit with Git LFS pointers, which cannot become an env. Raises `TreeRefused`."""
    finished = run_git(["ls-tree", "-r", "-l", "-z", "--full-tree", commit_id], cwd=bare_repository)
    tree_entries = []
    for listing_line in finished.stdout.split(b"\0"):
        entry_head, _, file_path = listing_line.partition(b"\t")
        file_mode, _, object_id, size_text = entry_head.decode().split() or ("",) * 4
        if file_mode.startswith("100") and size_text.isdigit() and len(_LFS_HEAD) < int(size_text) < _LFS_POINTER_BYTES:
            tree_entries.append(TreeEntry(mode=file_mode, object_id=object_id, path=os.fsdecode(file_path)))
    for tree_entry, content in read_blobs(bare_repository, tree_entries, repository, commit_id):
        _refuse_pointer(tree_entry, content, repository, commit_id)


def list_tree(bare_repository: Path, commit_id: str) -> tuple[TreeEntry, ...]:
    """Return every path of a commit, in git's order."""
    finished = run_git(["ls-tree", "-r", "-z", "--full-tree", commit_id], cwd=bare_repository)
    if finished.exit_code:
        raise TreeIncomplete(repo=str(bare_repository), commit=commit_id, path="its tree")
    tree_entries = []
    for listing_line in finished.stdout.split(b"\0"):
        if listing_line:
            entry_head, _, file_path = listing_line.partition(b"\t")
            file_mode, _, object_id = entry_head.decode().split(" ")
            tree_entries.append(TreeEntry(mode=file_mode, object_id=object_id, path=os.fsdecode(file_path)))
    return tuple(tree_entries)


def read_blobs(
    bare_repository: Path, tree_entries: Sequence[TreeEntry], repository: str, commit_id: str
) -> Iterator[tuple[TreeEntry, bytes]]:
    """Yield the content of the entries, in order, each checked against its object id. Raises `TreeIncomplete`."""
    git_process = start_git(["cat-file", "--batch", "--buffer"], cwd=bare_repository)
    assert git_process.stdin is not None
    assert git_process.stdout is not None
    object_ids = "".join(f"{tree_entry.object_id}\n" for tree_entry in tree_entries).encode()
    # In a thread: thousands of ids overflow the pipe while git waits for us to read.
    writer_thread = threading.Thread(target=feed_stdin, args=(git_process, object_ids), daemon=True)
    writer_thread.start()
    try:
        for tree_entry in tree_entries:
            object_header = git_process.stdout.readline().split()
            if len(object_header) != 3 or object_header[1] != b"blob":
                raise TreeIncomplete(repo=hide_credentials(repository), commit=commit_id, path=tree_entry.path)
            content = git_process.stdout.read(int(object_header[2]))
            # `cat-file --batch` ends each object with a newline that is not part of it.
            git_process.stdout.read(1)
            # `cat-file` need not compare the content with its hash, so we do.
            if (
                hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
                != tree_entry.object_id
            ):
                raise TreeIncomplete(repo=hide_credentials(repository), commit=commit_id, path=tree_entry.path)
            yield tree_entry, content
    finally:
        git_process.kill()
        git_process.wait()
        writer_thread.join()
        git_process.stdout.close()


def apply_patch(target_folder: Path, patch_text: str, *, what: str) -> None:
    """Apply a diff to the files in a folder. Raises `PatchUnfit`."""
    # Else `git apply` may find a repository above the folder, and skip the paths as not its own.
    ceiling_variables = {"GIT_CEILING_DIRECTORIES": str(target_folder.resolve().parent)}
    finished = run_git(
        ["apply", "--whitespace=nowarn", "-"],
        cwd=target_folder,
        stdin=patch_text.encode(),
        extra_variables=ceiling_variables,
    )
    if finished.exit_code:
        raise PatchUnfit(repo=hide_credentials(what), reason=finished.error_summary)
    # git itself lets a patch make links to anywhere.
    if _LINK_MODE in patch_text:
        for link_path in filter(Path.is_symlink, target_folder.rglob("*")):
            if not link_stays_inside(link_path.relative_to(target_folder).as_posix(), str(link_path.readlink())):
                reason = f"it makes {link_path.name} a link that leads out"
                raise PatchUnfit(repo=hide_credentials(what), reason=reason)


def _fetch_commit(bare_repository: Path, repository: str, commit_id: str) -> None:
    # One commit without history: an env needs only its files.
    finished = run_git(
        ["fetch", "--quiet", "--depth", "1", "--no-tags", "--", repository, commit_id], cwd=bare_repository
    )
    if finished.exit_code and _COMMIT_NOT_FOUND.search(finished.stderr):
        # Old servers give only what a branch or a tag names: take these, with their history.
        finished = run_git(["fetch", "--quiet", "--", repository, "+refs/*:refs/comfypin/*"], cwd=bare_repository)
    if finished.exit_code:
        raise RepoUnreachable(
            repo=hide_credentials(repository), reason=_without_secrets(finished.error_summary, repository)
        )
    if not _has_commit(bare_repository, commit_id):
        raise CommitMissing(repo=hide_credentials(repository), commit=commit_id, reason="no branch or tag leads to it")


def _fetch_from_bundle(bare_repository: Path, bundle_path: Path, repository: str, commit_id: str) -> None:
    finished = run_git(["bundle", "unbundle", bundle_path.resolve()], cwd=bare_repository)
    if finished.exit_code or not _has_commit(bare_repository, commit_id):
        raise CommitMissing(
            repo=hide_credentials(repository), commit=commit_id, reason=f"it is not in the bundle {bundle_path}"
        )


def _has_commit(bare_repository: Path, commit_id: str) -> bool:
    return run_git(["cat-file", "-e", f"{commit_id}^{{tree}}"], cwd=bare_repository).exit_code == 0


def _write_file(file_path: Path, tree_entry: TreeEntry, content: bytes, repository: str, commit_id: str) -> None:
    _refuse_pointer(tree_entry, content, repository, commit_id)
    file_path.parent.mkdir(parents=True, exist_ok=True)
    file_mode = 0o755 if tree_entry.mode == "100755" else 0o644
    # O_EXCL and O_NOFOLLOW: never write through a link, never over a file of another entry.
    descriptor = os.open(file_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, file_mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        # The umask may have taken bits away; the same lock must give the same modes.
        os.fchmod(descriptor, file_mode)


def _refuse_pointer(tree_entry: TreeEntry, content: bytes, repository: str, commit_id: str) -> None:
    if content.startswith(_LFS_HEAD) and len(content) < _LFS_POINTER_BYTES:
        reason = "it is a Git LFS pointer, not the file; use a fork or a version that has the file itself"
        raise TreeRefused(repo=hide_credentials(repository), commit=commit_id, path=tree_entry.path, reason=reason)


def _write_link(target_folder: Path, tree_entry: TreeEntry, link_target: str, repository: str, commit_id: str) -> None:
    file_path = target_folder / tree_entry.path
    if not link_stays_inside(tree_entry.path, link_target):
        raise TreeRefused(
            repo=hide_credentials(repository),
            commit=commit_id,
            path=tree_entry.path,
            reason=f"it is a link that leads out, to {link_target}",
        )
    file_path.parent.mkdir(parents=True, exist_ok=True)
    file_path.symlink_to(link_target)


def _find_submodules(
    bare_repository: Path, repository: str, commit_id: str, tree_entries: Sequence[TreeEntry]
) -> Iterator[tuple[TreeEntry, str]]:
    """Yield the submodules of a commit, each with its address. Raises `TreeRefused`."""
    # 160000 is a gitlink: the commit of a submodule, whose address only .gitmodules has.
    submodule_entries = [tree_entry for tree_entry in tree_entries if tree_entry.mode == "160000"]
    submodule_addresses = _submodule_addresses(bare_repository, commit_id) if submodule_entries else {}
    for tree_entry in submodule_entries:
        if tree_entry.path not in submodule_addresses:
            reason = "it is a submodule, but .gitmodules does not name it"
            raise TreeRefused(repo=hide_credentials(repository), commit=commit_id, path=tree_entry.path, reason=reason)
        submodule_address = _absolute_address(repository, submodule_addresses[tree_entry.path])
        # A repository of strangers must not bring files of this machine into an env (CVE-2022-39253).
        if _is_on_this_machine(submodule_address) and not _is_on_this_machine(repository):
            reason = f"it is a submodule from this machine's own disk, {submodule_address}"
            raise TreeRefused(repo=hide_credentials(repository), commit=commit_id, path=tree_entry.path, reason=reason)
        yield tree_entry, submodule_address


def _is_on_this_machine(repository: str) -> bool:
    """Return whether git would read the address from a disk: a file:// URL, or a path that is no `host:path`."""
    scheme, separator, _ = repository.partition("://")
    if separator:
        return scheme.lower() == "file"
    return "/" in repository.partition(":")[0] or ":" not in repository


def _submodule_addresses(bare_repository: Path, commit_id: str) -> dict[str, str]:
    finished = run_git(["config", "--blob", f"{commit_id}:.gitmodules", "-z", "--list"], cwd=bare_repository)
    settings_by_name: dict[str, dict[str, str]] = {}
    for setting_line in finished.stdout_text.split("\0"):
        setting_key, _, setting_value = setting_line.partition("\n")
        setting_match = re.fullmatch(r"submodule\.(.*)\.(path|url)", setting_key, re.S)
        if setting_match:
            settings_by_name.setdefault(setting_match[1], {})[setting_match[2]] = setting_value
    return {
        submodule_settings["path"]: submodule_settings["url"]
        for submodule_settings in settings_by_name.values()
        if {"path", "url"} <= submodule_settings.keys()
    }


def _absolute_address(repository: str, submodule_address: str) -> str:
    if not submodule_address.startswith(("./", "../")):
        return submodule_address
    base_address = repository.rstrip("/") + "/"
    if "://" in base_address:
        scheme, _, address_rest = base_address.partition("://")
        # `urljoin` resolves `..` only for schemes that it knows, and ssh is not one of them.
        return f"{scheme}://" + urljoin(f"http://{address_rest}", submodule_address).removeprefix("http://")
    return os.path.normpath(base_address + submodule_address)


def _check_path(tree_entry: TreeEntry, repository: str, commit_id: str) -> None:
    path_parts = tree_entry.path.split("/")
    # `.git` in any case: on file systems that ignore case it would be the repository itself (CVE-2014-9390).
    if any(path_part in {"", ".", ".."} or path_part.lower() == ".git" for path_part in path_parts):
        reason = "its name leads out of the folder"
        raise TreeRefused(repo=hide_credentials(repository), commit=commit_id, path=tree_entry.path, reason=reason)


def _remove_leftovers(cache_folder: Path) -> None:
    """Remove what fetches that were killed on this machine left behind."""
    for directory_entry in os.scandir(cache_folder):
        if directory_entry.name.startswith(".tmp-") and is_dead(directory_entry.name.removeprefix(".tmp-")):
            shutil.rmtree(directory_entry.path, ignore_errors=True)


def _without_secrets(message: str, repository: str) -> str:
    return message.replace(repository, hide_credentials(repository))
