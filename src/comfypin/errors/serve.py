"""Failures of serving jobs: what a job asks for cannot be taken, or the server is full, closed, or not allowed."""

from collections.abc import Sequence

from comfypin.errors import ComfypinError, ConfigError, LeaseError, WorkflowError


class JobInvalid(WorkflowError):
    """A job's input is not what docs/job.schema.json describes; every finding at once."""

    def __init__(self, *, findings: Sequence[str]) -> None:
        lines = "".join(f"\n  - {finding}" for finding in findings)
        super().__init__(f"The job's input cannot be taken:{lines}", findings=list(findings))
        self.findings = tuple(findings)


class ReleaseUnavailable(WorkflowError):
    """The job asks for a release that this worker does not run."""

    def __init__(self, *, wanted: str, running: str) -> None:
        super().__init__(
            f"This worker runs the release {running}, not {wanted}; send the job to an endpoint of that release, "
            "or leave `release` out.",
            wanted=wanted,
            running=running,
        )


class InputUnusable(WorkflowError):
    """An input file of the job cannot be had: too big, too slow, refused, not what it says."""

    def __init__(self, *, name: str, reason: str) -> None:
        super().__init__(f"The input {name!r} cannot be used: {reason}.", name=name, reason=reason)


class ServerUnsafe(ConfigError):
    """The server would be open to everybody."""


class JobBroken(ComfypinError):
    """The job met a mistake of ours; the log has its traceback."""

    def __init__(self, *, cause: Exception) -> None:
        kind = type(cause).__name__
        super().__init__(f"The job met an internal error ({kind}); the worker's log has its traceback.", kind=kind)


class JobsUnusable(ConfigError):
    """The file that jobs are stored in cannot be used."""

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(
            f"The jobs cannot be kept in {path}: {reason}. Name a local folder that can be written: "
            "COMFYPIN_STATE_DIR or --state-dir.",
            path=path,
            reason=reason,
        )


class AlreadyServing(LeaseError):
    """Another server works on the same jobs."""

    def __init__(self, *, path: str, holder: str) -> None:
        super().__init__(
            f"Another server has the jobs in {path} ({holder}); stop it, or name another --state-dir.", path=path
        )


class PortUnusable(ConfigError):
    """The server cannot listen where it was told to."""

    def __init__(self, *, address: str, reason: str) -> None:
        super().__init__(f"The server cannot listen on {address}: {reason}. Choose another --port or PORT.")


class QueueFull(ComfypinError):
    """As many jobs wait as the server takes; try again later."""

    def __init__(self, *, waiting: int, retry_after_s: int) -> None:
        super().__init__(f"{waiting} jobs wait already; try again in {retry_after_s} s.", waiting=waiting)
        self.retry_after_s = retry_after_s


class JobTimedOut(ComfypinError):
    """The job's policy did not give it more time."""


class JobUnknown(ComfypinError):
    """No job of this id is known: never taken, or its result was kept long enough."""

    def __init__(self, *, job_id: str) -> None:
        super().__init__(f"There is no job {job_id[:100]!r} here (results are kept for a while, then they go).")


class RetryRefused(ComfypinError):
    """The job cannot be run again as it stands."""

    def __init__(self, *, job_id: str, reason: str) -> None:
        super().__init__(f"The job {job_id} cannot be run again: {reason}.")


class RequestInvalid(ComfypinError):
    """A request that is not what /openapi.json describes."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The request cannot be taken: {reason}.")


class RequestTooComplex(ComfypinError):
    """A request's JSON would keep everybody else waiting while it is read."""

    def __init__(self, *, what: str, most: int) -> None:
        super().__init__(
            f"The request's JSON has more than {most} {what}; send large data as base64 text or by address.",
            what=what,
            most=most,
        )
