"""The folders of `comfypin serve`: its state, which only one server may have, and what it serves at /outputs/."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfypin.lease import Lease


def lease_state(state_folder: Path) -> "Lease":
    """Return the lease of the state folder, since two servers would run each job twice.

    Raises `AlreadyServing`, `JobsUnusable`.
    """
    from comfypin.lease import Lease, LeaseUnavailable, try_acquire_lease
    from comfypin.queue.errors import AlreadyServing, JobsUnusable

    try:
        lease = try_acquire_lease(state_folder / "jobs.lease", purpose="serve")
    except LeaseUnavailable as exc:
        # The file of jobs lies beside it: what is wrong is the state folder, and --state-dir the way out.
        raise JobsUnusable(path=str(state_folder), reason=exc.reason) from exc
    if not isinstance(lease, Lease):
        raise AlreadyServing(path=str(state_folder), holder=str(lease))
    return lease


def ensure_state_folder(named_folder: Path) -> Path:
    """Make the folder of jobs and the token, and return its absolute path. Raises `JobsUnusable`."""
    from comfypin.machine_errors import reason_of
    from comfypin.queue.errors import JobsUnusable

    folder = named_folder.absolute()
    try:
        # Jobs and the token are nobody else's business.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        raise JobsUnusable(path=str(folder), reason=reason_of(exc)) from exc
    return folder


def ensure_output_folder(named_folder: Path) -> Path:
    """Return the resolved folder of outputs. Raises `FolderUnusable`."""
    from comfypin.outputs.folder import FolderSink

    FolderSink.open_usable(named_folder, flag="--output-dir")
    return named_folder.resolve()
