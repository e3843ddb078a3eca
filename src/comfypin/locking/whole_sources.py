"""Probes whether all of a source can be had: its submodules, and every file instead of a pointer to one."""

from pathlib import Path

from comfypin.addresses import hide_credentials
from comfypin.errors import EnvError
from comfypin.locking.errors import SourceNotWhole
from comfypin.tools.errors import TreeRefused
from comfypin.tools.git import CommitSource, find_submodules, require_whole_files

# As deep as `realize` follows them.
_MAX_DEPTH = 8


def require_whole_source(
    commits: CommitSource, stored_folder: Path, repository: str, commit_id: str, *, origin: str
) -> None:
    """Refuse a commit that could not be realized, and fetch its submodules as `realize` will. Raises `SourceNotWhole`.

    `origin` is how messages call it: "the node X".
    """
    try:
        # A pointer of git LFS instead of a file would only fail when the node is imported.
        require_whole_files(stored_folder, repository, commit_id)
    except TreeRefused as error:
        raise SourceNotWhole(origin=origin, reason=error.message) from error
    _require_submodules(commits, stored_folder, repository, commit_id, origin=origin, depth=0)


def _require_submodules(
    commits: CommitSource, stored_folder: Path, repository: str, commit_id: str, *, origin: str, depth: int
) -> None:
    for submodule in find_submodules(stored_folder, repository, commit_id) if depth < _MAX_DEPTH else ():
        try:
            folder = commits.obtain_repository(submodule.repository, submodule.commit_id)
            require_whole_files(folder, submodule.repository, submodule.commit_id)
        except EnvError as error:
            address = hide_credentials(submodule.repository)
            what = f"its submodule {submodule.path} ({address} at {submodule.commit_id[:12]}) cannot be had"
            raise SourceNotWhole(origin=origin, reason=f"{what}: {error.message}") from error
        _require_submodules(commits, folder, submodule.repository, submodule.commit_id, origin=origin, depth=depth + 1)
